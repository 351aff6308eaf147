package mmapio_test

import (
	"strings"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/sys"
)

// TestRefusedWithoutLimit: locks have no limit, so the system's own word stands.
func TestRefusedWithoutLimit(t *testing.T) {
	lim, err := mmapio.ReadLockLimits()
	check(t, err)
	for _, errno := range []error{sys.ErrNoMemory, sys.ErrAgain} {
		e := mmapio.RefusedWithHint(sys.LockHint, 1<<30, lim, errno)
		if e.Cause != mmapio.CauseUnknown || !strings.HasSuffix(e.Error(), "needs 1.0 GiB: "+errno.Error()) {
			t.Errorf("%v, cause %v", e, e.Cause)
		}
	}
}
