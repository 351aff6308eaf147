package sys

import (
	"io"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

const canFault = true

const (
	errUnreadable = windows.ERROR_NOACCESS
	errNoSpace    = windows.ERROR_DISK_FULL
	errIO         = windows.ERROR_IO_DEVICE
	errNoMemory   = windows.ERROR_NOT_ENOUGH_MEMORY
	errAgain      = windows.ERROR_WORKING_SET_QUOTA
)

// backing tells a view of a file from memory of VirtualAlloc, and counts what
// the quota holds for this Space.
type backing struct {
	view   bool
	locked int
}

var (
	kernel32          = windows.NewLazySystemDLL("kernel32.dll")
	procGetSystemInfo = kernel32.NewProc("GetSystemInfo")
	procReOpenFile    = kernel32.NewProc("ReOpenFile")
)

// systemInfo is SYSTEM_INFO of sysinfoapi.h, which x/sys lacks.
type systemInfo struct {
	architecture, pageSize      uint32
	lowest, highest, processors uintptr
	processorCount, processor   uint32
	granularity                 uint32
	level, revision             uint16
}

var system = sync.OnceValue(func() (info systemInfo) {
	_, _, _ = procGetSystemInfo.Call(uintptr(unsafe.Pointer(&info))) // cannot fail
	return info
})

func pageSize() int    { return int(system().pageSize) }
func granularity() int { return int(system().granularity) }

// control lends the handle of f to a call without taking it out of f, which
// stays open as long as the call lasts.
func control(f *os.File, call func(h windows.Handle) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return bare(err)
	}
	inner := os.ErrClosed // what it means when call is not called
	_ = c.Control(func(fd uintptr) { inner = call(windows.Handle(fd)) })
	return inner
}

func protection(a Access) (prot, access uint32) {
	switch a {
	case Write:
		return windows.PAGE_READWRITE, windows.FILE_MAP_WRITE
	case Private:
		return windows.PAGE_WRITECOPY, windows.FILE_MAP_COPY
	default:
		return windows.PAGE_READONLY, windows.FILE_MAP_READ
	}
}

// The section has the size of the file: CreateFileMapping makes a file longer
// that is shorter than what it is asked for.
func mapFile(f *os.File, off int64, n int, a Access) (*Space, error) {
	return mapFileIn(&Room{}, f, off, n, a)
}

func mapFileIn(r *Room, f *os.File, off int64, n int, a Access) (*Space, error) {
	prot, access := protection(a)
	var addr uintptr
	err := control(f, func(h windows.Handle) error {
		section, err := windows.CreateFileMapping(h, nil, prot, 0, 0, nil)
		if err == nil {
			at := r.addr
			r.Free()
			addr, err = mapView(section, access, off, n, at)
			_ = windows.CloseHandle(section) // the view keeps it
		}
		if err == nil {
			return nil
		}
		// ERROR_FILE_INVALID and ERROR_ACCESS_DENIED say it for a file that
		// is empty or short, and for other reasons.
		if info, e := standardInfo(h); e == nil && info.endOfFile < off+int64(n) {
			return io.ErrUnexpectedEOF
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Space{addr: addr, size: roundUp(n), backing: backing{view: true}}, nil
}

func mapAnon(n int) (*Space, error) {
	return virtualAlloc(n, windows.MEM_RESERVE|windows.MEM_COMMIT, windows.PAGE_READWRITE)
}

func reserve(n int) (*Space, error) {
	return virtualAlloc(n, windows.MEM_RESERVE, windows.PAGE_NOACCESS)
}

func virtualAlloc(n int, kind, protection uint32) (*Space, error) {
	n = roundUp(n)
	addr, err := windows.VirtualAlloc(0, uintptr(n), kind, protection)
	if err != nil {
		return nil, err
	}
	return &Space{addr: addr, size: n}, nil
}

func (s *Space) placeAnon(at, n int) error {
	_, err := windows.VirtualAlloc(s.addr+uintptr(at), uintptr(roundUp(n)), windows.MEM_COMMIT, windows.PAGE_READWRITE)
	return err
}

// Locks end with the memory, so the quota for them does too.
func (s *Space) free() (err error) {
	if s.view {
		err = windows.UnmapViewOfFile(s.addr)
	} else {
		err = windows.VirtualFree(s.addr, 0, windows.MEM_RELEASE)
	}
	if err == nil {
		s.refund(s.locked)
	}
	return err
}

// flushTries bounds how long flush waits for the system's own writing.
const flushTries = 1000

// FlushViewOfFile answers ERROR_LOCK_VIOLATION while the system itself writes
// pages of the range out.
func (s *Space) flush(at, n int) (err error) {
	if !s.view {
		return nil
	}
	for range flushTries {
		err = windows.FlushViewOfFile(s.addr+uintptr(at), uintptr(n))
		if err != windows.ERROR_LOCK_VIOLATION { //nolint:errorlint // bare errno
			break
		}
		time.Sleep(time.Millisecond)
	}
	return err
}
