//go:build !linux

package sys

func (s *Space) huge(at int) bool { return true }

func (s *Space) private(at, n int) (lo, hi int, err error) { return 0, 0, ErrUnsupported }

func (s *Space) swapped(int) bool { return false }

func (s *Space) firstPresent(at, n int) (int, error) { return 0, ErrUnsupported }

func (s *Space) countPresent(at, n int) (int, error) { return 0, ErrUnsupported }

func (s *Space) present(at, n int, run func(lo, hi int)) error { return ErrUnsupported }

func (s *Space) copies(at, n int, run func(lo, hi int, present bool)) error { return ErrUnsupported }

func (s *Space) hugePages(at, n int) (int, error) { return 0, ErrUnsupported }
