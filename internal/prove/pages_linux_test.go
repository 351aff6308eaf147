package prove

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

const (
	private = syscall.MAP_PRIVATE | syscall.MAP_ANON
	rw      = syscall.PROT_READ | syscall.PROT_WRITE
)

var pageSize = os.Getpagesize()

// sink keeps loads from being compiled away.
var sink byte

func mapped(t testing.TB, fd, size, prot, flags int) []byte {
	t.Helper()
	b, err := syscall.Mmap(fd, 0, size, prot, flags)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(b) }) // an error if the test did it
	return b
}

// alone is private memory that cannot merge with its neighbours, for figures that are about it only.
func alone(t testing.TB, size int) []byte {
	t.Helper()
	b := mapped(t, -1, size+2*pageSize, syscall.PROT_NONE, private)[pageSize:][:size]
	if err := syscall.Mprotect(b, rw); err != nil {
		t.Fatal(err)
	}
	return b
}

func mappedFile(t testing.TB, path string, prot, flags int) []byte {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return mapped(t, int(f.Fd()), int(st.Size()), prot, flags)
}

func lock(t testing.TB, b []byte) {
	t.Helper()
	if err := syscall.Mlock(b); err != nil {
		t.Fatal(err)
	}
}

func fill(b []byte) {
	for i := 0; i < len(b); i += pageSize {
		b[i] = 1
	}
}

func TestLockedPagesFollowsMlock(t *testing.T) {
	Need(t, Pagemap)
	b := mapped(t, -1, 8*pageSize, rw, private)
	fill(b)
	AssertNotHeld(t, b)
	fails(t, "want held, are not locked and present", func(t testing.TB) { AssertHeld(t, b) })
	before := VmLck(t, 0)
	lock(t, b[2*pageSize:5*pageSize])
	want := []bool{false, false, true, true, true, false, false, false}
	AssertHeldPages(t, b, want)
	AssertHeld(t, b[2*pageSize+7:5*pageSize-7]) // the pages of those bytes
	AssertNotHeld(t, b[:2*pageSize])
	fails(t, "pages 2 to 4 (3 of them): want not locked", func(t testing.TB) { AssertNotHeld(t, b) })
	fails(t, "want is about 1 pages", func(t testing.TB) { AssertHeldPages(t, b, []bool{true}) })
	if got := Count(LockedPages(t, b)); got != 3 {
		t.Errorf("%d pages are locked, want 3", got)
	}
	if got := VmLck(t, os.Getpid()) - before; got != int64(3*pageSize) {
		t.Errorf("VmLck grew by %d", got)
	}
	if n := len(Mappings(t, b)); n != 3 {
		t.Errorf("locking the middle made %d mappings, want 3", n)
	}
	fails(t, "not in one mapping", func(t testing.TB) { Mapping(t, b) })
	if err := syscall.Munlock(b); err != nil {
		t.Fatal(err)
	}
	AssertNotHeld(t, b)
}

func TestPresentPagesKnowsAbsentAndZero(t *testing.T) {
	Need(t, Pagemap)
	b := alone(t, 4*pageSize)
	if got := Count(PresentPages(t, b)); got != 0 {
		t.Errorf("never touched, %d present", got)
	}
	sink = b[pageSize]
	agreesWithRss(t, b)
	b[2*pageSize] = 1
	if got := PresentPages(t, b); got[0] || !got[2] || got[3] {
		t.Errorf("page 2 was written: %v", got)
	}
	agreesWithRss(t, b)
	AssertNotHeld(t, b)
}

// agreesWithRss compares with another count of the kernel's that leaves the zero page out. What a mere read maps is the
// zero page on an ordinary kernel (pagemap's bit 63 alone would call it present), but not on every one: some virtual
// machines boot without it (pvm_no_zero_page=1).
func agreesWithRss(t *testing.T, b []byte) {
	t.Helper()
	got, rss := Count(PresentPages(t, b)), Mapping(t, b).Rss
	if int64(got*pageSize) != rss {
		t.Errorf("%d pages present, but %d bytes in memory", got, rss)
	}
	t.Logf("%d pages present", got)
}

// The regions are as many as take several calls of PAGEMAP_SCAN to tell.
func TestScanAgreesWithPagemap(t *testing.T) {
	Need(t, Pagemap)
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	b := mapped(t, -1, 2500*pageSize, rw, private)
	for i := 0; i < len(b); i += 2 * pageSize {
		b[i] = 1
	}
	scanned, err := scanPages(f, spanOf(b), pageIsPresent)
	if err != nil {
		Unable(t, "%v", err)
	}
	if !slices.Equal(scanned, PresentPages(t, b)) || Count(scanned) != 1250 || !scanned[0] || scanned[1] {
		t.Errorf("1250 of 2500 pages written, pagemap says %d, PAGEMAP_SCAN %d", Count(PresentPages(t, b)), Count(scanned))
	}
}

// A lock that only marks the mapping holds nothing yet; both assertions must say so.
func TestOnFaultIsNeitherHeldNorNot(t *testing.T) {
	Need(t, Pagemap)
	b := mapped(t, -1, 2*pageSize, rw, private)
	const mlockOnFault = 1
	_, _, errno := syscall.Syscall(sysMlock2, address(b), uintptr(len(b)), mlockOnFault)
	if errno != 0 {
		t.Fatal(errno)
	}
	fails(t, "want held, are locked and absent", func(t testing.TB) { AssertHeld(t, b) })
	fails(t, "want not locked, are locked and absent", func(t testing.TB) { AssertNotHeld(t, b) })
	fill(b)
	AssertHeld(t, b)
}

func TestHugeZeroPageIsNotPresent(t *testing.T) {
	Need(t, Pagemap)
	const huge = 2 << 20
	enabled, _ := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	if pageSize != 4096 || len(enabled) == 0 || strings.Contains(string(enabled), "[never]") {
		Unable(t, "needs huge pages of 2 MiB: page size %d, %q", pageSize, enabled)
	}
	b := mapped(t, -1, 2*huge, rw, private)
	if err := syscall.Madvise(b, syscall.MADV_HUGEPAGE); err != nil {
		Unable(t, "%v", err)
	}
	start, _ := PagesOf(b)
	b = b[(huge-start%huge)%huge:][:huge]
	sink = b[0]
	if got, rss := Count(PresentPages(t, b)), Mappings(t, b)[0].Rss; int64(got*pageSize) != rss {
		t.Errorf("%d pages present, but %d bytes in memory", got, rss)
	}
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	zero, err := scanPages(f, spanOf(b), pageIsPresent|pageIsPFNZero)
	t.Logf("PAGEMAP_SCAN alone calls %d of %d pages zero (%v)", Count(zero), huge/pageSize, err)
	b[0] = 1
	if got := Count(PresentPages(t, b)); got == 0 {
		t.Error("written, none present")
	}
}

func TestPagesAfterUnmap(t *testing.T) {
	Need(t, Pagemap)
	var seen []VMA
	for range 10 { // the runtime may map something there at once, but not each time
		b := mapped(t, -1, 2*pageSize, rw, private)
		fill(b)
		lock(t, b)
		AssertHeld(t, b)
		if err := syscall.Munmap(b); err != nil {
			t.Fatal(err)
		}
		if seen = Mappings(t, b); len(seen) > 0 {
			continue
		}
		AssertNotHeld(t, b)
		if Count(PresentPages(t, b)) == 0 {
			return
		}
	}
	t.Error("unmapped, but seen:", seen)
}

func TestMappingOfFile(t *testing.T) {
	Need(t, Pagemap)
	LeakCheck(t)
	dir := t.TempDir()
	path := NewFile(t, dir, "a file", int64(5*pageSize-1))
	if n, total := MappedFiles(t, dir); n != 0 || total == 0 {
		t.Fatal(n, total)
	}
	b := mappedFile(t, path, rw, syscall.MAP_SHARED)
	if string(b[4*pageSize:4*pageSize+2]) != "4 " {
		t.Errorf("page 4 begins with %q", b[4*pageSize:4*pageSize+8])
	}
	if n, _ := MappedFiles(t, path); n != 1 {
		t.Errorf("mapped %d times", n)
	}
	fill(b)
	m := Mapping(t, b)
	if m.Path != path || m.Rss < int64(5*pageSize) || m.IsLocked() || m.Perms != "rw-s" || m.Size() != int64(5*pageSize) || m.PrivateDirty == 0 {
		t.Error(m)
	}
	lock(t, b)
	of := MappingsOf(t, os.Getpid(), dir)
	if len(of) != 1 || !of[0].IsLocked() || of[0].Inode == 0 {
		t.Error(of)
	}
	AssertHeld(t, b)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if m := Mapping(t, b); m.Path != path || !m.Deleted {
		t.Error(m)
	}
	if n := len(MappingsOf(t, hangBody.Start(t).PID(), dir)); n != 0 {
		t.Error("a process that never heard of the file has it mapped?")
	}
}

func TestPagesOf(t *testing.T) {
	b := mapped(t, -1, 4*pageSize, rw, private)
	start, _ := PagesOf(b)
	for _, c := range []struct{ from, to, first, n int }{
		{0, 1, 0, 1}, {0, pageSize, 0, 1}, {0, pageSize + 1, 0, 2}, {pageSize - 1, pageSize + 1, 0, 2}, {pageSize, 2 * pageSize, 1, 1},
	} {
		at, n := PagesOf(b[c.from:c.to])
		if int(at-start)/pageSize != c.first || n != c.n {
			t.Errorf("%v: page %d, %d of them", c, int(at-start)/pageSize, n)
		}
	}
	if _, n := PagesOf(nil); n != 0 {
		t.Error(n)
	}
	runtime.KeepAlive(b)
}

func TestLeaksAreSeen(t *testing.T) {
	Need(t, Linux)
	path := NewFile(t, t.TempDir(), "f", 10)
	before := FDs(t)
	if what := leaksNow(before, t.TempDir()); what != "" {
		t.Fatalf("nothing open, but %s", what)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if what := leaksNow(before, "/nowhere"); !strings.Contains(what, "1 descriptors: "+path) {
		t.Errorf("one open: %q", what)
	}
	_ = f.Close()
	b := mappedFile(t, path, syscall.PROT_READ, syscall.MAP_SHARED)
	if what := leaksNow(before, path); !strings.Contains(what, "r--s of "+path) {
		t.Errorf("one mapped: %q", what)
	}
	_ = syscall.Munmap(b)
	if what := leaks(before, path); what != "" {
		t.Errorf("all gone, but %s", what)
	}
}
