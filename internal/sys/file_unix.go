//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package sys

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const openFlags = unix.O_NONBLOCK | unix.O_NOCTTY

func describe(f *os.File) (d Descriptor, err error) {
	err = control(f, func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return err
		}
		mode := flags & unix.O_ACCMODE
		d = Descriptor{
			Read:   mode == unix.O_RDONLY || mode == unix.O_RDWR,
			Write:  mode == unix.O_WRONLY || mode == unix.O_RDWR,
			Append: flags&unix.O_APPEND != 0,
		}
		return nil
	})
	return d, err
}

// reopen opens the file by whatever way the system has, and takes what it got
// only if that is the same file.
func reopen(f *os.File, write bool) (n *os.File, shared bool, err error) {
	flag := openFlags | unix.O_CLOEXEC | unix.O_RDONLY
	if write {
		flag = openFlags | unix.O_CLOEXEC | unix.O_RDWR
	}
	err = control(f, func(fd int) error {
		got, err := openAgain(fd, f.Name(), flag)
		if err != nil {
			return err
		}
		// O_NONBLOCK was for the open alone. A descriptor that has it package os hands
		// to the poller, which, where that is kqueue(2), is not for regular files.
		_, _ = unix.FcntlInt(uintptr(got), unix.F_SETFL, 0)
		n = os.NewFile(uintptr(got), f.Name())
		var was, is unix.Stat_t
		if unix.Fstat(fd, &was) == nil && unix.Fstat(got, &is) == nil && was.Dev == is.Dev && was.Ino == is.Ino {
			return nil
		}
		_ = n.Close() // another file
		return unix.ESTALE
	})
	if err != nil {
		n, err = duplicate(f)
	}
	return n, false, err
}

func duplicate(f *os.File) (dup *os.File, err error) {
	err = control(f, func(fd int) error {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			dup = os.NewFile(uintptr(n), f.Name())
		}
		return err
	})
	return dup, err
}

func syncDir(dir string, f *os.File) (lasting bool, err error) {
	d, err := os.Open(dir)
	if err == nil {
		defer d.Close() //nolint:errcheck // only read from
		err = d.Sync()
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
			return err != nil, bare(err)
		}
	}
	// It may be written but not listed, or has no fsync where it is.
	if tried, errAll := syncAll(f); tried {
		return errAll != nil, errAll
	}
	return false, bare(err)
}

func memlockRlimit() (r unix.Rlimit, err error) {
	err = unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r)
	return r, err
}

func raiseMemlock() error {
	r, err := memlockRlimit()
	if err != nil || r.Cur == r.Max {
		return err
	}
	r.Cur = r.Max
	return unix.Setrlimit(unix.RLIMIT_MEMLOCK, &r)
}

// limit gives a resource limit as a number of bytes, -1 for none.
func limit[T int64 | uint64](v T) int64 {
	if uint64(v) >= 1<<62 { // RLIM_INFINITY is the highest value, signed or not
		return -1
	}
	return int64(v)
}

// cutBack gives a file the length before again if it still has the length after,
// that it was given. What somebody has added since stays, with the rest.
func cutBack(fd int, before, after int64) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Size == after && before < after {
		_ = retry(func() error { return unix.Ftruncate(fd, before) })
	}
}
