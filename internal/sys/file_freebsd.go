package sys

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// openEmptyPath is O_EMPTY_PATH of open(2) (FreeBSD 14), which x/sys lacks.
// Kernels that do not know it find no file of that name.
const openEmptyPath = 0x02000000

func openAgain(fd int, _ string, flag int) (int, error) {
	return unix.Openat(fd, "", flag|openEmptyPath, 0)
}

// posix_fallocate(2) returns the errno as its result. EINVAL is how systems
// before FreeBSD 15 say that the file system cannot. What it does on UFS and most
// others (vop_stdallocate) is to read what the file has and to write that back, over
// what is stored through mappings meanwhile. So it is for what lies behind the end
// of the file only.
func allocate(f *os.File, off, n int64) error {
	err := control(f, func(fd int) error {
		var was unix.Stat_t
		if err := unix.Fstat(fd, &was); err != nil {
			return err
		}
		if off < was.Size && was.Blocks*512 < was.Size { // there are holes to be filled
			return ErrUnsupported
		}
		end := off + n
		if end <= was.Size {
			return nil
		}
		r, errno := fallocate(uintptr(fd), max(off, was.Size), end-max(off, was.Size))
		if errno == 0 {
			errno = unix.Errno(r)
		}
		if errno == 0 {
			return nil
		}
		// It makes the file longer first.
		cutBack(fd, was.Size, end)
		return errno
	})
	switch err { //nolint:errorlint // bare errno
	case unix.EINVAL, unix.EOPNOTSUPP, unix.ENOSYS: //nolint:errorlint // bare errnos
		return ErrUnsupported
	}
	return err
}

// fallocate passes numbers of 64 bits as the machine's calling convention
// wants them: in one register, in two, or in two from an even one on.
func fallocate(fd uintptr, off, n int64) (r uintptr, errno unix.Errno) {
	const call = unix.SYS_POSIX_FALLOCATE
	switch runtime.GOARCH {
	case "386":
		r, _, errno = unix.Syscall6(call, fd, uintptr(off), uintptr(off>>32), uintptr(n), uintptr(n>>32), 0)
	case "arm":
		r, _, errno = unix.Syscall6(call, fd, 0, uintptr(off), uintptr(off>>32), uintptr(n), uintptr(n>>32))
	default:
		r, _, errno = unix.Syscall(call, fd, uintptr(off), uintptr(n))
	}
	return r, errno
}
