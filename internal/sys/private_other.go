//go:build !linux

package sys

func (s *Space) huge(at int) bool { return true }

func (s *Space) private(at, n int) (lo, hi int, err error) { return 0, 0, ErrUnsupported }
