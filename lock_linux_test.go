package mmapio_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

func init() {
	kernelHolds = func(t testing.TB, b []byte, want []bool) {
		t.Helper()
		if prove.Missing(prove.Pagemap) != "" {
			return
		}
		prove.AssertHeldPages(t, b, want)
		if got := probe(t, b); !slices.Equal(got, want) {
			t.Errorf("msync says of each page whether it is locked: %v, want %v", got, want)
		}
	}
}

// probe asks without privilege which pages that hold a byte of b are locked:
// with MS_INVALIDATE msync(2) refuses locked mappings, and with MS_ASYNC it
// does nothing else.
func probe(t testing.TB, b []byte) []bool {
	t.Helper()
	start, n := prove.PagesOf(b)
	locked := make([]bool, n)
	for i := range locked {
		at := start + uintptr(i)*uintptr(pageSize)
		_, _, errno := unix.Syscall(unix.SYS_MSYNC, at, uintptr(pageSize), unix.MS_ASYNC|unix.MS_INVALIDATE)
		if errno != 0 && errno != unix.EBUSY {
			t.Fatalf("msync of page %d: %v", i, errno)
		}
		locked[i] = errno == unix.EBUSY
	}
	return locked
}

// truncate is another process that changes the length of a file.
var truncate = prove.Register("truncate", func(args []string) int {
	n, err := strconv.ParseInt(args[1], 10, 64)
	check(prove.T(), err)
	check(prove.T(), os.Truncate(args[0], n))
	return 0
})

func truncated(t *testing.T, path string, n int64) {
	t.Helper()
	if res := truncate.Run(t, prove.Args(path, fmt.Sprint(n))); res.Code != 0 {
		t.Fatal(res)
	}
}

// To lock copies nothing; what is stored to later is locked as it is copied.
func TestProofLockCopiesNothing(t *testing.T) {
	prove.Need(t, prove.Advice)
	needLockOf(t, 8*pageSize)
	path := prove.NewFile(t, t.TempDir(), "f", 8*pageSize)
	before, err := os.ReadFile(path)
	check(t, err)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.CopyOnWrite})
	b := memoryOf(t, f)
	copies := func(want int64) {
		t.Helper()
		holds(t, f, "########")
		if v := prove.Mapping(t, b); v.Anonymous != want || v.PrivateDirty != want {
			t.Errorf("%d bytes are copies and %d private and dirty, want %d of both", v.Anonymous, v.PrivateDirty, want)
		}
	}
	check(t, f.LockAll())
	copies(0)
	if _, err := f.WriteAt([]byte("stored"), 3*pageSize-1); err != nil { // two pages
		t.Fatal(err)
	}
	copies(2 * pageSize)
	check(t, f.UnlockAll())
	check(t, f.LockAll())
	copies(2 * pageSize)
	if now, err := os.ReadFile(path); err != nil || string(now) != string(before) {
		t.Errorf("the file has changed (%v)", err)
	}

	// What plain mlock(2) does, so that this test would see it.
	file, err := os.Open(path)
	check(t, err)
	defer file.Close()
	control, err := unix.Mmap(int(file.Fd()), 0, int(8*pageSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	check(t, err)
	defer unix.Munmap(control)
	check(t, unix.Mlock(control))
	if v := prove.Mapping(t, control); v.Anonymous != 8*pageSize {
		t.Errorf("the control has %d bytes of copies, want all of %d", v.Anonymous, 8*pageSize)
	}
}

// Files over one file on the disk have their own locks.
func TestProofLockTwoFiles(t *testing.T) {
	needLockOf(t, 8*pageSize)
	for _, mode := range allModes {
		t.Run(mode.String(), func(t *testing.T) {
			path := fileOf(t, 4*pageSize)
			f := mustOpen(t, path, &mmapio.Options{Mode: mode})
			g := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Offset: 1})
			check(t, f.LockAll())
			holds(t, g, "....")
			check(t, g.Lock(pageSize, pageSize)) // bytes of two pages
			check(t, f.Unlock(0, 2*pageSize))
			holds(t, f, "..##")
			holds(t, g, ".##.")
			check(t, g.UnlockAll())
			holds(t, f, "..##")
			check(t, g.LockAll())
			check(t, f.Close())
			holds(t, g, "####")
		})
	}
}

// forkOnly makes a child that sleeps, without exec, which would end all of its
// mappings anyway. Nothing of the Go runtime may be used in the child: it has
// one thread only.
//
//go:norace
func forkOnly() (pid uintptr, errno syscall.Errno) {
	flags, stack := uintptr(unix.SIGCHLD), uintptr(0)
	if runtime.GOARCH == "s390x" {
		flags, stack = stack, flags
	}
	ten := unix.Timespec{Sec: 10} // should nobody kill it
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, flags, stack, 0, 0, 0, 0)
	if pid == 0 && errno == 0 {
		syscall.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ten)), 0, 0)
		for {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return pid, errno
}

// A child that was forked has the mappings and none of the locks.
func TestProofLockIsNotInherited(t *testing.T) {
	needLockOf(t, 4*pageSize)
	prove.Need(t, prove.Pagemap)
	path := fileOf(t, 4*pageSize)
	f := mustOpen(t, path, nil)
	check(t, f.LockAll())
	pid, errno := forkOnly()
	if errno != 0 {
		t.Fatal(errno)
	}
	child, err := os.FindProcess(int(pid))
	check(t, err)
	defer child.Wait() //nolint:errcheck // it was killed
	defer child.Kill() //nolint:errcheck // it sleeps
	mappings := prove.MappingsOf(t, int(pid), path)
	if len(mappings) != 1 || mappings[0].IsLocked() || prove.VmLck(t, int(pid)) != 0 {
		t.Errorf("the child has %v and VmLck %d", mappings, prove.VmLck(t, int(pid)))
	}
	holds(t, f, "####")
}

// Close ends locks, also where somebody still uses the memory.
func TestProofCloseEndsLocks(t *testing.T) {
	needLockOf(t, 4*pageSize)
	prove.Need(t, prove.Pagemap)
	everyMode(t, 4*pageSize, func(t *testing.T, f *mmapio.File) {
		before := prove.VmLck(t, 0)
		check(t, f.Lock(0, pageSize))
		check(t, f.Lock(2*pageSize, 2*pageSize))
		if got := prove.VmLck(t, 0) - before; got != 3*pageSize {
			t.Errorf("VmLck has grown by %d, want %d", got, 3*pageSize)
		}
		check(t, f.View(0, 4*pageSize, func(b []byte) error {
			check(t, f.Close())
			prove.AssertNotHeld(t, b)
			return nil
		}))
		if got := prove.VmLck(t, 0); got != before {
			t.Errorf("VmLck is %d, was %d", got, before)
		}
	})
}

// What the locks of a File cost in mappings is no longer counted once it is
// closed: else a process that opens and closes many would be refused at last.
func TestCloseGivesMappingsBack(t *testing.T) {
	needLockOf(t, 8*pageSize)
	f := mustOpen(t, fileOf(t, 16*pageSize), nil)
	for i := range int64(8) {
		check(t, f.Lock(2*i*pageSize, pageSize))
	}
	locked := mmapio.Splits()
	mustClose(t, f)
	// More if the collector finds a File meanwhile.
	if n := locked - mmapio.Splits(); n < 15 {
		t.Errorf("of 8 locks that lie apart it gives %d mappings back, want 15", n)
	}
}

// VerifyLocked asks the kernel, not the books.
func TestProofVerifyLockedAsksTheKernel(t *testing.T) {
	needLockOf(t, 4*pageSize)
	prove.Need(t, prove.Verify)
	everyMode(t, 4*pageSize, func(t *testing.T, f *mmapio.File) {
		check(t, f.LockAll())
		check(t, unix.Munlock(memoryOf(t, f)[2*pageSize:3*pageSize]))
		wantNotHeld(t, f, f.VerifyLocked(0, 4*pageSize), 2)
		check(t, f.VerifyLocked(0, 2*pageSize))
		check(t, f.VerifyLocked(3*pageSize, pageSize))
	})
}

// A file that another process cut has locked pages that are not there. These
// may be more than were cut off: where the kernel keeps pages in one piece that
// spans the new end, it takes all of them out of the mapping.
func TestProofVerifyLockedTruncated(t *testing.T) {
	needLockOf(t, 5*pageSize)
	prove.Need(t, prove.Pagemap)
	for _, mode := range allModes {
		for _, write := range []int64{pageSize, 5 * pageSize} {
			t.Run(fmt.Sprint(mode, write), func(t *testing.T) { verifyTruncated(t, mode, write) })
		}
	}
}

func verifyTruncated(t *testing.T, mode mmapio.Mode, write int64) {
	path := fileOf(t, 0)
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	check(t, err)
	defer file.Close()
	for off := int64(0); off < 5*pageSize; off += write {
		_, err := file.WriteAt(make([]byte, write), off)
		check(t, err)
	}
	f := mustOpen(t, path, &mmapio.Options{Mode: mode, Offset: 100})
	check(t, f.LockAll())
	holds(t, f, "#####")
	truncated(t, path, pageSize+200)

	b := memoryOf(t, f)
	page := slices.Index(prove.PresentPages(t, b), false)
	if page < 0 || page > 2 || write == pageSize && page != 2 {
		t.Fatalf("the first page that is absent is %d", page)
	}
	first, _ := pageOf(b, page)
	check(t, f.VerifyLocked(0, first))
	e := wantNotHeld(t, f, f.VerifyLocked(0, f.Size()), page)
	wantNotHeld(t, f, f.VerifyLocked(first, 1), page)
	if page == 2 && (e.Cause != mmapio.CauseBeyondEOF || !strings.Contains(e.Error(), fmt.Sprintf("is now %d bytes long", pageSize+200))) {
		t.Errorf("%v: %v", e.Cause, e)
	}
	if page < 2 && (e.Cause != mmapio.CauseUnknown || !strings.HasSuffix(e.Error(), "the page is locked but not in RAM; call Lock")) {
		t.Errorf("%v: %v", e.Cause, e)
	}
}

// The end of a file that was made shorter meanwhile leaves the kernel as it
// was: Linux would keep the range half locked, and charged.
func TestProofLockBeyondEOF(t *testing.T) {
	needLockOf(t, 6*pageSize)
	prove.Need(t, prove.Advice, prove.Pagemap)
	for _, mode := range allModes {
		t.Run(mode.String(), func(t *testing.T) {
			path := fileOf(t, 6*pageSize)
			f := mustOpen(t, path, &mmapio.Options{Mode: mode, Prefault: -1})
			before := prove.VmLck(t, 0)
			truncated(t, path, 3*pageSize+100)
			fails := func(lock func() error, op string, off, n int64) {
				t.Helper()
				var e *mmapio.LockError
				err := lock()
				if !errors.As(err, &e) || e.Cause != mmapio.CauseBeyondEOF || e.Op != op || e.Off != off || e.Len != n {
					t.Fatalf("%s: %v", op, err)
				}
				for _, want := range []string{fmt.Sprintf("now %d bytes long, and mapped up to %d", 3*pageSize+100, 6*pageSize), "Refresh"} {
					if !strings.Contains(e.Error(), want) {
						t.Errorf("%q does not say %q", e, want)
					}
				}
			}
			fails(f.LockAll, "lockall", 0, 6*pageSize)
			holds(t, f, "......")
			check(t, f.Lock(pageSize, 1))
			fails(func() error { return f.Lock(2*pageSize, 2*pageSize+1) }, "lock", 2*pageSize, 2*pageSize+1)
			fails(func() error { return f.Lock(5*pageSize, 1) }, "lock", 5*pageSize, 1)
			fails(f.LockAll, "lockall", 0, 6*pageSize)
			holds(t, f, ".#....")
			if got := prove.VmLck(t, 0) - before; got != pageSize {
				t.Errorf("VmLck has grown by %d, want %d", got, pageSize)
			}
			check(t, f.Lock(2*pageSize, pageSize+100))
			holds(t, f, ".###..")
		})
	}
}

// The same where several windows are locked already.
func TestProofLockBeyondEOFManyWindows(t *testing.T) {
	const n = 40 << 20
	needLockOf(t, n)
	prove.Need(t, prove.Advice, prove.Pagemap)
	path := fileOf(t, 0)
	check(t, os.Truncate(path, n))
	f := mustOpen(t, path, nil)
	check(t, f.Lock(20<<20, 2*pageSize))
	truncated(t, path, n-pageSize)
	var e *mmapio.LockError
	if err := f.LockAll(); !errors.As(err, &e) || e.Cause != mmapio.CauseBeyondEOF {
		t.Fatal(err)
	}
	want := make([]bool, n/pageSize)
	want[20<<20/pageSize], want[20<<20/pageSize+1] = true, true
	prove.AssertHeldPages(t, memoryOf(t, f), want)
	if got := f.LockedRanges(); !slices.Equal(got, []mmapio.Range{{Off: 20 << 20, Len: 2 * pageSize}}) {
		t.Errorf("LockedRanges: %v", got)
	}
	if _, err := f.ReadAt(make([]byte, 1), n-pageSize); !errors.As(err, new(*mmapio.FaultError)) || errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
}

// A lock or unlock that begins inside of a huge page takes the whole of it out
// of the mapping, and what is not mapped is not held.
func TestProofLockBesideHugePages(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Pagemap)
	const n = 6 << 20
	path := filepath.Join(t.TempDir(), "f")
	// One write makes large folios.
	check(t, os.WriteFile(path, make([]byte, n), 0o600))
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	for i := range int64(4) {
		if err := f.LockAll(); err != nil {
			prove.Unable(t, "not enough may be locked here: %v", err)
		}
		at := 5*pageSize + i*(pageSize<<8)
		check(t, f.Unlock(at, pageSize))
		check(t, f.VerifyLocked(0, at))
		check(t, f.VerifyLocked(at+pageSize, n-at-pageSize))
		prove.AssertHeld(t, memoryOf(t, f)[:at])
		prove.AssertHeld(t, memoryOf(t, f)[at+pageSize:])
	}
}

// The same for a lock that is under way: what it has brought in so far, and not
// yet in its books.
func TestProofLockBesideUnlock(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Pagemap, prove.Scan)
	const n, huge = 16 << 20, 2 << 20
	needLockOf(t, n)
	path := filepath.Join(t.TempDir(), "f")
	check(t, os.WriteFile(path, make([]byte, n), 0o600)) // large folios
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Lock: mmapio.LockOnFault})
	check(t, f.Populate(t.Context(), 0, n))
	at := int64(0) // of a huge page
	for {
		r, err := f.Residency(at, huge)
		check(t, err)
		if r.Huge == r.Pages {
			break
		}
		if at += huge; at == n {
			prove.Unable(t, "no huge page")
		}
	}
	held := 0
	defer mmapio.SetFailpoint(func(step string) error {
		if step == "hold" {
			if held++; held == 1 {
				check(t, f.Unlock(at, huge/2))
			}
		}
		return nil
	})()
	check(t, f.Lock(at+huge/2, huge/2))
	if held == 0 {
		t.Fatal("no window was under way")
	}
	prove.AssertHeld(t, memoryOf(t, f)[at+huge/2:at+huge])
}
