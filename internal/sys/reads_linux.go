package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

func readsOf(f *os.File) Reads {
	reads := ReadsElsewhere
	err := control(f, func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return err
		}
		var st unix.Statfs_t
		if err := unix.Fstatfs(fd, &st); err != nil {
			return err
		}
		switch uint32(st.Type) { // of other widths elsewhere; a magic has 32 bits
		case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC:
			reads = ReadsPages
		case unix.TMPFS_MAGIC:
			reads = ReadsMemory
		case unix.FUSE_SUPER_MAGIC:
			reads = ReadsEither
		}
		// Not the others: overlayfs reads from a copy once somebody else has
		// caused one, and what network file systems do is between them and their
		// servers.
		if flags&unix.O_DIRECT != 0 {
			reads = ReadsElsewhere
		}
		return nil
	})
	if err != nil {
		return ReadsElsewhere
	}
	return reads
}

func readAtOnce(f *os.File, p []byte, off int64) (n int, err error) {
	err = control(f, func(fd int) (err error) {
		n, err = unix.Preadv2(fd, [][]byte{p}, off, unix.RWF_NOWAIT)
		return err
	})
	switch err { //nolint:errorlint // bare errnos
	case unix.EAGAIN: //nolint:errorlint // bare errno
		return 0, nil
	case unix.EPERM, unix.EINVAL: //nolint:errorlint // bare errnos
		// Filters of containers refuse the call, and the first kernels that had it
		// the flag. Nothing else is wrong with a read.
		return 0, ErrUnsupported
	}
	return max(n, 0), err
}
