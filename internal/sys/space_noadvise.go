//go:build !(dragonfly || freebsd || linux || netbsd)

package sys

func advises(Hint) bool { return false }

// Darwin and OpenBSD have minherit(2), but only in libc, where x/sys does not
// reach it.
func (s *Space) advise(at, n int, h Hint) error { return ErrUnsupported }
