package sys

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio/internal/prove"
)

// needs ends a test where this machine, not this platform, lacks something.
func needs(t *testing.T, ok bool, what string) {
	t.Helper()
	switch {
	case ok:
	case os.Getenv("MMAPIO_E2E") == "1":
		t.Fatalf("needs %s", what)
	default:
		t.Skipf("needs %s", what)
	}
}

// vmFlag looks up a flag of the mapping at a distance from the start of s.
func vmFlag(t *testing.T, s *Space, at int, flag string) bool {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, here := s.Addr()+uintptr(at), false
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var lo, hi uintptr
		if n, _ := fmt.Sscanf(sc.Text(), "%x-%x ", &lo, &hi); n == 2 {
			here = lo <= want && want < hi
		} else if flags, ok := strings.CutPrefix(sc.Text(), "VmFlags:"); ok && here {
			return slices.Contains(strings.Fields(flags), flag)
		}
	}
	t.Fatalf("no mapping at %#x", want)
	return false
}

func TestLockIsHeld(t *testing.T) {
	p := PageSize()
	s := owned(t)(MapFile(newFile(t, 4*p), 0, 4*p, Read))
	if err := s.Lock(p, 2*p); err != nil {
		t.Fatal(err)
	}
	for page, want := range []bool{false, true, true, false} {
		if got := vmFlag(t, s, page*p, "lo"); got != want {
			t.Errorf("page %d: VmFlags lo is %v, want %v", page, got, want)
		}
	}
	for _, tt := range []struct{ at, n, want int }{
		{p, 2 * p, -1}, {p, 3 * p, 3 * p}, {0, 4 * p, 0}, {2 * p, 1, -1}, {3 * p, 1, 3 * p},
	} {
		if got, err := s.Unlocked(tt.at, tt.n); got != tt.want || err != nil {
			t.Errorf("Unlocked(%d, %d) = %d, %v, want %d", tt.at, tt.n, got, err, tt.want)
		}
	}
	if err := s.Unlock(p, p); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Unlocked(p, 2*p); got != p || err != nil {
		t.Errorf("after Unlock: Unlocked = %d, %v, want %d", got, err, p)
	}
	if vmFlag(t, s, p, "lo") || !vmFlag(t, s, 2*p, "lo") {
		t.Error("Unlock let the wrong page go")
	}
}

func TestLockOnFaultLeavesPagesAlone(t *testing.T) {
	needs(t, LocksOnFault(), "a way to bring pages in, and mlock2")
	s := owned(t)(MapAnon(2 * PageSize()))
	if err := s.Lock(0, s.Size()); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Absent(0, s.Size()); got != 0 || err != nil {
		t.Errorf("Absent = %d, %v, want 0", got, err)
	}
	if err := s.Populate(0, s.Size(), true); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Absent(0, s.Size()); got != -1 || err != nil {
		t.Errorf("populated: Absent = %d, %v, want -1", got, err)
	}
}

func TestClearDropsLocks(t *testing.T) {
	s := owned(t)(MapAnon(2 * PageSize()))
	if err := s.Lock(0, s.Size()); err != nil {
		t.Fatal(err)
	}
	if err := s.Clear(0, PageSize()); err != nil {
		t.Fatal(err)
	}
	if vmFlag(t, s, 0, "lo") || !vmFlag(t, s, PageSize(), "lo") {
		t.Error("the lock is on the wrong page")
	}
}

func pagemapFD(t *testing.T) int {
	t.Helper()
	fd, err := procPagemap()
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// absentBoth asks both ways, which differ where the page of zeroes is mapped, and
// wants of move_pages(2) what PAGEMAP_SCAN says.
func absentBoth(t *testing.T, s *Space) (scan, bits int) {
	t.Helper()
	scan, err := s.Absent(0, s.Size())
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := s.absentByMovePages(0, s.Size())
	if canScan(t) && nodes != scan && !errors.Is(err, ErrUnsupported) {
		t.Errorf("move_pages(2) says %d, %v, PAGEMAP_SCAN %d", nodes, err, scan)
	}
	bits, err = s.absentByPagemap(pagemapFD(t), 0, s.Size())
	if err != nil {
		t.Fatal(err)
	}
	return scan, bits
}

func canScan(t *testing.T) bool {
	err := ioctl(pagemapFD(t), ioctlPagemapScan, nil)
	return err != unix.ENOTTY && err != unix.EINVAL && err != unix.ENOSYS //nolint:errorlint // bare errno
}

// shared reports whether the memory of a page may be anyone's: bit 56 of its
// entry in the pagemap is unset. Some kernels map no page of zeroes but give a
// page that is only read memory of its own (pvm_no_zero_page).
func shared(t *testing.T, s *Space, at int) bool {
	t.Helper()
	var entry [8]byte
	if _, err := unix.Pread(pagemapFD(t), entry[:], int64(s.Addr()+uintptr(at))/int64(PageSize())*8); err != nil {
		t.Fatal(err)
	}
	return binary.NativeEndian.Uint64(entry[:])&(1<<56) == 0
}

func TestAbsent(t *testing.T) {
	realPages(t)
	prove.Need(t, prove.Verify)
	p := PageSize()
	s := owned(t)(MapAnon(4 * p))
	if scan, bits := absentBoth(t, s); scan != 0 || bits != 0 {
		t.Errorf("untouched: %d and %d, want 0", scan, bits)
	}
	b := s.Bytes(0, s.Size())
	b[0], b[p], b[3*p] = 1, 1, 1
	if scan, bits := absentBoth(t, s); scan != 2*p || bits != 2*p {
		t.Errorf("third page untouched: %d and %d, want %d", scan, bits, 2*p)
	}
	sink = b[2*p] // maps the page of zeroes
	scan, bits := absentBoth(t, s)
	if bits != -1 {
		t.Errorf("third page read: the present bits say %d, want -1", bits)
	}
	want := -1
	if canScan(t) && shared(t, s, 2*p) {
		want = 2 * p
	}
	if scan != want {
		t.Errorf("third page read: %d, want %d", scan, want)
	}
	b[2*p] = 1
	if scan, bits := absentBoth(t, s); scan != -1 || bits != -1 {
		t.Errorf("all stored to: %d and %d, want -1", scan, bits)
	}
}

// More pages than one read of the pagemap takes.
func TestAbsentByPagemapInSteps(t *testing.T) {
	realPages(t)
	prove.Need(t, prove.Verify)
	p := PageSize()
	s := owned(t)(MapAnon(8200 * p))
	for at := 0; at < s.Size(); at += p {
		s.Bytes(at, 1)[0] = 1
	}
	if _, bits := absentBoth(t, s); bits != -1 {
		t.Errorf("all there: %d, want -1", bits)
	}
	if err := unix.Madvise(s.Bytes(8195*p, p), unix.MADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if scan, bits := absentBoth(t, s); scan != 8195*p || bits != 8195*p {
		t.Errorf("one gone: %d and %d, want %d", scan, bits, 8195*p)
	}
}

func blocks(t *testing.T, f *os.File) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := control(f, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestAllocateBlocks(t *testing.T) {
	f := newFile(t, 0)
	const n = 1 << 20
	if err := f.Truncate(n); err != nil { // a hole
		t.Fatal(err)
	}
	if got := blocks(t, f); got >= n {
		t.Fatalf("a hole has %d bytes of blocks", got)
	}
	_, err := Allocate(f, 0, 2*n)
	needs(t, !errors.Is(err, ErrUnsupported), "a file system that allocates")
	if err != nil {
		t.Fatal(err)
	}
	if got := blocks(t, f); got < 2*n {
		t.Errorf("%d bytes of blocks, want %d", got, 2*n)
	}
}

func TestReopenDeleted(t *testing.T) {
	f := newFile(t, 10)
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.Name(), []byte("another"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(5, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	n, _, err := Reopen(f, true)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	was, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if is, err := n.Stat(); err != nil || !os.SameFile(was, is) {
		t.Errorf("another file was opened, %v", err)
	}
	if at, err := n.Seek(0, io.SeekCurrent); at != 0 || err != nil {
		t.Errorf("offset %d, %v: not a description of its own", at, err)
	}
}

// TestReopenBlocks: what does not block goes to the poller of package os.
func TestReopenBlocks(t *testing.T) {
	n, _, err := Reopen(newFile(t, 1), true)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	err = control(n, func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if flags&unix.O_NONBLOCK != 0 || flags&unix.O_ACCMODE != unix.O_RDWR {
			t.Errorf("flags %#x", flags)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A running program cannot be opened for writing. Under an emulator it is the
// emulator that runs.
func TestReopenDuplicates(t *testing.T) {
	prove.Need(t, prove.Linux)
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(5, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	n, _, err := Reopen(f, true)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if at, err := n.Seek(0, io.SeekCurrent); at != 5 || err != nil {
		t.Errorf("offset %d, %v, want the shared 5", at, err)
	}
	control(n, func(fd int) error {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("not close-on-exec: %#x, %v", flags, err)
		}
		return nil
	})
}

func TestAdviseFlags(t *testing.T) {
	prove.Need(t, prove.Advice)
	s := owned(t)(MapAnon(PageSize()))
	for h, flag := range map[Hint]string{NoDump: "dd", NoFork: "dc"} {
		if vmFlag(t, s, 0, flag) {
			t.Errorf("hint %d: VmFlags has %s already", h, flag)
		}
		if err := s.Advise(0, PageSize(), h); err != nil {
			t.Fatal(err)
		}
		if !vmFlag(t, s, 0, flag) {
			t.Errorf("hint %d: VmFlags lacks %s", h, flag)
		}
	}
}

// A file system that has no limit, or whose server does not tell, has no blocks.
func TestRoomFor(t *testing.T) {
	for _, tt := range []struct {
		fs   unix.Statfs_t
		n    int64
		want bool
	}{
		{unix.Statfs_t{Bsize: 4096, Blocks: 100, Bfree: 10}, 40960, true},
		{unix.Statfs_t{Bsize: 4096, Blocks: 100, Bfree: 9}, 40960, false},
		{unix.Statfs_t{Bsize: 4096}, 1 << 40, true},
		{unix.Statfs_t{}, 1 << 40, true},
	} {
		if got := roomFor(tt.n, &tt.fs); got != tt.want {
			t.Errorf("%d bytes, %d blocks of %d: %v", tt.n, tt.fs.Bfree, tt.fs.Bsize, got)
		}
	}
	fd, err := unix.MemfdCreate("fits", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "fits")
	defer f.Close()
	var st unix.Stat_t
	if err := control(f, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		t.Fatal(err)
	}
	if !fits(int(f.Fd()), 1<<40, &st) {
		t.Error("memory has no room")
	}
}

// A length is taken back from the file only as long as nobody has added to it.
func TestCutBack(t *testing.T) {
	for _, c := range []struct{ size, before, after, want int }{
		{300, 100, 300, 100},
		{301, 100, 300, 301}, // others have added to it
		{299, 100, 300, 299}, // or cut it
		{300, 300, 300, 300},
		{300, 301, 300, 300}, // it was never longer
	} {
		f := newFile(t, c.size)
		cutBack(int(f.Fd()), int64(c.before), int64(c.after))
		if info, err := f.Stat(); err != nil || info.Size() != int64(c.want) {
			t.Errorf("%+v: %d bytes, %v", c, info.Size(), err)
		}
	}
}
