package mmapio_test

import (
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// TestMain lets the test binary be its own child, and fails the run if the
// tests leave a descriptor or a mapping behind.
//
// The library keeps descriptors of /proc/self from the first time on that it
// asks about a lock. They are no leak, so they are there before anyone counts.
func TestMain(m *testing.M) {
	if f, err := mmapio.Anonymous(1, nil); err == nil {
		_ = f.LockAll() // a child may not be allowed to
		_ = f.VerifyLocked(0, 1)
		_ = f.Close()
	}
	prove.Main(m)
}
