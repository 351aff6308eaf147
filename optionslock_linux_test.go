package mmapio_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// A lockKind is a way to open something with Options.Lock, and to make it grow.
type lockKind struct {
	name string
	o    mmapio.Options
	anon bool
	mapf bool // by Map
	both bool // also shrinks
}

func lockKinds() []lockKind {
	ps := pageSize
	return []lockKind{
		{name: "ReadOnly"},
		{name: "ReadOnly Reserve", o: mmapio.Options{Reserve: 60 * ps}},
		{name: "ReadWrite", o: mmapio.Options{Mode: mmapio.ReadWrite}, both: true},
		{name: "ReadWrite Offset", o: mmapio.Options{Mode: mmapio.ReadWrite, Offset: ps + 77}, both: true},
		{name: "ReadWrite Reserve", o: mmapio.Options{Mode: mmapio.ReadWrite, Reserve: 60 * ps}, both: true},
		{name: "ReadWrite Reserve exceeded", o: mmapio.Options{Mode: mmapio.ReadWrite, Reserve: 12 * ps}, both: true},
		{name: "ReadWrite Sparse", o: mmapio.Options{Mode: mmapio.ReadWrite, Sparse: true}, both: true},
		{name: "Map", o: mmapio.Options{Mode: mmapio.ReadWrite}, mapf: true, both: true},
		{name: "CopyOnWrite", o: mmapio.Options{Mode: mmapio.CopyOnWrite, Offset: 5}},
		{name: "CopyOnWrite Reserve", o: mmapio.Options{Mode: mmapio.CopyOnWrite, Reserve: 60 * ps}},
		{name: "Anonymous", anon: true, both: true},
		{name: "Anonymous Reserve", o: mmapio.Options{Reserve: 60 * ps}, anon: true, both: true},
	}
}

func (k *lockKind) open(t testing.TB, path string, size int64, lock mmapio.LockMode) *mmapio.File {
	t.Helper()
	o := k.o
	o.Lock = lock
	switch {
	case k.anon:
		return opened(t)(mmapio.Anonymous(size, &o))
	case k.mapf:
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		check(t, err)
		defer file.Close()
		return opened(t)(mmapio.Map(file, &o))
	}
	return mustOpen(t, path, &o)
}

// grow makes the File as large as that, by whichever way there is.
func (k *lockKind) grow(t testing.TB, f *mmapio.File, size int64) {
	t.Helper()
	if k.both {
		mustResize(t, f, size)
		return
	}
	check(t, appendTo(f.Name(), pattern(size-f.Size(), size)))
	if got, err := f.Refresh(); got != size || err != nil {
		t.Fatalf("Refresh: %d, %v, want %d", got, err, size)
	}
}

// heldAs wants the bytes of each range locked, and with now in RAM, and no
// other page locked.
func heldAs(t testing.TB, what string, f *mmapio.File, now bool, ranges ...mmapio.Range) {
	t.Helper()
	b := memoryOf(t, f)
	if len(b) == 0 {
		return
	}
	locked, present := prove.LockedPages(t, b), prove.PresentPages(t, b)
	for i := range locked {
		from, to := pageOf(b, i)
		want := false
		for _, r := range ranges {
			want = want || r.Off < to && from < r.Off+r.Len
		}
		if locked[i] != want || now && want && !present[i] {
			t.Fatalf("%s: page %d of %d is locked: %v, in RAM: %v; to be locked: %v", what, i, len(locked), locked[i], present[i], want)
		}
		if err := f.VerifyLocked(from, to-from); (err == nil) != want {
			t.Fatalf("%s: page %d of %d, VerifyLocked: %v; to be locked: %v", what, i, len(locked), err, want)
		}
	}
}

// What the option locks: all that is mapped, and all that is added, whatever
// was done to earlier parts. What a shrink cuts off is forgotten.
func TestProofOptionsLock(t *testing.T) {
	needLockOf(t, 64*pageSize)
	prove.Need(t, prove.Pagemap)
	prove.LeakCheck(t)
	for _, k := range lockKinds() {
		for _, mode := range []mmapio.LockMode{mmapio.LockNow, mmapio.LockOnFault} {
			for _, at := range []int64{0, 3 * pageSize, 5*pageSize + 9} {
				t.Run(fmt.Sprint(k.name, " ", mode, " ", at), func(t *testing.T) { optionLocks(t, k, mode, at) })
			}
		}
	}
}

func optionLocks(t *testing.T, k lockKind, mode mmapio.LockMode, size int64) {
	path, now := fileOf(t, k.o.Offset+size), mode == mmapio.LockNow
	f := k.open(t, path, size, mode)
	all := func() mmapio.Range { return mmapio.Range{Len: f.Size()} }
	heldAs(t, "opened", f, now, all())
	// In the same page, in the next, and far beyond.
	for _, more := range []int64{1, pageSize - 10, pageSize, 20 * pageSize} {
		k.grow(t, f, f.Size()+more)
		heldAs(t, fmt.Sprint("grown by ", more), f, now, all())
	}
	if !now {
		check(t, f.VerifyLocked(0, f.Size()))
		if present := prove.PresentPages(t, memoryOf(t, f)); k.anon && prove.Count(present) != 0 {
			t.Errorf("%d pages of memory came in before they were touched", prove.Count(present))
		}
	}
	check(t, f.UnlockAll())
	heldAs(t, "unlocked", f, now)
	was := f.Size()
	k.grow(t, f, was+3)
	heldAs(t, "grown after Unlock", f, now, mmapio.Range{Off: was, Len: 3})
	k.grow(t, f, was+2*pageSize)
	heldAs(t, "grown again", f, now, mmapio.Range{Off: was, Len: 2 * pageSize})
	if k.both {
		check(t, f.Lock(0, 1))
		mustResize(t, f, 2*pageSize+1)
		heldAs(t, "shrunk", f, now, mmapio.Range{Len: 1})
		mustResize(t, f, 4*pageSize)
		heldAs(t, "grown after the shrink", f, now, mmapio.Range{Len: 1}, mmapio.Range{Off: 2*pageSize + 1, Len: 2*pageSize - 1})
		mustResize(t, f, 0)
		mustResize(t, f, pageSize+1)
		heldAs(t, "grown from nothing", f, now, all())
	}
	mustClose(t, f)
}

// A File without descriptor is locked like any other.
func TestProofOptionsLockDropFD(t *testing.T) {
	needLockOf(t, 4*pageSize)
	f := mustOpen(t, fileOf(t, 4*pageSize), &mmapio.Options{Lock: mmapio.LockNow, DropFD: true})
	holds(t, f, "####")
}

// Nobody ever sees bytes that are not locked yet.
func TestProofOptionsLockBeforeSize(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	prove.Need(t, prove.Advice)
	needLockOf(t, 300*pageSize)
	for _, k := range lockKinds() {
		if !k.both {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			f := k.open(t, fileOf(t, k.o.Offset), 0, mmapio.LockNow)
			var stop atomic.Bool
			var resizes, seen atomic.Int64 // how many, and the last size looked at
			done := make(chan bool)
			go func() {
				defer close(done)
				for !stop.Load() {
					n, size := resizes.Load(), f.Size()
					if size == seen.Load() {
						continue
					}
					err := f.View(size-1, 1, func(b []byte) error {
						// The next Resize may have taken the lock elsewhere by now.
						if locked := probe(t, b)[0]; !locked && resizes.Load() == n && size == n*pageSize/2 {
							t.Errorf("of %d bytes the last is not locked", size)
						}
						return nil
					})
					if err != nil && !errors.Is(err, mmapio.ErrBusy) {
						t.Error(err)
					}
					seen.Store(size)
				}
			}()
			for i := range int64(200) {
				resizes.Add(1)
				if err := f.Resize((i + 1) * pageSize / 2); err != nil && !errors.Is(err, mmapio.ErrBusy) {
					t.Error(err)
				}
				// On a busy machine all might be over before anybody looks.
				for i%20 == 0 && seen.Load() != f.Size() {
					runtime.Gosched()
				}
			}
			stop.Store(true)
			<-done
		})
	}
}

// lockOption is a process that may lock 64 pages.
var lockOption = prove.Register("lock-option", func(args []string) int {
	t, dir := prove.T(), args[0]
	ps := pageSize
	limited := func(what string, err error, op string, off, n int64) {
		t.Helper()
		var e *mmapio.LockError
		if !errors.As(err, &e) || e.Cause != mmapio.CauseLimit || e.Op != op || e.Off != off || e.Len != n {
			t.Errorf("%s: %v, want a limit, %s [%d, %d)", what, err, op, off, off+n)
		}
	}
	path := filepath.Join(dir, "file")

	// The open: no file is left, none is longer, none has more blocks.
	for _, mode := range []mmapio.LockMode{mmapio.LockNow, mmapio.LockOnFault} {
		o := mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: 100 * ps, Lock: mode}
		_, err := mmapio.OpenFile(path, &o)
		limited("create", err, "open", 0, 100*ps)
		mustNotExist(t, path)
		check(t, os.WriteFile(path, pattern(3*ps+5, 1), 0o600))
		length, blocks := sizeOnDisk(t, path), blocksOf(t, path)
		_, err = mmapio.OpenFile(path, &o)
		limited("open", err, "open", 0, 100*ps)
		if sizeOnDisk(t, path) != length || blocksOf(t, path) != blocks {
			t.Errorf("%d bytes in %d blocks, were %d in %d", sizeOnDisk(t, path), blocksOf(t, path), length, blocks)
		}
		same(t, "the file", onDisk(t, path), pattern(3*ps+5, 1))
		_, err = mmapio.Anonymous(65*ps, &mmapio.Options{Lock: mode})
		limited("anonymous", err, "anonymous", 0, 65*ps)
		check(t, os.Remove(path))
	}
	if n := prove.VmLck(t, 0); n != 0 {
		t.Errorf("VmLck is %d", n)
	}

	for _, k := range lockKinds() {
		for _, mode := range []mmapio.LockMode{mmapio.LockNow, mmapio.LockOnFault} {
			what := fmt.Sprint(k.name, " ", mode)
			size := 10*ps + 11
			check(t, os.WriteFile(path, pattern(k.o.Offset+size, 1), 0o600))
			f := k.open(t, path, size, mode)
			check(t, f.Unlock(size-5, 5)) // the last page is one that a growth has to lock
			disk := path
			if k.anon {
				disk = ""
			}
			if !k.both {
				check(t, appendTo(path, pattern(90*ps, 2)))
			}
			was := standOf(t, f, disk)
			var err error
			if k.both {
				err = f.Resize(100*ps + 11)
			} else {
				_, err = f.Refresh()
			}
			limited(what, err, map[bool]string{true: "resize", false: "refresh"}[k.both], size, 90*ps)
			was.unchanged(t, what, f, disk)
			// What fits is added.
			if k.both {
				mustResize(t, f, 60*ps)
			} else {
				check(t, os.Truncate(path, k.o.Offset+60*ps))
				_, err := f.Refresh()
				check(t, err)
			}
			heldAs(t, what, f, mode == mmapio.LockNow, mmapio.Range{Len: 60 * ps})
			mustClose(t, f)
		}
	}
	return 0
})

// What cannot be locked is not opened and not added, and nothing is left of it.
func TestProofOptionsLockUndone(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Scan)
	needLockOf(t, 64*pageSize)
	dir := prove.PublicDir(t)
	if r := lockOption.Run(t, asUser(prove.Args(dir), prove.Memlock(uint64(64*pageSize)))...); r.Code != 0 {
		t.Error(r)
	}
}

// An option is refused where it means nothing.
func TestOptionsLockRefused(t *testing.T) {
	path := fileOf(t, 1)
	for _, lock := range []mmapio.LockMode{-1, mmapio.LockOnFault + 1} {
		_, err := mmapio.OpenFile(path, &mmapio.Options{Lock: lock})
		wantOptionError(t, err, "open", path, "Lock", fs.ErrInvalid)
	}
}

// The page that a growth shares with what was there is brought in like any other
// in a File that was advised to be read at random.
func TestOptionsLockOfRandomGrows(t *testing.T) {
	prove.NeedE2E(t, prove.Pagemap, prove.Disk, prove.Root)
	path := prove.NewFile(t, prove.DiskDir(t), "f", pageSize+9)
	f := mustOpen(t, path, &mmapio.Options{Lock: mmapio.LockNow})
	check(t, f.UnlockAll())
	check(t, f.Advise(0, f.Size(), mmapio.AdviceRandom))
	check(t, os.Truncate(path, 3*pageSize))
	check(t, f.Advise(0, f.Size(), mmapio.AdviceDontNeed))
	prove.DropCaches(t)
	_, err := f.Refresh()
	check(t, err)
	wantLocked(t, "after Refresh", f, 0, []mmapio.Range{{Off: pageSize + 9, Len: 2*pageSize - 9}})
}

// A growth that fails lets go of the page that it began in.
func TestOptionsLockLetsGo(t *testing.T) {
	needLockOf(t, 8*pageSize)
	f := mustOpen(t, fileOf(t, 4*pageSize+100), &mmapio.Options{Mode: mmapio.ReadWrite, Lock: mmapio.LockNow})
	check(t, f.UnlockAll())
	restore := mmapio.SetFailpoint(func(step string) error {
		if step == "lock tail" {
			return errInjected
		}
		return nil
	})
	err := f.Resize(8 * pageSize)
	restore()
	if err == nil {
		t.Error("it grows")
	}
	wantLockedBytes(t, f, 0)
}

// A File that locks nothing but what is added to it is known to those who cut the
// file.
func TestOptionsLockIsKnown(t *testing.T) {
	needLockOf(t, 8*pageSize)
	f := mustOpen(t, fileOf(t, 0), &mmapio.Options{Mode: mmapio.ReadWrite, Lock: mmapio.LockNow, Reserve: 8 * pageSize})
	mustResize(t, f, 4*pageSize)
	known := mmapio.Siblings()
	mustClose(t, f)
	if n := known - mmapio.Siblings(); n < 1 {
		t.Error("Close has nothing to forget")
	}
}
