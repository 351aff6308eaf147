//go:build !(dragonfly || freebsd || linux || netbsd)

package sys

// Darwin has mincore(2) in libc only, where x/sys does not reach it.
func canIncore() bool { return false }

func (s *Space) incore(at, n int, run func(lo, hi int)) error { return ErrUnsupported }
