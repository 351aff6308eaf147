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
func allocate(f *os.File, off, n int64) (was int64, err error) {
	err = control(f, func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if off < st.Size && st.Blocks*512 < st.Size { // there are holes to be filled
			return ErrUnsupported
		}
		was = st.Size
		end := off + n
		if end <= was {
			return nil
		}
		r, errno := fallocate(uintptr(fd), max(off, was), end-max(off, was))
		if errno == 0 {
			errno = unix.Errno(r)
		}
		if errno == 0 {
			return nil
		}
		// It makes the file longer first.
		cutBack(fd, was, end)
		return errno
	})
	switch err { //nolint:errorlint // bare errno
	case unix.EINVAL, unix.EOPNOTSUPP, unix.ENOSYS: //nolint:errorlint // bare errnos
		err = ErrUnsupported
	}
	return was, err
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
