package sys

import (
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func cachestat(f *os.File, off, n int64) (st unix.Cachestat_t, _ error) {
	err := control(f, func(fd int) error {
		return unix.Cachestat(uint(fd), &unix.CachestatRange{Off: uint64(off), Len: uint64(n)}, &st, 0)
	})
	if err == unix.ENOSYS || err == unix.EOPNOTSUPP { //nolint:errorlint // bare errno
		err = ErrUnsupported
	}
	return st, err
}

func cached(f *os.File, off, n int64) (Counts, error) {
	st, err := cachestat(f, off, n)
	if err != nil {
		return NotKnown, err
	}
	return Counts{int64(st.Cache), int64(st.Dirty), int64(st.Writeback)}, nil
}

func stored(f *os.File, off, n int64) (int64, error) {
	st, err := cachestat(f, off, n)
	if err != nil {
		return 0, ErrUnsupported // whoever asks has another way
	}
	return int64(st.Cache + st.Evicted), nil
}

// keeps tells where the pages of a file are that cachestat(2) sees none of.
// Overlayfs keeps them with the file below it, FUSE may too, DAX and hugetlbfs
// have none. Where that cannot be found out, an answer of 0 is not believed.
func keeps(f *os.File) place {
	where := inCache
	err := control(f, func(fd int) error {
		var st unix.Statfs_t
		if err := unix.Fstatfs(fd, &st); err != nil {
			return err
		}
		switch uint32(st.Type) { // of other widths elsewhere; a magic has 32 bits
		case unix.OVERLAYFS_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC:
			where = elsewhere
		case unix.HUGETLBFS_MAGIC:
			where = nowhere
			return nil
		}
		var x unix.Statx_t
		err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, 0, &x)
		if err == unix.ENOSYS { //nolint:errorlint // bare errno
			// Linux before 4.11, where there is no cachestat either. None before 5.8
			// tells of DAX, of which mincore(2) sees nothing.
			where = elsewhere
			return nil
		}
		if err != nil {
			return err
		}
		if x.Attributes&unix.STATX_ATTR_DAX != 0 {
			where = nowhere
		}
		return nil
	})
	if err != nil {
		return nowhere
	}
	return where
}

// scanStep is how many runs one call returns.
const scanStep = 128

// A runScan is a scan with room for more.
type runScan struct {
	arg   scanArg
	found [scanStep]scanRegion
}

var runScans = sync.Pool{New: func() any { return new(runScan) }}

// scanRuns calls run for all runs of pages that scan would find one by one.
func (s *Space) scanRuns(at, n int, inverted, mask, anyOf uint64, run func(lo, hi int, categories uint64)) error {
	fd, err := procPagemap()
	if err != nil {
		return ErrUnsupported // if only for now: callers have other ways
	}
	c := runScans.Get().(*runScan)
	defer runScans.Put(c)
	c.arg = scanArg{
		size:  uint64(unsafe.Sizeof(c.arg)),
		start: uint64(s.addr) + uint64(at), end: uint64(s.addr) + uint64(at) + uint64(roundUp(n)),
		vec: uint64(uintptr(unsafe.Pointer(&c.found[0]))), vecLen: scanStep,
		inverted: inverted, mask: mask, anyOf: anyOf, returned: pageIsPresent,
	}
	for c.arg.start < c.arg.end {
		hits, err := ioctlN(fd, ioctlPagemapScan, unsafe.Pointer(&c.arg))
		if err != nil {
			return ErrUnsupported // before Linux 6.7
		}
		for _, r := range c.found[:hits] {
			run(int(r.start-uint64(s.addr)), int(r.end-uint64(s.addr)), r.categories)
		}
		c.arg.start = c.arg.walkEnd
	}
	return nil
}

func (s *Space) present(at, n int, run func(lo, hi int)) error {
	return s.scanRuns(at, n, pageIsZero, pageIsPresent|pageIsZero, 0, func(lo, hi int, _ uint64) { run(lo, hi) })
}

func (s *Space) countPresent(at, n int) (sum int, err error) {
	told := false
	err = s.present(at, n, func(lo, hi int) {
		told = true
		sum += hi - lo
	})
	if err == nil || told {
		return sum, err
	}
	fd, err := procPagemap()
	if err != nil {
		return 0, ErrUnsupported // if only for now: callers have other ways
	}
	ps := unix.Getpagesize()
	err = s.entries(fd, at, roundUp(n), func(_ int, entry uint64) bool {
		if entry&entryPresent != 0 {
			sum += ps
		}
		return true
	})
	return sum, err
}

func (s *Space) copies(at, n int, run func(lo, hi int, present bool)) error {
	told := false
	err := s.scanRuns(at, n, pageIsFile, pageIsFile, pageIsPresent|pageIsSwapped, func(lo, hi int, categories uint64) {
		told = true
		run(lo, hi, categories&pageIsPresent != 0)
	})
	if err == ErrUnsupported && !told { //nolint:errorlint // bare
		return s.copiesByPagemap(at, roundUp(n), run)
	}
	return err
}

// hugePages looks at the first present page of each stretch that a huge page
// could map: to have the kernel look at all takes as long as mincore(2).
func (s *Space) hugePages(at, n int) (pages int, err error) {
	fd, err := procPagemap()
	if err != nil {
		return 0, err
	}
	c := scans.Get().(*scan)
	defer scans.Put(c)
	huge := uint64(HugePage())
	start, end := uint64(s.addr)+uint64(at), uint64(s.addr)+uint64(at)+uint64(roundUp(n))
	for start < end {
		c.arg = scanArg{
			size: uint64(unsafe.Sizeof(c.arg)), start: start, end: end,
			vec: uint64(uintptr(unsafe.Pointer(&c.found))), vecLen: 1, maxPages: 1,
			mask: pageIsPresent, returned: pageIsHuge,
		}
		hits, err := ioctlN(fd, ioctlPagemapScan, unsafe.Pointer(&c.arg))
		if err != nil {
			return 0, ErrUnsupported
		}
		if hits == 0 {
			break
		}
		next := min(end, c.found.start&^(huge-1)+huge)
		if c.found.categories&pageIsHuge != 0 {
			pages += int(next-c.found.start) / pageSize()
		}
		start = next
	}
	return pages, nil
}

func fileIDOf(info fs.FileInfo) (id FileID, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok {
		id = FileID{uint64(st.Dev), uint64(st.Ino)} //nolint:unconvert // narrower elsewhere
	}
	return id, ok
}

// owns is what the kernel asks before it tells the truth. No capability of a user
// namespace is about files of users that the namespace does not know.
func owns(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && isKnown(st.Uid) && (int(st.Uid) == unix.Geteuid() || hasCap(unix.CAP_FOWNER))
}

// isKnown reports whether a number from stat(2) surely is a user of the process's
// user namespace: all whom it does not know are shown with the same number, which
// may be somebody's, too.
func isKnown(uid uint32) bool {
	const everybody = "4294967295"
	text, _ := os.ReadFile("/proc/self/uid_map")
	if ids := strings.Fields(string(text)); len(ids) == 3 && ids[2] == everybody {
		return true
	}
	unknown := uint64(65534)
	if text, err := os.ReadFile("/proc/sys/kernel/overflowuid"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32); err == nil {
			unknown = n
		}
	}
	return uint64(uid) != unknown
}
