//go:build !mmapio_asyncsync

package sys

// stubSync is for the proofs that syncs are proved: see sync_stub.go.
const stubSync = false
