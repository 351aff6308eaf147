package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// cachedElsewhere reports whether cachestat(2) says 0 of f whatever is in RAM:
// overlayfs keeps the pages with the file below it, DAX needs none. Where that
// cannot be found out, an answer of 0 is not believed either.
func cachedElsewhere(f *os.File) (elsewhere bool) {
	err := control(f, func(fd int) error {
		var st unix.Statfs_t
		if err := unix.Fstatfs(fd, &st); err != nil {
			return err
		}
		if uint32(st.Type) == unix.OVERLAYFS_SUPER_MAGIC { // of other widths elsewhere; a magic has 32 bits
			elsewhere = true
			return nil
		}
		var x unix.Statx_t
		if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, 0, &x); err != nil {
			return err
		}
		elsewhere = x.Attributes&unix.STATX_ATTR_DAX != 0
		return nil
	})
	return elsewhere || err != nil
}
