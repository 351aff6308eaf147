package mmapio_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// dirty makes the pages of a part of a private File its own.
func dirty(t testing.TB, f *mmapio.File, off, n int64) {
	t.Helper()
	check(t, f.Update(off, n, func(b []byte) error {
		for i := range b {
			b[i] = byte(i * 7) // not what any compression of swap makes nothing of
		}
		return nil
	}))
}

const fewMaps = 3000

// comb locks every other page until that is refused, and unlocks every other
// page of what is locked whole.
var comb = prove.Register("comb", func(args []string) int {
	t := prove.T()
	f := opened(t)(mmapio.Anonymous(fewMaps*pageSize, nil))
	b, want := memoryOf(t, f), make([]bool, fewMaps)
	// look compares pages without printing thousands of mappings.
	look := func(when string) {
		locked, present := prove.LockedPages(t, b), prove.PresentPages(t, b)
		for i := range want {
			if locked[i] != want[i] || want[i] && !present[i] {
				t.Fatalf("%s: page %d is to be held: %v, is locked: %v, present: %v", when, i, want[i], locked[i], present[i])
			}
		}
	}
	// live does what ends a Go program that can have no more mappings.
	live := func(when string) {
		if n := len(prove.Mappings(t, b)) - 1; n > fewMaps/2 || n < fewMaps/2-2 {
			t.Errorf("%s: locks take %d mappings, half of vm.max_map_count is %d", when, n, fewMaps/2)
		}
		done := make(chan bool)
		for range 50 {
			go func() {
				runtime.LockOSThread() // and never unlock it: each needs a thread and its stack
				done <- len(make([]byte, 4*mib)) > 0
			}()
		}
		for range 50 {
			<-done
		}
		runtime.GC()
	}
	refused := func(err error) {
		t.Helper()
		var e *mmapio.LockError
		text := fmt.Sprintf("would be in use for them, half of vm.max_map_count (%d) is allowed", fewMaps)
		if !errors.As(err, &e) || e.Cause != mmapio.CauseMapCount || !errors.Is(err, syscall.ENOMEM) || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %q", err, text)
		}
	}

	var err error
	for i := int64(0); i < fewMaps && err == nil; i += 2 {
		err = f.Lock(i*pageSize, pageSize)
		want[i] = err == nil
	}
	refused(err)
	live("locked")
	look("locked")
	check(t, f.Unlock(2*pageSize, pageSize)) // makes room for another
	check(t, f.Lock((fewMaps-9)*pageSize, pageSize))
	refused(f.Lock((fewMaps-5)*pageSize, pageSize))
	want[2], want[fewMaps-9] = false, true
	look("refused")
	check(t, f.LockAll()) // takes fewer mappings, not more
	for i := range want {
		want[i] = true
	}
	look("locked whole")

	// At the wall an unlock keeps what it cannot cut out, and says so …
	for i := int64(0); i < fewMaps; i += 2 {
		check(t, f.Unlock(i*pageSize, pageSize))
	}
	live("unlocked")
	clear(want)
	for _, r := range f.LockedRanges() {
		for i := r.Off / pageSize; i < (r.Off+r.Len)/pageSize; i++ {
			want[i] = true
		}
	}
	look("unlocked")
	if n := prove.Count(want); n < fewMaps/2+500 || want[0] || !want[1] {
		t.Errorf("%d of %d pages are held", n, fewMaps)
	}
	// … until others make room.
	for i := int64(1); i < fewMaps; i += 2 {
		check(t, f.Unlock(i*pageSize, pageSize))
	}
	clear(want)
	look("all unlocked")
	prove.Mapping(t, b) // one again
	// From then on there is nothing left that could not be cut out.
	check(t, f.Lock(0, 5*pageSize))
	check(t, f.Unlock(2*pageSize, pageSize))
	want[0], want[1], want[3], want[4] = true, true, true, true
	look("unlocked in the middle")
	check(t, f.Close())

	// Pins of pages that are known to be in memory are made side by side.
	f = mustOpen(t, args[0], nil)
	b = memoryOf(t, f)
	check(t, f.Populate(t.Context(), 0, f.Size()))
	err = nil
	for i := int64(1); i < fewMaps && err == nil; i += 2 {
		_, err = f.Pin(i*pageSize, pageSize)
	}
	refused(err)
	live("pinned")
	return 0
})

// Locks in separate places need a mapping each. They are refused at half of
// what a process may have: at the whole of it Go itself dies.
func TestProofLockMapCount(t *testing.T) {
	prove.NeedE2E(t, prove.SysctlRW, prove.Pagemap)
	prove.Sysctl(t, "vm.max_map_count", strconv.Itoa(fewMaps))
	path, _ := patternFile(t, fewMaps*pageSize)
	if res := comb.Run(t, prove.Timeout(3*time.Minute), prove.Args(path)); res.Code != 0 {
		t.Error(res)
	}
}

// crowd tries to lock more than its cgroup has room for.
var crowd = prove.Register("crowd", func(args []string) int {
	const n = 96 * mib
	t := prove.T()
	if args[0] == "plain" {
		b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		check(t, err)
		fmt.Println("mlock", unix.Mlock(b))
		return 0
	}
	check(t, os.Truncate(args[1], n))
	for _, f := range []*mmapio.File{
		opened(t)(mmapio.Anonymous(n, nil)), mustOpen(t, args[1], &mmapio.Options{Mode: mmapio.ReadOnly}), mustOpen(t, args[1], &mmapio.Options{Mode: mmapio.ReadWrite}), mustOpen(t, args[1], &mmapio.Options{Mode: mmapio.CopyOnWrite}),
	} {
		want := make([]bool, n/pageSize)
		for i := range 8 * mib / pageSize {
			want[i] = true
		}
		check(t, f.Lock(0, 8*mib))
		var e *mmapio.LockError
		err := f.LockAll()
		if !errors.As(err, &e) || e.Cause != mmapio.CauseCgroup || !errors.Is(err, syscall.ENOMEM) {
			t.Fatal(err)
		}
		for _, text := range []string{args[2], "(limit 67108864, in use ", "MemoryMax="} {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%q does not say %q", err, text)
			}
		}
		prove.AssertHeldPages(t, memoryOf(t, f), want)
		// Nothing was brought in that would have to stay, for want of swap.
		if r, err := f.Residency(0, n); f.Name() == "anonymous" && (err != nil || r.Resident != 8*mib/pageSize) {
			t.Errorf("after a refused lock: %+v, %v", r, err)
		}
		if f.Mode() == mmapio.ReadWrite {
			check(t, f.Resize(16*mib)) // waits for whoever is inside
			check(t, f.Resize(n))
		}
		check(t, f.Close())
	}
	// What is in memory already needs no more room.
	f := opened(t)(mmapio.Anonymous(40*mib, nil))
	dirty(t, f, 0, 40*mib)
	check(t, f.LockAll())
	prove.AssertHeld(t, memoryOf(t, f))
	return 0
})

// A cgroup answers with SIGKILL and not with an error, so what does not fit is
// not tried.
func TestProofLockCgroup(t *testing.T) {
	prove.NeedE2E(t, prove.MemCgroup, prove.Pagemap, prove.Disk)
	file := filepath.Join(prove.DiskDir(t), "f")
	check(t, os.WriteFile(file, nil, 0o600))
	c := prove.MemoryCgroup(t, 64*mib)
	if res := crowd.Run(t, prove.In(c), prove.Args("lock", file, c.Dir)); res.Code != 0 {
		t.Error(res)
	}
	if res := crowd.Run(t, prove.In(c), prove.Args("plain")); res.Signal != syscall.SIGKILL {
		t.Errorf("plain mlock(2): %v", res)
	}
}

// A page that cannot be read is an error at once, where mlock(2) spins in the
// kernel; all others can be locked.
func TestProofLockUnreadable(t *testing.T) {
	prove.NeedE2E(t, prove.FUSE, prove.Pagemap)
	const pages, bad = 64, 40
	slow := slowfs.Start(t, slowfs.Options{})
	slow.AddFile("f", pages*pageSize, slowfs.Offsets)
	for _, mode := range allModes {
		t.Run(mode.String(), func(t *testing.T) {
			slow.DropCache("f", 0, 0)
			heal := slow.FailReads("f", bad*pageSize, pageSize, syscall.EIO)
			f := mustOpen(t, slow.Path("f"), &mmapio.Options{Mode: mode})
			want := make([]bool, pages)
			for _, r := range []mmapio.Range{{0, pages * pageSize}, {bad*pageSize + 1, 1}, {(bad - 1) * pageSize, 3 * pageSize}} {
				began := time.Now()
				var e *mmapio.LockError
				err := f.Lock(r.Off, r.Len)
				if took := time.Since(began); !errors.As(err, &e) || !errors.Is(err, syscall.EIO) || took > time.Second {
					t.Fatalf("Lock(%d, %d): %v after %v", r.Off, r.Len, err, took)
				}
				text := fmt.Sprintf("lock %s [%d, %d): the page at offset %d cannot be read: input/output error", f.Name(), r.Off, r.Off+r.Len, bad*pageSize)
				if err.Error() != text || e.Cause != mmapio.CauseUnknown {
					t.Errorf("got %v, %v, want %s", e.Cause, err, text)
				}
				holdsPages(t, f, want)
				want[bad-1] = true
				check(t, f.Lock((bad-1)*pageSize, pageSize))
			}
			check(t, f.Lock(0, bad*pageSize))
			check(t, f.Lock((bad+1)*pageSize, (pages-bad-1)*pageSize))
			for i := range want {
				want[i] = i != bad
			}
			holdsPages(t, f, want)
			heal()
			check(t, f.LockAll())
			holds(t, f, strings.Repeat("#", pages))
		})
	}
}

// Without a descriptor the reason is found by name, and where the name leads to
// the file no more, what the kernel said stays.
func TestProofLockUnreadableDropFD(t *testing.T) {
	prove.NeedE2E(t, prove.FUSE, prove.Pagemap)
	prove.LeakCheck(t)
	const pages, bad = 8, 5
	slow := slowfs.Start(t, slowfs.Options{})
	for _, mode := range allModes {
		t.Run(mode.String(), func(t *testing.T) {
			name := "f" + mode.String()
			slow.AddFile(name, pages*pageSize, slowfs.Offsets)
			heal := slow.FailReads(name, bad*pageSize, pageSize, syscall.EIO)
			path := filepath.Join(t.TempDir(), "link")
			check(t, os.Symlink(slow.Path(name), path))
			f := mustOpen(t, path, &mmapio.Options{Mode: mode, DropFD: true})
			fails := func(when string, errno syscall.Errno, text string) {
				t.Helper()
				err := f.LockAll()
				var e *mmapio.LockError
				if text = fmt.Sprintf("the page at offset %d %s", bad*pageSize, text); !errors.As(err, &e) ||
					!errors.Is(err, errno) || e.Cause != mmapio.CauseUnknown || !strings.HasSuffix(err.Error(), text) {
					t.Errorf("%s: got %v, want unknown, %v: %s", when, err, errno, text)
				}
				holds(t, f, strings.Repeat(".", pages))
			}
			fails("named", syscall.EIO, "cannot be read: input/output error")
			gone := "cannot be brought in: bad address; without a descriptor of the file the reason cannot be found"
			check(t, os.Remove(path))
			fails("no name", syscall.EFAULT, gone)
			check(t, os.WriteFile(path, make([]byte, pages*pageSize), 0o600))
			fails("another file", syscall.EFAULT, gone)
			check(t, errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600))) // whoever opened it would wait
			fails("a FIFO", syscall.EFAULT, gone)
			check(t, errors.Join(os.Remove(path), os.Symlink(slow.Path(name), path)))
			fails("named again", syscall.EIO, "cannot be read: input/output error")
			heal()
			check(t, f.LockAll())
			holds(t, f, strings.Repeat("#", pages))
			mustClose(t, f)
		})
	}
}

// A read that failed once is gone by the time of the look: nothing is made up.
func TestProofLockReadFailedOnce(t *testing.T) {
	prove.NeedE2E(t, prove.FUSE, prove.Pagemap)
	for i := range 2 * len(allModes) {
		o := mmapio.Options{Mode: allModes[i/2], DropFD: i%2 == 1}
		t.Run(fmt.Sprint(o.Mode, " DropFD ", o.DropFD), func(t *testing.T) { readFailedOnce(t, &o) })
	}
}

func readFailedOnce(t *testing.T, o *mmapio.Options) {
	const pages, bad = 8, 5
	slow := slowfs.Start(t, slowfs.Options{ReadAhead: -1})
	// The kernel asks again by itself, 8 times or so: fail just as often.
	var f *mmapio.File
	var err error
	for times := 1; err == nil && times < 64; times++ {
		name := fmt.Sprint("f", times)
		slow.AddFile(name, pages*pageSize, slowfs.Offsets)
		slow.Add(slowfs.Rule{Op: slowfs.OpRead, Path: name, Off: bad * pageSize, Len: pageSize, Times: times, Err: syscall.EIO})
		f = mustOpen(t, slow.Path(name), o)
		err = f.LockAll()
	}
	var e *mmapio.LockError
	text := fmt.Sprintf("the page at offset %d could not be brought in: bad address; by now the file can be read there; try again, or open the file again", bad*pageSize)
	if !errors.As(err, &e) || e.Cause != mmapio.CauseUnknown || !errors.Is(err, syscall.EFAULT) || !strings.HasSuffix(err.Error(), text) {
		t.Errorf("got %v, want unknown, EFAULT: %s", err, text)
	}
	holds(t, f, strings.Repeat(".", pages))
	check(t, f.LockAll())
	holds(t, f, strings.Repeat("#", pages))
}
