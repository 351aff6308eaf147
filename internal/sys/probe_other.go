//go:build !linux

package sys

import "os"

func probe(f *os.File, off, n int64) (bool, error) { return false, nil }

func memoryLeft(*os.File) (left int64, limited bool) { return 0, false }

func pathOf(f *os.File) (string, error) { return "", ErrUnsupported }

func (s *Space) oneMapping(at, n int) (bool, error) { return false, ErrUnsupported }
