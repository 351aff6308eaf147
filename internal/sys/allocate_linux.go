package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// allocateStep bounds one call: tmpfs undoes all of it when a signal comes.
const allocateStep = 1 << 30

func allocate(f *os.File, off, n int64) (was int64, err error) {
	err = control(f, func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		was = st.Size
		if !fits(fd, n, &st) {
			return ErrNoSpace // rather than fill the disk first
		}
		end := off + n
		if old := min(n, st.Size-off); old > 0 { //nolint:unconvert // narrower elsewhere
			// Before anything grows.
			if err := unshare(fd, off, old); err != nil {
				return err
			}
			if _, err := inSteps(fd, 0, off, off+old); err != nil {
				return err
			}
			off += old
		}
		if off == end {
			return nil
		}
		was, err = lengthen(fd, off, end)
		return err
	})
	switch err { //nolint:errorlint // bare errnos
	case unix.EOPNOTSUPP, unix.ENOSYS: //nolint:errorlint // bare errnos
		err = ErrUnsupported
	}
	return was, err
}

// lengthen gives a file the bytes [off, end), and returns how long it was before that.
// The blocks come first, and the length when they are all there: what others append
// while there is an error to come then lies where they put it, and no length has to be
// taken back from it.
func lengthen(fd int, off, end int64) (before int64, err error) {
	var was, now unix.Stat_t
	if err := unix.Fstat(fd, &was); err != nil {
		return 0, err
	}
	before = was.Size
	_, err = inSteps(fd, unix.FALLOC_FL_KEEP_SIZE, off, end)
	switch err { //nolint:errorlint // bare errnos
	case nil:
		if unix.Fstat(fd, &now) == nil {
			before = now.Size
		}
		// Unlike ftruncate it never makes a file shorter.
		if _, err = inSteps(fd, 0, end-1, end); err != nil {
			giveBack(fd, &was)
		}
	case unix.EOPNOTSUPP: //nolint:errorlint // bare errno; NFS and Ceph know growth only
		var reached int64
		if reached, err = inSteps(fd, 0, off, end); err != nil && reached > off {
			cutBack(fd, was.Size, reached)
		}
	default:
		giveBack(fd, &was)
	}
	return before, err
}

// inSteps calls fallocate for [off, end), and returns how far it came.
func inSteps(fd int, mode uint32, off, end int64) (reached int64, err error) {
	for off < end {
		step := min(end-off, allocateStep)
		if err := retry(func() error { return unix.Fallocate(fd, mode, off, step) }); err != nil {
			return off, err
		}
		off += step
	}
	return off, nil
}

// giveBack frees the blocks beyond the end of a file, if it got some since was.
// ftruncate to the present length does that, and cuts off what is appended
// between it and the look. A hole punched there would wipe that just the same,
// and ext4 punches none beyond the end; so it is done only where it must: most
// file systems undo a step that failed themselves, and ext4 is asked for room first.
func giveBack(fd int, was *unix.Stat_t) {
	var now unix.Stat_t
	if unix.Fstat(fd, &now) != nil {
		return
	}
	block := int64(now.Blksize) //nolint:unconvert // narrower elsewhere
	up := func(n int64) int64 { return (n + block - 1) / block * block }
	if added := max(0, up(now.Size)-up(was.Size)); (now.Blocks-was.Blocks)*512 > added {
		_ = retry(func() error { return unix.Ftruncate(fd, now.Size) })
	}
}

// fits reports whether the file system may have room for n bytes of a file.
// Others than ext4 keep nothing of a step that failed, and are asked only where
// there are several.
func fits(fd int, n int64, st *unix.Stat_t) bool {
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil || n <= allocateStep && uint32(fs.Type) != unix.EXT4_SUPER_MAGIC {
		return true
	}
	return roomFor(n-st.Blocks*512, &fs) // blocks that it has already may lie in the range
}

// roomFor reports whether a file system may have room for n bytes. One that has no
// limit, or whose server does not tell, has no blocks at all.
func roomFor(n int64, fs *unix.Statfs_t) bool {
	size := int64(fs.Bsize) //nolint:unconvert // narrower elsewhere
	return size <= 0 || fs.Blocks == 0 || n/size <= int64(fs.Bfree)
}

// unshare copies the blocks of a range that other files have too: storing to
// them would need others. Only XFS and the like share and can do it.
func unshare(fd int, off, n int64) error {
	const mode = unix.FALLOC_FL_UNSHARE_RANGE | unix.FALLOC_FL_KEEP_SIZE
	err := retry(func() error { return unix.Fallocate(fd, mode, off, n) })
	switch err { //nolint:errorlint // bare errnos
	case unix.EOPNOTSUPP, unix.ENOSYS, unix.EINVAL: //nolint:errorlint // bare errnos
		return nil
	}
	return err
}

func appendTo(f *os.File, b []byte, end int64) (n int, err error) {
	err = control(f, func(fd int) (err error) {
		n, err = unix.Pwritev2(fd, [][]byte{b}, end, unix.RWF_APPEND)
		return err
	})
	switch err { //nolint:errorlint // bare errnos
	case unix.EOPNOTSUPP, unix.ENOSYS, unix.EINVAL, unix.EPERM: //nolint:errorlint // bare errnos
		return f.WriteAt(b, end) // an older kernel, or the filter of a container
	}
	return max(n, 0), err
}
