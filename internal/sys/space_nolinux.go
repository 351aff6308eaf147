//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package sys

import "golang.org/x/sys/unix"

// mlock(2) brings the pages in and fails with an error where it cannot.
func (s *Space) lock(at, n int) error {
	return retry(func() error { return unix.Mlock(s.bytes(at, roundUp(n))) })
}

func (s *Space) unlock(at, n int) error {
	return retry(func() error { return unix.Munlock(s.bytes(at, roundUp(n))) })
}
