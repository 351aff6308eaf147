package mmapio_test

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/mmapio/mmapio"
)

var errAgain = errors.New("resource temporarily unavailable")

// TestWiredLimits: where a kernel has limits of its own that no call tells, the
// error names the settings. Every system's are in the file that is named after
// it, and none of these systems runs here.
func TestWiredLimits(t *testing.T) {
	hintOf := func(text, name string) string {
		_, hint, _ := strings.Cut(text, name+" = \"")
		hint, _, _ = strings.Cut(hint, "\"")
		return hint
	}
	for system, settings := range map[string][]string{
		"darwin":    {"vm.user_wire_limit", "vm.global_user_wire_limit"},
		"freebsd":   {"vm.max_user_wired", "security.bsd.unprivileged_mlock"},
		"dragonfly": {"super-user", "mlock(2)"},
		"uvm":       {"mlock(2)"}, // NetBSD and OpenBSD
	} {
		text, err := os.ReadFile("internal/sys/hint_" + system + ".go")
		if err != nil {
			if runtime.GOOS != "linux" {
				t.Skip("the sources are not here, on " + runtime.GOOS)
			}
			t.Fatal(err)
		}
		hint, raised := hintOf(string(text), "lockHint"), hintOf(string(text), "raiseHint")
		unlimited := mmapio.LockLimits{Soft: -1, Hard: -1, Unlimited: true}
		limited := mmapio.LockLimits{Soft: 4096, Hard: 4096, InUse: -1}
		for want, e := range map[string]*mmapio.LockError{
			errAgain.Error():         mmapio.RefusedWithHints(hint, raised, 1, unlimited, errAgain),
			"RLIMIT_MEMLOCK":         mmapio.RefusedWithHints(hint, raised, 8192, limited, errAgain),
			fs.ErrPermission.Error(): mmapio.RefusedWithHints(hint, raised, 8192, limited, fs.ErrPermission),
		} {
			for _, want := range append(settings, want) {
				if got := e.Error(); !strings.Contains(got, want) {
					t.Errorf("%s: %q lacks %q", system, got, want)
				}
			}
			got, limit := e.Error(), e.Cause == mmapio.CauseLimit
			if raised == "" || strings.Contains(got, raised) != limit || strings.Contains(got, "CAP_IPC_LOCK") {
				t.Errorf("%s: %q is to name %q: %v", system, got, raised, limit)
			}
		}
	}
}

// TestRefusedPermission: a process that may not lock is told so, however much
// more than its limit it asked for. Linux gives this errno to a limit of 0.
func TestRefusedPermission(t *testing.T) {
	for soft, limit := range map[int64]bool{0: true, 64 << 10: false, 1 << 30: false} {
		e := mmapio.RefusedWithHint("", 1<<20, mmapio.LockLimits{Soft: soft, Hard: soft, InUse: -1}, fs.ErrPermission)
		if e.Cause != mmapio.CausePermission || strings.Contains(e.Error(), "RLIMIT_MEMLOCK") != limit {
			t.Errorf("limit %d: %v, cause %v", soft, e, e.Cause)
		}
	}
}
