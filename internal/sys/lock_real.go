//go:build !mmapio_stublock

package sys

// stubLock is for the proofs that locks are proved: see lock_stub.go.
const stubLock = false
