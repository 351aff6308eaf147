//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package sys

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	canReserve = true
	canFault   = true
)

const (
	errUnreadable = unix.EFAULT
	errNoSpace    = unix.ENOSPC
	errIO         = unix.EIO
	errNoMemory   = unix.ENOMEM
	errAgain      = unix.EAGAIN
)

type backing struct{} //nolint:unused // others have something to remember

func granularity() int { return pageSize() }

// retry is the one place that repeats what a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR { //nolint:errorlint // errnos come bare from x/sys
			return err
		}
	}
}

// control lends the descriptor of f to a call without taking it out of f,
// which stays open as long as the call lasts.
func control(f *os.File, call func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return bare(err)
	}
	inner := os.ErrClosed // what it means when call is not called
	_ = c.Control(func(fd uintptr) {
		inner = retry(func() error { return call(int(fd)) })
	})
	return inner
}

func protection(a Access) (prot, flags int) {
	switch a {
	case Write:
		return unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED
	case Private:
		// Not charged in advance: what is private is what was stored to.
		return unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | mapNoReserve
	default:
		return unix.PROT_READ, unix.MAP_SHARED
	}
}

func mmap(addr uintptr, n, prot, flags, fd int, off int64) (*Space, error) {
	if addr == 0 {
		at, fixed, err := somewhere(n)
		if err != nil {
			return nil, err
		}
		addr, flags = at, flags|fixed
	}
	var p unsafe.Pointer
	err := retry(func() (err error) {
		p, err = unix.MmapPtr(fd, off, pointer(addr), uintptr(n), prot, flags)
		return err
	})
	switch err { //nolint:errorlint // bare errnos
	case nil:
	case unix.ENODEV, unix.EIO: //nolint:errorlint // bare errnos; the latter of Linux's /proc
		return nil, ErrUnmappable
	default:
		return nil, err
	}
	return &Space{addr: uintptr(p), size: n}, nil
}

func mapFile(f *os.File, off int64, n int, a Access) (s *Space, err error) {
	prot, flags := protection(a)
	err = control(f, func(fd int) (err error) {
		s, err = mmap(0, roundUp(n), prot, flags, fd, off)
		return err
	})
	return s, err
}

func mapAnon(n int) (*Space, error) {
	return mmap(0, roundUp(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON, -1, 0)
}

func reserve(n int) (*Space, error) {
	return mmap(0, roundUp(n), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|mapNoReserve, -1, 0)
}

func (s *Space) place(f *os.File, off int64, at, n int, a Access) error {
	prot, flags := protection(a)
	return control(f, func(fd int) error {
		_, err := mmap(s.addr+uintptr(at), roundUp(n), prot, flags|unix.MAP_FIXED, fd, off)
		return err
	})
}

func (s *Space) placeAnon(at, n int) error {
	_, err := mmap(s.addr+uintptr(at), roundUp(n), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_FIXED, -1, 0)
	return err
}

func (s *Space) clear(at, n int) error {
	_, err := mmap(s.addr+uintptr(at), roundUp(n), unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANON|mapNoReserve|unix.MAP_FIXED, -1, 0)
	return err
}

func (s *Space) protect(at, n int, a Access) error {
	prot, _ := protection(a)
	return retry(func() error { return unix.Mprotect(s.bytes(at, roundUp(n)), prot) })
}

func (s *Space) free() error {
	return retry(func() error { return unix.MunmapPtr(pointer(s.addr), uintptr(s.size)) })
}

// unlockMixed unlocks a range by a call that says when it did nothing because
// some page was not locked: then it goes through the halves, down to pages.
func unlockMixed(at, n int, call func(at, n int) (mixed bool, err error)) error {
	mixed, err := call(at, n)
	if !mixed || n <= pageSize() {
		return err
	}
	half := roundUp(n / 2)
	if err := unlockMixed(at, half, call); err != nil {
		return err
	}
	if half == n {
		return nil
	}
	return unlockMixed(at+half, n-half, call)
}

func (s *Space) flush(at, n int) error {
	flags := unix.MS_SYNC
	if stubSync {
		flags = unix.MS_ASYNC
	}
	return retry(func() error { return unix.Msync(s.bytes(at, roundUp(n)), flags) })
}
