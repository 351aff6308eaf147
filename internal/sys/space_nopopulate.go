//go:build !linux

package sys

import "os"

func canPopulate() bool { return false }

func locksOnFault() bool { return false }

func (s *Space) populate(at, n int, store bool) error { return ErrUnsupported }

func cached(f *os.File, off, n int64) (int64, error) { return 0, ErrUnsupported }
