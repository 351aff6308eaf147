//go:build darwin || openbsd

package sys

// Darwin and OpenBSD have minherit(2), but only in libc, where x/sys does not
// reach it.
func advises(h Hint) bool {
	_, ok := posixAdvice(h)
	return ok
}

func (s *Space) advise(at, n int, h Hint) error { return s.posixAdvise(at, n, h) }
