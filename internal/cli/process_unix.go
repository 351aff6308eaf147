//go:build unix

package cli

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/mmapio/mmapio/internal/sys"
)

var stopSignals = []os.Signal{os.Interrupt, syscall.SIGTERM}

// passedOn are the signals that the command gets.
var passedOn = []os.Signal{
	syscall.SIGHUP, os.Interrupt, syscall.SIGQUIT, syscall.SIGTERM,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGWINCH,
}

func isIgnored(sig os.Signal) bool { return signal.Ignored(sig) }

// keepIgnored ignores what the runtime has not left ignored: shells have what runs
// in the background of a script ignore both keys.
func keepIgnored() {
	if signal.Ignored(os.Interrupt) {
		signal.Ignore(syscall.SIGQUIT)
	}
}

// fromTerminal reports whether the child has the signal already. Ctrl-C, Ctrl-\ and
// another size of the window are for all of the foreground, and to many programs
// the second Ctrl-C means to leave their work as it is. Who sent it is not to be
// had: an interrupt for this process alone, while it is in the foreground, is taken
// for the key.
func fromTerminal(sig os.Signal, child *os.Process) bool {
	keys := sig == os.Interrupt || sig == syscall.SIGQUIT || sig == syscall.SIGWINCH
	return keys && sys.InForeground(os.Getpid()) && sys.InForeground(child.Pid)
}

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }

// exitCode is what a shell would have in $?.
func exitCode(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return exitSignal + int(w.Signal())
	}
	return s.ExitCode()
}
