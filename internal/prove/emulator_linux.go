package prove

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// What follows tries what an emulator of user processes may get wrong. Each trial says in general terms what it met,
// so that a report of what was skipped has one line for each, and passes on every real machine.

// faultAt loads from a byte that cannot be loaded from, and returns the address that the fault is said to have had.
func faultAt(b *byte) (addr uintptr, told bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		var r any = recover()
		if a, ok := r.(interface{ Addr() uintptr }); ok {
			addr, told = a.Addr(), true
		}
	}()
	got = *b
	return 0, false
}

var got byte

// said compares pages: some processors tell no more of an address.
func said(b []byte) string {
	addr, told := faultAt(&b[100])
	want := address(&b[100])
	switch page := uintptr(os.Getpagesize()); {
	case !told:
		return "a fault comes without its address"
	case addr/page != want/page:
		return "a fault comes with another address than its own"
	}
	return ""
}

func tryFaultAddress() string {
	b, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err.Error()
	}
	defer unix.Munmap(b) //nolint:errcheck // all of a mapping
	return said(b)
}

func tryBusAddress() string {
	f, err := os.CreateTemp("", "mmapio-prove-")
	if err != nil {
		return err.Error()
	}
	defer func() { _ = errors.Join(f.Close(), os.Remove(f.Name())) }()
	b, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err.Error()
	}
	defer unix.Munmap(b) //nolint:errcheck // all of a mapping
	return said(b)
}

func tryAdvice() string {
	page := make([]byte, 2*os.Getpagesize())
	start, _ := PagesOf(page[os.Getpagesize()-1:])
	_, _, errno := unix.Syscall(unix.SYS_MADVISE, start, uintptr(os.Getpagesize()), 9999)
	runtime.KeepAlive(page)
	if errno == 0 {
		return "madvise(2) succeeds whatever it is asked"
	}
	return ""
}

func tryLockCharge() string {
	b, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err.Error()
	}
	defer unix.Munmap(b) //nolint:errcheck // all of a mapping
	before, err := lockedOf(0)
	if err != nil {
		return err.Error()
	}
	if unix.Mlock(b) != nil {
		return "" // a limit of 0 is a limit that is kept
	}
	if after, err := lockedOf(0); err != nil || after != before+int64(len(b)) {
		return "VmLck of /proc/self/status does not show what was locked"
	}
	return ""
}

func tryRecycling() string {
	size := 16 * os.Getpagesize()
	var last uintptr
	for range 8 {
		b, err := unix.Mmap(-1, 0, size, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err.Error()
		}
		at := address(&b[0])
		if err := unix.Munmap(b); err != nil {
			return err.Error()
		}
		if at == last {
			return ""
		}
		last = at
	}
	if Missing(Linux) == "" {
		return "" // by chance, or others map and unmap
	}
	return "addresses that were given back are not given out again"
}

// Only an emulated program may be one that the kernel cannot start.
func tryChildren() string {
	if Missing(Linux) == "" {
		return ""
	}
	self, err := os.Executable()
	if err != nil {
		return err.Error()
	}
	if err := exec.Command(self, "-test.list=^$").Run(); err != nil {
		return "the kernel does not start a program built for " + runtime.GOARCH
	}
	return ""
}
