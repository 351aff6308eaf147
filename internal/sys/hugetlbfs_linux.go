package sys

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"unsafe"

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

func (s *Space) hugeEnd(at int) (end int, ok bool) {
	q := procmapQuery{addr: uint64(s.addr + uintptr(at))}
	q.size = uint64(unsafe.Sizeof(q))
	fd, err := procMaps()
	if err == nil {
		err = ioctl(fd, ioctlProcmapQuery, unsafe.Pointer(&q))
	}
	switch {
	case err == nil:
		return int(uintptr(q.end) - s.addr), q.vmaPageSize > uint64(unix.Getpagesize())
	case err == unix.ENOENT: //nolint:errorlint // bare errno
		return 0, false // nothing is mapped there
	}
	return s.hugeEndBySmaps(at)
}

// hugeEndBySmaps is hugeEnd for Linux before 6.11. It takes long.
func (s *Space) hugeEndBySmaps(at int) (end int, ok bool) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return 0, false
	}
	defer f.Close() //nolint:errcheck // only read from
	want, here := s.addr+uintptr(at), false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var lo, hi uintptr
		if flags, is := strings.CutPrefix(lines.Text(), "VmFlags:"); is {
			if here {
				return end, slices.Contains(strings.Fields(flags), "ht")
			}
		} else if n, _ := fmt.Sscanf(lines.Text(), "%x-%x ", &lo, &hi); n == 2 {
			here, end = lo <= want && want < hi, int(hi-s.addr)
		}
	}
	return 0, false
}
