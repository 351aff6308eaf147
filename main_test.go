package mmapio_test

import (
	"os"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// coldEnv set to 1 leaves it to the tests of a child to ask the kernel first.
const coldEnv = "MMAPIO_TEST_COLD"

// TestMain lets the test binary be its own child, and fails the run if the
// tests leave a descriptor or a mapping behind.
//
// The library keeps descriptors of /proc/self from the first time on that it
// asks about a lock. They are no leak, so they are there before anyone counts.
func TestMain(m *testing.M) {
	if os.Getenv(coldEnv) == "1" {
		prove.Main(m)
	}
	if f, err := mmapio.Anonymous(1, nil); err == nil {
		_ = f.LockAll() // a child may not be allowed to
		_ = f.VerifyLocked(0, 1)
		_ = f.Close()
	}
	prove.Main(m)
}
