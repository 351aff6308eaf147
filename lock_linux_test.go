package mmapio_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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
		if prove.Missing(prove.Linux) != "" || prove.Missing(prove.Pagemap) != "" {
			return
		}
		prove.AssertHeldPages(t, b, want)
		if got := probe(t, b); !slices.Equal(got, want) {
			t.Errorf("msync says of each page whether it is locked: %v, want %v", got, want)
		}
	}
	// The library keeps two descriptors of /proc/self from the first time on
	// that it asks about a lock. They are no leak, so they are there before
	// anyone counts.
	if f, err := mmapio.Anonymous(1, nil); err == nil {
		_ = f.LockAll() // a child may not be allowed to
		_ = f.VerifyLocked(0, 1)
		_ = f.Close()
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
		at := start + uintptr(i)*uintptr(pg)
		_, _, errno := unix.Syscall(unix.SYS_MSYNC, at, uintptr(pg), unix.MS_ASYNC|unix.MS_INVALIDATE)
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
	needLock(t, 8*pg)
	path := prove.NewFile(t, t.TempDir(), "f", 8*pg)
	before, err := os.ReadFile(path)
	check(t, err)
	f := openFile(t, path, &mmapio.Options{Mode: mmapio.CopyOnWrite})
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
	if _, err := f.WriteAt([]byte("stored"), 3*pg-1); err != nil { // two pages
		t.Fatal(err)
	}
	copies(2 * pg)
	check(t, f.UnlockAll())
	check(t, f.LockAll())
	copies(2 * pg)
	if now, err := os.ReadFile(path); err != nil || string(now) != string(before) {
		t.Errorf("the file has changed (%v)", err)
	}

	// What plain mlock(2) does, so that this test would see it.
	file, err := os.Open(path)
	check(t, err)
	defer file.Close()
	control, err := unix.Mmap(int(file.Fd()), 0, int(8*pg), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	check(t, err)
	defer unix.Munmap(control)
	check(t, unix.Mlock(control))
	if v := prove.Mapping(t, control); v.Anonymous != 8*pg {
		t.Errorf("the control has %d bytes of copies, want all of %d", v.Anonymous, 8*pg)
	}
}

// Files over one file on the disk have their own locks.
func TestProofLockTwoFiles(t *testing.T) {
	needLock(t, 8*pg)
	for _, mode := range []mmapio.Mode{mmapio.ReadOnly, mmapio.ReadWrite, mmapio.CopyOnWrite} {
		t.Run(mode.String(), func(t *testing.T) {
			path := writeFile(t, 4*pg)
			f := openFile(t, path, &mmapio.Options{Mode: mode})
			g := openFile(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Offset: 1})
			check(t, f.LockAll())
			holds(t, g, "....")
			check(t, g.Lock(pg, pg)) // bytes of two pages
			check(t, f.Unlock(0, 2*pg))
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
	needLock(t, 4*pg)
	prove.Need(t, prove.Pagemap)
	path := writeFile(t, 4*pg)
	f := openFile(t, path, nil)
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
	needLock(t, 4*pg)
	prove.Need(t, prove.Pagemap)
	everyMode(t, 4*pg, func(t *testing.T, f *mmapio.File) {
		before := prove.VmLck(t, 0)
		check(t, f.Lock(0, pg))
		check(t, f.Lock(2*pg, 2*pg))
		if got := prove.VmLck(t, 0) - before; got != 3*pg {
			t.Errorf("VmLck has grown by %d, want %d", got, 3*pg)
		}
		check(t, f.View(0, 4*pg, func(b []byte) error {
			check(t, f.Close())
			prove.AssertNotHeld(t, b)
			return nil
		}))
		if got := prove.VmLck(t, 0); got != before {
			t.Errorf("VmLck is %d, was %d", got, before)
		}
	})
}

// VerifyLocked asks the kernel, not the books.
func TestProofVerifyLockedAsksTheKernel(t *testing.T) {
	needLock(t, 4*pg)
	everyMode(t, 4*pg, func(t *testing.T, f *mmapio.File) {
		check(t, f.LockAll())
		check(t, unix.Munlock(memoryOf(t, f)[2*pg:3*pg]))
		wantNotHeld(t, f, f.VerifyLocked(0, 4*pg), 2)
		check(t, f.VerifyLocked(0, 2*pg))
		check(t, f.VerifyLocked(3*pg, pg))
	})
}

// A file that another process cut has locked pages that are not there. These
// may be more than were cut off: where the kernel keeps pages in one piece that
// spans the new end, it takes all of them out of the mapping.
func TestProofVerifyLockedTruncated(t *testing.T) {
	needLock(t, 5*pg)
	prove.Need(t, prove.Pagemap)
	for _, mode := range []mmapio.Mode{mmapio.ReadOnly, mmapio.ReadWrite, mmapio.CopyOnWrite} {
		for _, write := range []int64{pg, 5 * pg} {
			t.Run(fmt.Sprint(mode, write), func(t *testing.T) { verifyTruncated(t, mode, write) })
		}
	}
}

func verifyTruncated(t *testing.T, mode mmapio.Mode, write int64) {
	path := writeFile(t, 0)
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	check(t, err)
	defer file.Close()
	for off := int64(0); off < 5*pg; off += write {
		_, err := file.WriteAt(make([]byte, write), off)
		check(t, err)
	}
	f := openFile(t, path, &mmapio.Options{Mode: mode, Offset: 100})
	check(t, f.LockAll())
	holds(t, f, "#####")
	truncated(t, path, pg+200)

	b := memoryOf(t, f)
	page := slices.Index(prove.PresentPages(t, b), false)
	if page < 0 || page > 2 || write == pg && page != 2 {
		t.Fatalf("the first page that is absent is %d", page)
	}
	first, _ := pageOf(b, page)
	check(t, f.VerifyLocked(0, first))
	e := wantNotHeld(t, f, f.VerifyLocked(0, f.Size()), page)
	wantNotHeld(t, f, f.VerifyLocked(first, 1), page)
	if page == 2 && (e.Cause != mmapio.CauseBeyondEOF || !strings.Contains(e.Error(), fmt.Sprintf("is now %d bytes long", pg+200))) {
		t.Errorf("%v: %v", e.Cause, e)
	}
	if page < 2 && (e.Cause != mmapio.CauseUnknown || !strings.HasSuffix(e.Error(), "the page is locked but not in RAM")) {
		t.Errorf("%v: %v", e.Cause, e)
	}
}

// The end of a file that was made shorter meanwhile leaves the kernel as it
// was: Linux would keep the range half locked, and charged.
func TestProofLockBeyondEOF(t *testing.T) {
	needLock(t, 6*pg)
	prove.Need(t, prove.Pagemap)
	for _, mode := range []mmapio.Mode{mmapio.ReadOnly, mmapio.ReadWrite, mmapio.CopyOnWrite} {
		t.Run(mode.String(), func(t *testing.T) {
			path := writeFile(t, 6*pg)
			f := openFile(t, path, &mmapio.Options{Mode: mode})
			before := prove.VmLck(t, 0)
			truncated(t, path, 3*pg+100)
			fails := func(lock func() error, op string, off, n int64) {
				t.Helper()
				var e *mmapio.LockError
				err := lock()
				if !errors.As(err, &e) || e.Cause != mmapio.CauseBeyondEOF || e.Op != op || e.Off != off || e.Len != n {
					t.Fatalf("%s: %v", op, err)
				}
				for _, want := range []string{fmt.Sprintf("now %d bytes long, %d are mapped", 3*pg+100, 6*pg), "Refresh"} {
					if !strings.Contains(e.Error(), want) {
						t.Errorf("%q does not say %q", e, want)
					}
				}
			}
			fails(f.LockAll, "lockall", 0, 6*pg)
			holds(t, f, "......")
			check(t, f.Lock(pg, 1))
			fails(func() error { return f.Lock(2*pg, 2*pg+1) }, "lock", 2*pg, 2*pg+1)
			fails(func() error { return f.Lock(5*pg, 1) }, "lock", 5*pg, 1)
			fails(f.LockAll, "lockall", 0, 6*pg)
			holds(t, f, ".#....")
			if got := prove.VmLck(t, 0) - before; got != pg {
				t.Errorf("VmLck has grown by %d, want %d", got, pg)
			}
			check(t, f.Lock(2*pg, pg+100))
			holds(t, f, ".###..")
		})
	}
}

// The same where several windows are locked already.
func TestProofLockBeyondEOFManyWindows(t *testing.T) {
	const n = 40 << 20
	needLock(t, n)
	prove.Need(t, prove.Pagemap)
	path := writeFile(t, 0)
	check(t, os.Truncate(path, n))
	f := openFile(t, path, nil)
	check(t, f.Lock(20<<20, 2*pg))
	truncated(t, path, n-pg)
	var e *mmapio.LockError
	if err := f.LockAll(); !errors.As(err, &e) || e.Cause != mmapio.CauseBeyondEOF {
		t.Fatal(err)
	}
	want := make([]bool, n/pg)
	want[20<<20/pg], want[20<<20/pg+1] = true, true
	holdsPages(t, f, want)
	if _, err := f.ReadAt(make([]byte, 1), n-pg); !errors.As(err, new(*mmapio.FaultError)) || errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
}
