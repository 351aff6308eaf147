//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package sys

import "os"

const canReserve = false

func (s *Space) place(f *os.File, off int64, at, n int, a Access) error { return ErrUnsupported }

func (s *Space) protect(at, n int, a Access) error { return ErrUnsupported }

func (s *Space) clear(at, n int) error { return ErrUnsupported }
