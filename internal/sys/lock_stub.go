//go:build mmapio_stublock

package sys

// stubLock makes Lock do nothing and succeed, on Linux: every proof of a lock
// must notice. See scripts/mustfail.
const stubLock = true
