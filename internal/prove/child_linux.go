package prove

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// canPrepare says that a child can change what it is before it becomes what it shall be.
const canPrepare = true

const lifelineFD = 3

var resources = map[Resource]int{
	LockedMemory: unix.RLIMIT_MEMLOCK, AddressSpace: unix.RLIMIT_AS,
	FileSize: unix.RLIMIT_FSIZE, OpenFiles: unix.RLIMIT_NOFILE, CoreSize: unix.RLIMIT_CORE,
}

// prepareChild does what must come first: the cgroup (only root may), room in the hard limits (only root may), then the
// user. Changing the user in a running process leaves its /proc files root's, so it starts the program anew.
func prepareChild(s *childSpec) error {
	syscall.CloseOnExec(lifelineFD)
	if s.Dropped {
		return nil
	}
	if s.Cgroup != "" {
		if err := os.WriteFile(s.Cgroup, fmt.Appendf(nil, "%d", os.Getpid()), 0); err != nil {
			return err
		}
	}
	if s.UID == 0 && len(s.Exec) == 0 {
		return nil
	}
	if len(s.Exec) > 0 {
		return becomeCommand(s)
	}
	for _, l := range s.Limits {
		if err := raiseHard(l); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s.Dropped = true
	env, err := s.environment()
	if err != nil {
		return err
	}
	if err := dropTo(s.UID, s.GID); err != nil {
		return err
	}
	if err := keepLifeline(); err != nil {
		return err
	}
	return fmt.Errorf("exec %s: %w", self, syscall.Exec(self, []string{self}, env))
}

func becomeCommand(s *childSpec) error {
	if err := limitChild(s.Limits); err != nil {
		return err
	}
	if s.UID != 0 {
		if err := dropTo(s.UID, s.GID); err != nil {
			return err
		}
	}
	return fmt.Errorf("exec %s: %w", s.Exec[0], syscall.Exec(s.Exec[0], s.Exec, os.Environ()))
}

func dropTo(uid, gid int) error {
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setgid(gid); err != nil {
		return fmt.Errorf("setgid: %w", err)
	}
	if err := syscall.Setuid(uid); err != nil {
		return fmt.Errorf("setuid: %w", err)
	}
	return nil
}

// keepLifeline lets the pipe through the exec that comes.
func keepLifeline() error {
	_, err := unix.FcntlInt(lifelineFD, unix.F_SETFD, 0)
	return err
}

func raiseHard(l rlimit) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(resources[l.What], &now); err != nil {
		return fmt.Errorf("getrlimit %s: %w", l.What, err)
	}
	if now.Max >= l.Hard {
		return nil
	}
	now.Max = l.Hard
	if err := unix.Setrlimit(resources[l.What], &now); err != nil {
		return fmt.Errorf("raise the hard limit %s to %d: %w", l.What, l.Hard, err)
	}
	return nil
}

// overHard says whether a limit asked for is above the hard limit of this process, and so of its children.
func overHard(limits []rlimit) bool {
	for _, l := range limits {
		var now unix.Rlimit
		if unix.Getrlimit(resources[l.What], &now) == nil && now.Max < l.Hard {
			return true
		}
	}
	return false
}

func limitChild(limits []rlimit) error {
	for _, l := range limits {
		what, known := resources[l.What]
		if !known {
			return fmt.Errorf("no resource %q", l.What)
		}
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}); err != nil {
			return fmt.Errorf("set limit %s to %d, %d: %w", l.What, l.Soft, l.Hard, err)
		}
	}
	return nil
}

// watchParent ends this child when its parent is gone, however it went: a test run that panics on its time limit runs
// no cleanups. PR_SET_PDEATHSIG would not do: it fires when the *thread* that forked ends.
func watchParent() {
	ready := make(chan struct{})
	defer func() { <-ready }() // no thread is started for it once a child has limits of its own
	go func() {
		runtime.LockOSThread() // a thread that waits in read(2), so that no poller is needed
		close(ready)
		var b [1]byte
		for {
			n, err := syscall.Read(lifelineFD, b[:])
			if err == syscall.EINTR { //nolint:errorlint // straight from the system call
				continue
			}
			if n == 0 && err == nil {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			return // no lifeline: nothing to watch
		}
	}()
}

// askForStacks makes a Go program that hangs say where.
func askForStacks(p *os.Process) { _ = p.Signal(syscall.SIGQUIT) }

func endedBy(s *os.ProcessState) os.Signal {
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return ws.Signal()
	}
	return nil
}
