//go:build dragonfly || netbsd || openbsd

package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// /dev/fd duplicates on these systems, so the name is all there is.
func openAgain(_ int, name string, flag int) (int, error) {
	return unix.Open(name, flag, 0)
}

func allocate(f *os.File, off, n int64) (int64, error) { return 0, ErrUnsupported }
