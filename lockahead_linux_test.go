package mmapio_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// A lock reaches ahead of its windows as far as nothing is mapped in, and no further:
// mlock2(2) of what is there holds up whoever changes the address space.
func TestLockReachesAhead(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Pagemap, prove.Scan)
	const size = 512 * mib
	path := fileOf(t, 0)
	check(t, os.Truncate(path, 3*size))
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	is := func(hi, end, want int64) {
		t.Helper()
		if got := mmapio.EmptyUpTo(f, hi, end); got != want {
			t.Errorf("of [%d, %d): up to %d, want %d", hi, end, got, want)
		}
	}
	is(2*mib, 3*size, 2*mib+2*size) // so many page tables may be there
	is(2*mib, size, size)
	is(2*mib, size-5*pageSize, size-5*pageSize)
	is(2*mib, 66*mib, 66*mib)
	is(2*mib, 66*mib-1, 2*mib) // not worth it
	check(t, f.View(301*mib, 1, touchSlice))
	is(2*mib, size, 300*mib) // no huge page is taken apart
	is(2*mib, 301*mib, 301*mib)
	is(302*mib, size, size)
	is(250*mib, size, 250*mib)
	is(300*mib, size, 300*mib)
	check(t, f.Populate(t.Context(), 0, size))
	is(2*mib, size, 2*mib)
	is(300*mib, size, 300*mib)
}

// One look at the page cache is about many windows, until it finds something missing.
func TestCachedFrom(t *testing.T) {
	prove.Need(t, prove.Cachestat, prove.Disk, prove.Pagemap)
	path, _ := patternFile(t, 8*mib)
	f := mustOpen(t, path, nil)
	dropCache(t, path)
	if got, want := mmapio.CachedFrom(f, 8*mib, mib, 0, 0), []int64{-1, -1}; !slices.Equal(got, want) {
		t.Errorf("of what is not there: %v, want %v", got, want)
	}
	check(t, f.Populate(t.Context(), 0, 8*mib))
	if got, want := mmapio.CachedFrom(f, 7*mib+1, 2*mib, 0, 2*mib, 6*mib, 7*mib), []int64{2 * mib, 4 * mib, 7*mib + 1, 7*mib + 1}; !slices.Equal(got, want) {
		t.Errorf("of what is there: %v, want %v", got, want)
	}
	if got, want := mmapio.CachedFrom(f, 10*mib, 2*mib, 5*mib, 7*mib, 5*mib), []int64{7 * mib, -1, -1}; !slices.Equal(got, want) {
		t.Errorf("of what is there in part: %v, want %v", got, want)
	}
}

// To lock a mapping on fault of which next to nothing is there takes one mlock2(2) for
// each GiB, not one for each window; whatever is there, all of it is locked.
func TestProofLockOnFaultOfSparse(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Pagemap, prove.Scan)
	size := int64(1) << 36
	if strconv.IntSize == 32 {
		size = 1 << 30
	}
	needLockOf(t, size)
	path := filepath.Join(t.TempDir(), "f")
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: size, Sparse: true})
	for _, touched := range []int64{-1, 0, size / 2, size - 1} {
		if touched >= 0 {
			check(t, f.View(touched, 1, touchSlice))
		}
		before := prove.VmLck(t, 0)
		calls := prove.CountCalls(t, "mlock2", func() {
			check(t, f.LockContext(t.Context(), 0, size, &mmapio.LockOptions{OnFault: true}))
		})
		if gib := int(size >> 30); calls > gib+10 {
			t.Errorf("%d times mlock2(2) for %d GiB", calls, gib)
		}
		if got := prove.VmLck(t, 0) - before; got != size || f.LockedBytes() != size {
			t.Errorf("VmLck has grown by %d, LockedBytes is %d", got, f.LockedBytes())
		}
		check(t, f.VerifyLocked(0, size))
		check(t, f.UnlockAll())
		if got := prove.VmLck(t, 0); got != before {
			t.Errorf("VmLck is %d after the unlock, was %d", got, before)
		}
	}
}

// What is locked ahead is the call's own like the rest: to unlock it meanwhile takes
// nothing away from it, also after a shrink and a regrowth have made it begin anew.
func TestProofLockAheadIsOwn(t *testing.T) {
	const size = 1 << 30
	f := aheadFile(t, size)
	before := prove.VmLck(t, 0)
	tries, windows := 0, 0
	check(t, f.LockContext(t.Context(), 0, size, &mmapio.LockOptions{OnFault: true, Progress: func(done, total int64) {
		if windows++; done <= 2*mib {
			tries++
		}
		switch windows {
		case 2:
			mustResize(t, f, pageSize)
			mustResize(t, f, size)
			if tries != 1 {
				t.Error("begun anew before that")
			}
			return
		case 1:
		default:
			if tries != 2 {
				return
			}
		}
		check(t, f.Unlock(0, size))
		if got := prove.VmLck(t, 0) - before; got != size {
			t.Errorf("try %d, %d bytes done, and unlocked: VmLck has grown by %d", tries, done, got)
		}
	}}))
	if tries != 2 {
		t.Errorf("%d tries, want 2", tries)
	}
	if got := f.LockedBytes(); got != size {
		t.Errorf("%d bytes are locked", got)
	}
}

// aheadFile makes a File of nothing but holes, which can be made smaller in place, for
// locks that reach ahead.
func aheadFile(t *testing.T, size int64) *mmapio.File {
	t.Helper()
	prove.Need(t, prove.Advice, prove.Pagemap, prove.Scan)
	needLockOf(t, size)
	return mustOpen(t, filepath.Join(t.TempDir(), "f"),
		&mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: size, Sparse: true, Reserve: size})
}

// What is locked ahead is neither brought in before its turn, nor said to be there:
// who has locked it on fault meets no complaint.
func TestProofLockAheadPromisesNothing(t *testing.T) {
	const size = 256 * mib
	f := aheadFile(t, size)
	for _, onFault := range []bool{false, true} {
		check(t, f.UnlockAll())
		check(t, f.Advise(0, size, mmapio.AdviceDontNeed))
		if onFault {
			check(t, f.LockContext(t.Context(), 0, size, &mmapio.LockOptions{OnFault: true}))
		}
		first := true
		check(t, f.LockContext(t.Context(), 0, size, &mmapio.LockOptions{Progress: func(done, total int64) {
			if there := int64(len(presentPages(t, f))) * pageSize; first && there > 4*done {
				t.Errorf("%d bytes are done, and %d there", done, there)
			}
			first = false
			if done < 200*mib && onFault {
				if err := f.VerifyLocked(240*mib, pageSize); err != nil {
					t.Errorf("%d bytes are done: %v", done, err)
				}
			}
		}}))
		check(t, f.VerifyLocked(0, size))
	}
}

// After a shrink and a regrowth ahead of the window the others lock anew: no unlock
// takes that away, and nothing is taken for locked that left meanwhile.
func TestProofLockAheadOfCut(t *testing.T) {
	const size = 256 * mib
	f := aheadFile(t, size)
	cut := func(then func(done int64)) func(done, total int64) {
		first := true
		return func(done, total int64) {
			if first {
				mustResize(t, f, done)
				mustResize(t, f, size)
			}
			first = false
			then(done)
		}
	}
	check(t, f.LockContext(t.Context(), 0, size, &mmapio.LockOptions{OnFault: true, Progress: cut(func(done int64) {
		before := f.LockedBytes()
		check(t, f.Unlock(0, size))
		if now := f.LockedBytes(); now < before {
			t.Errorf("%d bytes are done: an unlock of what is not locked took %d of %d", done, before-now, before)
		}
	})}))
	check(t, f.UnlockAll())

	armed := false
	t.Cleanup(mmapio.SetFailpoint(func(step string) error {
		if step == "hold" && armed {
			armed = false
			const at = 2*mib + 64<<10
			check(t, f.Unlock(at, pageSize))
			_ = unix.Madvise(memoryOf(t, f)[at:at+pageSize], unix.MADV_DONTNEED) // not while it is locked
			check(t, f.LockContext(t.Context(), at, pageSize, &mmapio.LockOptions{OnFault: true}))
		}
		return nil
	}))
	once := sync.OnceFunc(func() { armed = true })
	check(t, f.LockContext(t.Context(), 0, size, &mmapio.LockOptions{Progress: cut(func(int64) { once() })}))
	if armed {
		t.Error("nothing came in between")
	}
	check(t, f.VerifyLocked(0, size))
}

// A lock reaches no further than the File.
func TestProofLockAheadOfEnd(t *testing.T) {
	const size = 256 * mib
	f := aheadFile(t, size)
	before, calls, most := prove.VmLck(t, 0), 0, int64(0)
	check(t, f.View(20*mib, 1, touchSlice)) // so that the lock reaches ahead beyond it, and not at once
	var re *mmapio.RangeError
	err := f.LockContext(t.Context(), 0, size, &mmapio.LockOptions{OnFault: true, Progress: func(done, total int64) {
		if calls++; calls == 1 {
			mustResize(t, f, 128*mib)
		}
		most = max(most, prove.VmLck(t, 0)-before)
	}})
	if !errors.As(err, &re) || most < 64*mib || most > 128*mib {
		t.Errorf("%v, after %d MiB were locked", err, most/mib)
	}
	if got := prove.VmLck(t, 0); got != before {
		t.Errorf("VmLck is %d at last, was %d", got, before)
	}
}

// What was locked ahead of the window that fails goes, and what others hold there
// stays.
func TestProofLockAheadFails(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Pagemap, prove.Scan)
	const size = 256 * mib
	needLockOf(t, size)
	path := fileOf(t, 0)
	check(t, os.Truncate(path, size))
	f := mustOpen(t, path, nil)
	p := pin(t, f, 200*mib, 2*pageSize)
	truncated(t, path, 210*mib)
	var e *mmapio.LockError
	if err := f.LockAll(); !errors.As(err, &e) || e.Cause != mmapio.CauseBeyondEOF {
		t.Fatal(err)
	}
	want := make([]bool, size/pageSize)
	want[200*mib/pageSize], want[200*mib/pageSize+1] = true, true
	prove.AssertHeldPages(t, memoryOf(t, f), want)
	release(t, p)
	prove.AssertHeldPages(t, memoryOf(t, f), make([]bool, size/pageSize))
}
