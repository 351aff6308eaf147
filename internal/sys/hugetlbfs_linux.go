package sys

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// The size of its blocks, which is known already, gives a file on hugetlbfs away,
// but others have large blocks as well.
func hugeFile(f *os.File, info fs.FileInfo) int {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Blksize) <= pageSize() { //nolint:unconvert // narrower elsewhere
		return 0
	}
	size := 0
	err := control(f, func(fd int) error {
		var fs unix.Statfs_t
		if err := unix.Fstatfs(fd, &fs); err != nil {
			return err
		}
		if uint32(fs.Type) == unix.HUGETLBFS_MAGIC {
			size = int(fs.Bsize) //nolint:unconvert // narrower elsewhere
		}
		return nil
	})
	if err != nil {
		return 0
	}
	return size
}
