//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package sys

func advises(Hint) bool { return false }

func (s *Space) advise(at, n int, h Hint) error { return ErrUnsupported }
