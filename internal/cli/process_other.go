//go:build !unix

package cli

import (
	"os"
	"syscall"
)

// On Windows SIGTERM stands for the end of the console, the session or the
// system.
var stopSignals = []os.Signal{os.Interrupt, syscall.SIGTERM}

var passedOn = stopSignals

func keepIgnored() {}

func isIgnored(os.Signal) bool { return false } // to ask panics where there are none

// fromTerminal: no interrupt can be passed on here.
func fromTerminal(os.Signal, *os.Process) bool { return false }

func terminate(p *os.Process) error { return p.Kill() }

func exitCode(s *os.ProcessState) int { return s.ExitCode() }
