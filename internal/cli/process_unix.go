//go:build unix

package cli

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/mmapio/mmapio/internal/sys"
)

var stopSignals = []os.Signal{os.Interrupt, syscall.SIGTERM}

// passedOn are the signals that the command gets. Under nohup SIGHUP is
// ignored, and listening for it would undo that for the command too.
func passedOn() []os.Signal {
	if signal.Ignored(syscall.SIGHUP) {
		return stopSignals
	}
	return append([]os.Signal{syscall.SIGHUP}, stopSignals...)
}

// fromTerminal reports whether the child has the signal already. Ctrl-C is for all
// of the foreground, and to many programs the second one means to leave their work
// as it is. Who sent it is not to be had: an interrupt for this process alone,
// while it is in the foreground, is taken for the key.
func fromTerminal(sig os.Signal, child *os.Process) bool {
	return sig == os.Interrupt && sys.InForeground(os.Getpid()) && sys.InForeground(child.Pid)
}

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }

// exitCode is what a shell would have in $?.
func exitCode(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return exitSignal + int(w.Signal())
	}
	return s.ExitCode()
}
