//go:build dragonfly || freebsd

package sys

import "golang.org/x/sys/unix"

// inheritNone is INHERIT_NONE of sys/mman.h, which x/sys lacks here.
const inheritNone = 2

const canNoDump = true

func (s *Space) noDump(at, n int) error {
	return retry(func() error { return unix.Madvise(s.bytes(at, roundUp(n)), unix.MADV_NOCORE) })
}
