//go:build !(dragonfly || freebsd || linux || netbsd)

package sys

import "io/fs"

// Darwin has mincore(2) in libc only, where x/sys does not reach it.
func canIncore() bool { return false }

func (s *Space) incore(at, n int, run func(lo, hi int)) error { return ErrUnsupported }

func owns(fs.FileInfo) bool { return false }
