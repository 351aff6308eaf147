package prove

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"

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
	runtime.KeepAlive(*b)
	return 0, false
}

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
	return tryStart(nil, "the kernel does not start a program built for "+runtime.GOARCH)
}

func tryNamespaces() string {
	return tryStart(&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}, "clone(2) refuses new namespaces")
}

func tryStart(attr *syscall.SysProcAttr, why string) string {
	if Missing(Linux) == "" {
		return "" // it may be refused, but for other reasons
	}
	self, err := os.Executable()
	if err != nil {
		return err.Error()
	}
	cmd := exec.Command(self, "-test.list=^$")
	cmd.SysProcAttr = attr
	if cmd.Run() != nil {
		return why
	}
	return ""
}

var ours byte

func tryMaps() string {
	all, err := vmas(0, "maps")
	if err != nil {
		return err.Error()
	}
	here := uint64(address(&ours))
	for _, v := range all {
		if v.Start <= here && here < v.End {
			return ""
		}
	}
	return "/proc/self/maps lacks memory of this program"
}

func tryVerify() string {
	if Missing(Linux) == "" {
		return ""
	}
	return tryPagemap()
}

func tryScan() string { return tryIoctl("/proc/self/pagemap", pagemapScan) }

// tryIoctl passes nothing, to which the kernel says that this is no argument.
func tryIoctl(path string, request uintptr) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close() //nolint:errcheck // only asked
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), request, address(new(pmScanArg)))
	if errno == syscall.ENOTTY || errno == syscall.ENOSYS {
		return "no such ioctl: " + errno.Error()
	}
	return ""
}

// tryCachestat passes no descriptor, to which the kernel says so.
func tryCachestat() string {
	err := unix.Cachestat(^uint(0), &unix.CachestatRange{}, &unix.Cachestat_t{}, 0)
	if errors.Is(err, unix.EBADF) {
		return ""
	}
	return fmt.Sprint("no cachestat: ", err)
}

// tryNoMemory gives an advice about no memory.
func tryNoMemory(advice int) string {
	page := make([]byte, 2*os.Getpagesize())
	start, _ := PagesOf(page[os.Getpagesize()-1:])
	_, _, errno := unix.Syscall(unix.SYS_MADVISE, start, 0, uintptr(advice))
	runtime.KeepAlive(page)
	if errno != 0 {
		return "no such advice: " + errno.Error()
	}
	return ""
}

// tryAddressLimit sets one that no program meets, and looks whether it is there.
func tryAddressLimit() string {
	var was, is unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &was); err != nil {
		return err.Error()
	}
	if strconv.IntSize == 32 || was.Cur < 1<<46 {
		return "" // the address space is smaller, or there is a limit already
	}
	set := was
	set.Cur = 1 << 46
	if err := unix.Setrlimit(unix.RLIMIT_AS, &set); err != nil {
		return err.Error()
	}
	err := unix.Getrlimit(unix.RLIMIT_AS, &is)
	if err := errors.Join(err, unix.Setrlimit(unix.RLIMIT_AS, &was)); err != nil {
		return err.Error()
	}
	if is.Cur != set.Cur {
		return "setrlimit(2) succeeds with RLIMIT_AS, and sets nothing"
	}
	return ""
}
