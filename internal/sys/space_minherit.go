//go:build dragonfly || freebsd || netbsd

package sys

import "golang.org/x/sys/unix"

func advises(h Hint) bool {
	_, ok := posixAdvice(h)
	return ok || h == NoFork || h == NoDump && canNoDump
}

// NoFork is minherit(2), which x/sys knows by its number only.
func (s *Space) advise(at, n int, h Hint) error {
	switch h {
	case NoDump:
		return s.noDump(at, n)
	case NoFork:
	default:
		return s.posixAdvise(at, n, h)
	}
	_, _, errno := unix.Syscall(unix.SYS_MINHERIT, s.addr+uintptr(at), uintptr(roundUp(n)), inheritNone)
	if errno != 0 {
		return errno
	}
	return nil
}
