//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package sys

import "os"

// FlushViewOfFile waits for the disk, so it is no beginning.
func (s *Space) startFlush(*os.File, int64, int, int) error { return nil }
