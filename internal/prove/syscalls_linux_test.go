package prove

import (
	"syscall"
	"testing"
)

func TestCountSyscalls(t *testing.T) {
	Need(t, Root)
	const calls = 5000
	n := CountSyscalls(t, 0, func() {
		for range calls {
			syscall.Getpid()
		}
	})
	if n < calls || n > calls+calls/2 {
		t.Errorf("counted %d, there were %d and a few", n, calls)
	}
}
