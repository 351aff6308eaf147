//go:build mmapio_asyncsync

package sys

// stubSync makes a sync what mmap libraries are content with, on Linux:
// MS_ASYNC, which does nothing there. Every proof that something is durable
// must notice. See scripts/mustfail.
const stubSync = true
