//go:build unix

package cli

import (
	"os"
	"os/signal"
	"syscall"
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

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }

// exitCode is what a shell would have in $?.
func exitCode(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return exitSignal + int(w.Signal())
	}
	return s.ExitCode()
}
