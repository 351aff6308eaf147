package mmapio_test

import (
	"errors"
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
		_, hint, _ := strings.Cut(string(text), "lockHint = \"")
		hint, _, _ = strings.Cut(hint, "\"")
		got := mmapio.RefusedWithHint(hint, errAgain).Error()
		for _, want := range append(settings, errAgain.Error()) {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q lacks %q", system, got, want)
			}
		}
	}
}
