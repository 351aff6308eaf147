//go:build !linux && !windows

package sys

// msync(2) with MS_INVALIDATE, which Linux is asked with, really drops pages
// on other systems.
func (s *Space) unlocked(at, n int) (int, error) { return 0, ErrUnsupported }

func (s *Space) absent(at, n int) (int, error) { return 0, ErrUnsupported }
