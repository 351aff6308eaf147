package sys

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mlockOnFault is MLOCK_ONFAULT of mlock2(2), which x/sys lacks.
const mlockOnFault = 1

// Plain mlock is not used where mlock2 exists: on a page that cannot be read
// it spins in the kernel for ever.
func (s *Space) lock(at, n int) error {
	if stubLock {
		return nil
	}
	flags := uintptr(mlockOnFault)
	if !locksOnFault() {
		flags = 0
	}
	return retry(func() error {
		_, _, errno := unix.Syscall(unix.SYS_MLOCK2, s.addr+uintptr(at), uintptr(roundUp(n)), flags)
		if errno == unix.ENOSYS {
			return unix.Mlock(s.bytes(at, roundUp(n)))
		}
		return errnoErr(errno)
	})
}

// What is not locked does not matter to munlock(2) here.
func (s *Space) unlock(at, n int) error {
	return retry(func() error { return unix.Munlock(s.bytes(at, roundUp(n))) })
}

const locksStay = false

const tellsWaits = true

func waits() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0
	}
	return int64(u.Majflt) //nolint:unconvert // narrower elsewhere
}

const errPoisoned = unix.EHWPOISON

func (s *Space) madvise(at, n, advice int) error {
	return s.madviseExactly(at, roundUp(n), advice)
}

func (s *Space) madviseExactly(at, n, advice int) error {
	return retry(func() error { return unix.Madvise(s.bytes(at, n), advice) })
}

// unlocked asks msync(2): with MS_INVALIDATE it answers EBUSY for a locked
// mapping, and together with MS_ASYNC it does nothing else.
func (s *Space) unlocked(at, n int) (int, error) {
	end := at + roundUp(n)
	for at < end {
		err := retry(func() error {
			return unix.Msync(s.bytes(at, pageSize()), unix.MS_ASYNC|unix.MS_INVALIDATE)
		})
		if err != unix.EBUSY { //nolint:errorlint // bare errno
			if err == unix.ENOMEM || err == nil { //nolint:errorlint // bare errno
				return at, nil
			}
			return at, err
		}
		// The whole mapping that the page belongs to has the flag.
		at = min(end, s.mappingEnd(at))
	}
	return -1, nil
}

// procmapQuery is struct procmap_query of linux/fs.h (Linux 6.11).
type procmapQuery struct {
	size, flags, addr                                   uint64
	start, end, vmaFlags, vmaPageSize, vmaOffset, inode uint64
	devMajor, devMinor, nameSize, buildIDSize           uint32
	nameAddr, buildIDAddr                               uint64
}

// ioctl numbers of linux/fs.h, the same on every architecture of Linux.
const (
	ioctlProcmapQuery = 0xC0686611
	ioctlPagemapScan  = 0xC0606610
)

// procFile opens a file of this process once. The file is never closed.
// ErrUnsupported where there is none; another error is about this moment.
func procFile(name string) func() (int, error) {
	open := onceKnown(func() (fd int, err error) {
		err = retry(func() (err error) {
			fd, err = unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			return err
		})
		return fd, passing(err)
	})
	return func() (int, error) {
		fd, err := open()
		if err == nil && fd < 0 {
			err = ErrUnsupported
		}
		return fd, err
	}
}

// passing returns errors that say what is short at the moment, and nil for those
// that would come again.
func passing(err error) error {
	switch err { //nolint:errorlint // bare errnos
	case unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EAGAIN, unix.EINTR: //nolint:errorlint // bare errnos
		return err
	}
	return nil
}

// errUntold says why a process is not told where its own pages are.
var errUntold = fmt.Errorf("%w: /proc/self/pagemap may not be opened, as after a change of the user or "+
	"with PR_SET_DUMPABLE, and move_pages(2) is not to be had", ErrUnsupported)

var (
	procMaps    = procFile("/proc/self/maps")
	procPagemap = procFile("/proc/self/pagemap")
)

// mappingEnd returns the end of the kernel's mapping that holds the page, or
// of the page where the kernel cannot be asked.
func (s *Space) mappingEnd(at int) int {
	q := procmapQuery{addr: uint64(s.addr + uintptr(at))}
	q.size = uint64(unsafe.Sizeof(q))
	fd, err := procMaps()
	if err != nil || ioctl(fd, ioctlProcmapQuery, unsafe.Pointer(&q)) != nil {
		return at + pageSize()
	}
	return int(uintptr(q.end) - s.addr)
}

func (s *Space) oneMapping(at, n int) (bool, error) {
	if n <= pageSize() {
		return true, nil
	}
	q := procmapQuery{addr: uint64(s.addr + uintptr(at))}
	q.size = uint64(unsafe.Sizeof(q))
	fd, err := procMaps()
	if err != nil || ioctl(fd, ioctlProcmapQuery, unsafe.Pointer(&q)) != nil {
		return false, ErrUnsupported
	}
	return q.end >= uint64(s.addr)+uint64(at)+uint64(n), nil
}

// MS_ASYNC does nothing here. What was stored through mappings is dirty in the
// page cache since the store faulted.
func (s *Space) startFlush(f *os.File, off int64, _, n int) error {
	return writeBack(f, off, int64(n), unix.SYNC_FILE_RANGE_WRITE)
}

func awaitFlush(f *os.File, off, n int64) error {
	return writeBack(f, off, n, unix.SYNC_FILE_RANGE_WAIT_BEFORE)
}

func writeOut(f *os.File, off, n int64) error {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	return writeBack(f, off, n, all)
}

// writeBack is sync_file_range(2), and returns only what write-back reports.
// Emulators may not have the call, and filters refuse it, which says nothing about
// the disk; but a write-back may fail with EPERM, too. Without flags the call does
// nothing, so that it fails only where it is not to be had.
func writeBack(f *os.File, off, n int64, flags int) error {
	return control(f, func(fd int) error {
		err := unix.SyncFileRange(fd, off, n, flags)
		if err == nil || err == unix.ENOSYS || unix.SyncFileRange(fd, off, n, 0) != nil { //nolint:errorlint // bare errno
			return nil //nolint:nilerr // the call is not to be had
		}
		return err
	})
}

// scanArg is struct pm_scan_arg of linux/fs.h (Linux 6.7), scanRegion struct
// page_region.
type scanArg struct {
	size, flags, start, end, walkEnd, vec, vecLen, maxPages uint64
	inverted, mask, anyOf, returned                         uint64
}
type scanRegion struct{ start, end, categories uint64 }

const (
	pageIsFile    = 1 << 2
	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4
	pageIsZero    = 1 << 5 // PAGE_IS_PFNZERO
	pageIsHuge    = 1 << 6
)

// A scan is the argument of the ioctl and where its answer goes. It lives on the
// heap: the kernel is told its address as a number, and a stack may move.
type scan struct {
	arg   scanArg
	found scanRegion
}

var scans = sync.Pool{New: func() any { return new(scan) }}

// scan finds the first run of pages of which, after the categories in inverted
// have been turned round, all in mask and one of anyOf hold, or no more than most
// pages of it unless that is 0.
func (s *Space) scan(at, n int, most, inverted, mask, anyOf uint64) (lo, hi int, err error) {
	fd, err := procPagemap()
	if err != nil {
		return 0, 0, err
	}
	c := scans.Get().(*scan)
	defer scans.Put(c)
	c.arg = scanArg{
		size:  uint64(unsafe.Sizeof(c.arg)),
		start: uint64(s.addr) + uint64(at), end: uint64(s.addr) + uint64(at) + uint64(roundUp(n)),
		vec: uint64(uintptr(unsafe.Pointer(&c.found))), vecLen: 1, maxPages: most,
		inverted: inverted, mask: mask, anyOf: anyOf, returned: pageIsPresent,
	}
	hits, err := ioctlN(fd, ioctlPagemapScan, unsafe.Pointer(&c.arg))
	if err != nil {
		return 0, 0, err
	}
	if hits == 0 {
		return -1, -1, nil
	}
	return int(c.found.start - uint64(s.addr)), int(c.found.end - uint64(s.addr)), nil
}

// Pages that are not present, or are the page of zeroes.
func (s *Space) absent(at, n int) (int, error) {
	return whole(at, roundUp(n), s.absentIn)
}

func (s *Space) absentIn(at, n int) (int, error) {
	fd, err := procPagemap()
	if err == ErrUnsupported { //nolint:errorlint // as procFile returns it
		return s.absentByMovePages(at, roundUp(n))
	}
	if err != nil {
		return 0, err
	}
	lo, _, err := s.scan(at, n, 1, pageIsPresent, 0, pageIsPresent|pageIsZero)
	if err != nil {
		return s.absentByPagemap(fd, at, roundUp(n))
	}
	return lo, nil
}

func (s *Space) firstPresent(at, n int) (int, error) {
	lo, _, err := s.scan(at, n, 1, 0, pageIsPresent, 0)
	if err != nil {
		return 0, ErrUnsupported // before Linux 6.7
	}
	return lo, nil
}

func (s *Space) swapped(at int) bool {
	if lo, _, err := s.scan(at, pageSize(), 1, 0, pageIsSwapped, 0); err == nil {
		return lo >= 0
	}
	fd, err := procPagemap()
	if err == ErrUnsupported { //nolint:errorlint // as procFile returns it
		lo, err := s.absentByMovePages(at, pageSize()) // which does not tell why
		return err == nil && lo >= 0
	}
	if err != nil {
		return false
	}
	swapped := false
	err = s.entries(fd, at, pageSize(), func(_ int, entry uint64) bool {
		swapped = entry&entrySwapped != 0
		return false
	})
	return err == nil && swapped
}

func (s *Space) huge(at int) bool {
	lo, _, err := s.scan(at, pageSize(), 1, 0, pageIsHuge, 0)
	return err != nil || lo >= 0
}

// Pages that are not the file's, and are in memory or in swap.
func (s *Space) private(at, n int) (lo, hi int, err error) {
	lo, hi, err = s.scan(at, n, 0, pageIsFile, pageIsFile, pageIsPresent|pageIsSwapped)
	if err != nil {
		return s.privateByPagemap(at, roundUp(n))
	}
	return lo, hi, nil
}

func ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	_, err := ioctlN(fd, req, arg)
	return err
}

func ioctlN(fd int, req uintptr, arg unsafe.Pointer) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
		if errno != unix.EINTR {
			return int(r), errnoErr(errno)
		}
	}
}

func errnoErr(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
