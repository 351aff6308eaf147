package prove

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The kernel's interface, from include/uapi/linux/fs.h and Documentation/admin-guide/mm/pagemap.rst.
const (
	pmPresent = 1 << 63
	pmSwapped = 1 << 62
	pmFile    = 1 << 61 // page cache or shared anonymous, or the huge zero page
	pmPFN     = 1<<55 - 1

	kpfZeroPage = 1 << 24

	pagemapScan   = 0xc0606610 // _IOWR('f', 16, struct pm_scan_arg), the same on every machine
	pageIsPresent = 1 << 3
	pageIsPFNZero = 1 << 5
)

type pmScanArg struct {
	size, flags, start, end, walkEnd, vec, vecLen, maxPages    uint64
	categoryInverted, categoryMask, categoryAnyof, returnedSet uint64
}

type pageRegion struct{ start, end, categories uint64 }

func procFile(pid int, name string) string {
	if pid == 0 {
		return "/proc/self/" + name
	}
	return "/proc/" + strconv.Itoa(pid) + "/" + name
}

func readVMAs(t testing.TB, pid int, details bool) []VMA {
	t.Helper()
	name := "maps"
	if details {
		name = "smaps"
	}
	all, err := vmas(pid, name)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func vmas(pid int, name string) ([]VMA, error) {
	f, err := os.Open(procFile(pid, name))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	all, err := parseVMAs(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return all, nil
}

// VmLck is the address space that a process (0 is this one) has locked, in bytes: what RLIMIT_MEMLOCK is held against.
// It is no proof of a lock, since it counts pages that are not there.
func VmLck(t testing.TB, pid int) int64 { //nolint:revive // the kernel's own name
	t.Helper()
	Need(t, LockCharge)
	n, err := lockedOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func lockedOf(pid int) (int64, error) {
	status, err := os.ReadFile(procFile(pid, "status"))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(status), "\nVmLck:")
	line, _, _ := strings.Cut(rest, "\n")
	kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(line, "kB")), 10, 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("no VmLck in %s (%w)", procFile(pid, "status"), err)
	}
	return kb << 10, nil
}

// tryPagemap asks about a page that is surely there, and about its zero page.
func tryPagemap() string {
	// Many pages: one may be called present by chance.
	b := make([]byte, 64*os.Getpagesize())
	for i := range b {
		b[i] = 1
	}
	present, _, err := pagesOf(spanOf(b))
	runtime.KeepAlive(b)
	if err != nil {
		return err.Error()
	}
	if Count(present) != len(present) {
		return "/proc/self/pagemap calls memory absent that was just written"
	}
	all, err := vmas(0, "smaps")
	if err != nil {
		return err.Error()
	}
	if len(all) == 0 || len(all[0].VmFlags) == 0 {
		return "/proc/self/smaps has no VmFlags"
	}
	return ""
}

func readPages(t testing.TB, s span) (present, swapped []bool) {
	t.Helper()
	present, swapped, err := pagesOf(s)
	if err != nil {
		t.Fatal(err)
	}
	return present, swapped
}

func pagesOf(s span) (present, swapped []bool, err error) {
	present, swapped = make([]bool, s.pages), make([]bool, s.pages)
	if s.pages == 0 {
		return present, swapped, nil
	}
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = pagemap.Close() }()
	raw := make([]byte, 8*s.pages)
	if _, err := pagemap.ReadAt(raw, int64(s.start/s.size*8)); err != nil {
		return nil, nil, err
	}
	zeros := zeroFinder{span: s, pagemap: pagemap}
	defer zeros.close()
	for i := range present {
		entry := binary.NativeEndian.Uint64(raw[8*i:])
		swapped[i] = entry&pmSwapped != 0
		present[i] = entry&pmPresent != 0
		if present[i] {
			zero, err := zeros.isZero(i, entry)
			if err != nil {
				return nil, nil, err
			}
			present[i] = !zero
		}
	}
	return present, swapped, nil
}

// A zeroFinder tells the zero page from a real one, by PAGEMAP_SCAN (Linux 6.7) and, for root, by kpageflags too: until
// Linux 6.17 PAGEMAP_SCAN did not recognise the *huge* zero page.
type zeroFinder struct {
	span    span
	pagemap *os.File
	scanned []bool
	scanErr error
	flags   *os.File
}

func (z *zeroFinder) isZero(page int, entry uint64) (bool, error) {
	if z.scanned == nil && z.scanErr == nil {
		z.scanned, z.scanErr = scanPages(z.pagemap, z.span, pageIsPresent|pageIsPFNZero)
	}
	if z.scanned != nil && z.scanned[page] {
		return true, nil
	}
	if entry&pmFile != 0 {
		return false, nil
	}
	pfn := entry & pmPFN
	if pfn == 0 { // hidden from all but root
		return false, z.scanErr
	}
	if z.flags == nil {
		f, err := os.Open("/proc/kpageflags")
		if err != nil {
			return false, z.scanErr
		}
		z.flags = f
	}
	var flags [8]byte
	if _, err := z.flags.ReadAt(flags[:], int64(8*pfn)); err != nil {
		return false, err
	}
	return binary.NativeEndian.Uint64(flags[:])&kpfZeroPage != 0, nil
}

func (z *zeroFinder) close() {
	if z.flags != nil {
		_ = z.flags.Close()
	}
}

// scanPages marks the pages of s that are in all categories of the mask.
func scanPages(pagemap *os.File, s span, mask uint64) ([]bool, error) {
	marked := make([]bool, s.pages)
	regions := make([]pageRegion, 512)
	arg := &pmScanArg{
		start: s.start, end: s.end(), vec: uint64(address(&regions[0])), vecLen: uint64(len(regions)),
		categoryMask: mask, returnedSet: mask,
	}
	arg.size = 96
	for arg.start < arg.end {
		n, _, errno := syscall.Syscall(syscall.SYS_IOCTL, pagemap.Fd(), pagemapScan, address(arg))
		runtime.KeepAlive(regions)
		runtime.KeepAlive(arg)
		if errors.Is(errno, syscall.EINTR) {
			continue
		}
		if errno != 0 {
			return nil, fmt.Errorf("PAGEMAP_SCAN, without which a user who is not root cannot tell the zero page (Linux 6.7): %w", errno)
		}
		for _, r := range regions[:n] {
			for a := r.start; a < r.end; a += s.size {
				marked[(a-s.start)/s.size] = true
			}
		}
		arg.start = arg.walkEnd
	}
	return marked, nil
}

// flaggedPages marks the pages of s that are present and have one of the flags in /proc/kpageflags.
func flaggedPages(s span, mask uint64) ([]bool, error) {
	marked := make([]bool, s.pages)
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil, err
	}
	defer func() { _ = pagemap.Close() }()
	flags, err := os.Open("/proc/kpageflags")
	if err != nil {
		return nil, err
	}
	defer func() { _ = flags.Close() }()
	raw := make([]byte, 8*s.pages)
	if _, err := pagemap.ReadAt(raw, int64(s.start/s.size*8)); err != nil {
		return nil, err
	}
	for i := range marked {
		entry := binary.NativeEndian.Uint64(raw[8*i:])
		if entry&pmPresent == 0 {
			continue
		}
		var word [8]byte
		if _, err := flags.ReadAt(word[:], int64(8*(entry&pmPFN))); err != nil {
			return nil, err
		}
		marked[i] = binary.NativeEndian.Uint64(word[:])&mask != 0
	}
	return marked, nil
}
