//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

func (s *Space) startFlush(_ *os.File, _ int64, at, n int) error {
	return retry(func() error { return unix.Msync(s.bytes(at, roundUp(n)), unix.MS_ASYNC) })
}
