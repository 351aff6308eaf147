package sys

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// isLeased: an open that does not wait fails while somebody has a lease on the
// file (Samba, an NFS server), though the kernel has asked them to give way.
func isLeased(err error) bool { return errors.Is(err, unix.EAGAIN) }

// openLeased waits until they have given way, as any other open does, or their time
// is over (/proc/sys/fs/lease-break-time). That the file is a regular one, and not a
// FIFO by then, only a descriptor promises.
func openLeased(name string, flag int) *os.File {
	at, err := os.OpenFile(name, unix.O_PATH, 0)
	if err != nil {
		return nil
	}
	defer at.Close() //nolint:errcheck // nothing was written
	if info, err := at.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	flag = flag&^(os.O_CREATE|os.O_EXCL) | unix.O_CLOEXEC | unix.O_LARGEFILE
	fd := -1
	err = control(at, func(n int) (err error) {
		fd, err = unix.Open("/proc/self/fd/"+strconv.Itoa(n), flag, 0)
		return err
	})
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), name)
}
