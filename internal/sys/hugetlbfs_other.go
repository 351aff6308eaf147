//go:build !linux

package sys

import (
	"io/fs"
	"os"
)

func hugeFile(*os.File, fs.FileInfo) int { return 0 }

func (s *Space) hugeEnd(int) (int, bool) { return 0, false }
