package sys

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// fdatasync writes whatever is dirty, stored through mappings or not, and the
// size where it matters.
const flushBeforeSync = false

func syncFile(f *os.File) error {
	if stubSync {
		return nil
	}
	return control(f, unix.Fdatasync)
}

// The link in /proc leads to the file itself, deleted or renamed.
func openAgain(fd int, _ string, flag int) (int, error) {
	return unix.Open("/proc/self/fd/"+strconv.Itoa(fd), flag, 0)
}

func pathOf(f *os.File) (path string, err error) {
	var st unix.Stat_t
	err = control(f, func(fd int) error {
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		path, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		return err
	})
	switch {
	case err != nil:
		return "", ErrUnsupported
	case st.Nlink == 0:
		return "", nil
	}
	// A name may end in what the kernel adds to one that is gone, and a file
	// with several names may have lost the one by which it was opened.
	var named unix.Stat_t
	if err := unix.Stat(path, &named); err != nil || named.Ino != st.Ino || named.Dev != st.Dev {
		return "", ErrUnsupported
	}
	return path, nil
}

// syncAll makes all of the file system durable that a file is on.
func syncAll(f *os.File) (tried bool, err error) {
	return true, control(f, unix.Syncfs)
}

func probe(f *os.File, off, n int64) (lacking bool, err error) {
	err = control(f, func(fd int) error {
		var before, after unix.Stat_t
		if err := unix.Fstat(fd, &before); err != nil {
			return err
		}
		err := unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, off, n)
		switch err { //nolint:errorlint // bare errnos
		case nil:
			err = unshare(fd, off, n)
		case unix.EOPNOTSUPP, unix.ENOSYS: //nolint:errorlint // bare errnos
			lacking = free(fd) < 2 // there is nothing else to go by
			return nil
		}
		if err != nil {
			return err
		}
		if err := unix.Fstat(fd, &after); err != nil {
			return err
		}
		// File systems give up before the last block, and find some again when they
		// write their journal. And with much room it was a store while the file was
		// shorter for a moment, and is longer by a hole by now.
		room := free(fd)
		lacking = room < 2 || room < 12 && after.Blocks > before.Blocks
		return nil
	})
	return lacking, err
}

// free is how many per cent of a file system are, 100 where it does not tell.
func free(fd int) uint64 {
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil || fs.Blocks == 0 {
		return 100
	}
	return fs.Bavail * 100 / fs.Blocks
}

func memoryLeft(f *os.File) (left int64, limited bool) {
	var fs unix.Statfs_t
	err := control(f, func(fd int) error { return unix.Fstatfs(fd, &fs) })
	// Without a limit there are no blocks at all.
	if err != nil || uint32(fs.Type) != unix.TMPFS_MAGIC || fs.Blocks == 0 {
		return 0, false
	}
	return int64(fs.Bavail) * int64(fs.Bsize), true //nolint:unconvert // narrower elsewhere
}

func memlockLimits() (soft, hard int64, exempt bool, err error) {
	r, err := memlockRlimit()
	if err != nil {
		return 0, 0, false, err
	}
	return limit(r.Cur), limit(r.Max), hasCap(unix.CAP_IPC_LOCK), nil
}

// hasCap asks for an effective capability of the calling thread. Threads of a
// Go program have the same unless it changes one by hand.
func hasCap(c int) bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&hdr, &data[0]) != nil {
		return false
	}
	return data[c/32].Effective&(1<<(c%32)) != 0
}
