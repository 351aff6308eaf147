package sys

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pathMax is MAXPATHLEN of sys/param.h, which F_GETPATH of fcntl(2) demands.
const pathMax = 1024

// /dev/fd duplicates here. F_GETPATH follows the file when it is renamed.
func openAgain(fd int, _ string, flag int) (int, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	buf := new([pathMax]byte)
	pin.Pin(buf)
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETPATH, int(uintptr(unsafe.Pointer(buf)))); err != nil {
		return -1, err
	}
	return unix.Open(unix.ByteSliceToString(buf[:]), flag, 0)
}

// F_PREALLOCATE adds blocks behind the end of the file only. A file with holes
// has fewer blocks than bytes, and filling a hole would race with stores to it.
func allocate(f *os.File, off, n int64) (was int64, err error) {
	err = control(f, func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if off < st.Size && st.Blocks*512 < st.Size {
			return ErrUnsupported
		}
		was = st.Size
		if off+n <= st.Size {
			return nil
		}
		want := unix.Fstore_t{
			Flags:   unix.F_ALLOCATECONTIG | unix.F_ALLOCATEALL,
			Posmode: unix.F_PEOFPOSMODE,
			Length:  off + n - st.Size,
		}
		err := unix.FcntlFstore(uintptr(fd), unix.F_PREALLOCATE, &want)
		if err != nil { // in pieces, then
			want.Flags = unix.F_ALLOCATEALL
			err = unix.FcntlFstore(uintptr(fd), unix.F_PREALLOCATE, &want)
		}
		switch err { //nolint:errorlint // bare errno
		case nil:
			// Others may have made it longer than that by now.
			if err := unix.Fstat(fd, &st); err != nil {
				return err
			}
			if was = st.Size; was >= off+n {
				return nil
			}
			return unix.Ftruncate(fd, off+n)
		case unix.ENOTSUP, unix.EOPNOTSUPP, unix.ENOTTY, unix.EINVAL:
			return ErrUnsupported
		}
		return err
	})
	return was, err
}
