package mmapio_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// cutAndRegrow is what others do to a file whose pages are mapped.
func cutAndRegrow(t testing.TB, path string, at, size int64) {
	t.Helper()
	check(t, os.Truncate(path, at))
	check(t, os.Truncate(path, size))
}

// What VerifyLocked finds to be no longer there is not known to be in memory.
func TestLostPagesAreForgotten(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Verify)
	needLocks(t)
	t.Cleanup(mmapio.KnownFor(time.Hour, time.Hour))
	for _, mode := range []mmapio.Mode{mmapio.ReadOnly, mmapio.ReadWrite} {
		path, _ := patternFile(t, 4*pageSize)
		f := mustOpen(t, path, &mmapio.Options{Mode: mode})
		check(t, f.LockAll())
		check(t, f.View(0, f.Size(), touchSlice))
		if load, _ := f.Known(0, int(f.Size())); !load {
			t.Fatal("locked pages are not known")
		}
		cutAndRegrow(t, path, pageSize, 4*pageSize)
		if err := f.VerifyLocked(0, f.Size()); err == nil {
			t.Fatal("VerifyLocked finds nothing")
		}
		for p := int64(1); p < 4; p++ {
			if load, _ := f.Known(p*pageSize, 1); load {
				t.Errorf("%v: page %d is known", mode, p)
			}
		}
		mustClose(t, f)
	}
}

// A lock that is gone costs no mappings any more.
func TestLostLockIsNotCounted(t *testing.T) {
	prove.Need(t, prove.Verify)
	needLocks(t)
	path, _ := patternFile(t, 8*pageSize)
	f := mustOpen(t, path, nil)
	before := mmapio.Splits()
	check(t, f.Lock(2*pageSize, 1))
	one := mmapio.Splits()
	check(t, f.Lock(5*pageSize, 1))
	check(t, unix.Munlock(memoryOf(t, f)[5*pageSize:6*pageSize]))
	if err := f.VerifyLocked(0, f.Size()); err == nil {
		t.Fatal("VerifyLocked finds nothing")
	}
	if now := mmapio.Splits(); now != one || one <= before {
		t.Errorf("%d mappings, %d with one page locked and %d with none", now, one, before)
	}
}

// A page that somebody unlocks while a lock is under way is locked by it, and not
// only in the books.
func TestLostWhileLocking(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Verify, prove.Advice)
	n := max(32*pageSize, 128<<10) // in windows
	needLockOf(t, 2*n)
	path, _ := patternFile(t, n)
	f := mustOpen(t, path, nil)
	held := 0
	defer mmapio.SetFailpoint(func(step string) error {
		if step != "hold" {
			return nil
		}
		if held++; held == 1 {
			check(t, unix.Munlock(memoryOf(t, f)[2*pageSize:3*pageSize]))
			if err := f.VerifyLocked(0, n); err == nil {
				t.Error("VerifyLocked finds nothing")
			}
		}
		return nil
	})()
	check(t, f.Lock(0, n))
	if held < 2 {
		t.Errorf("%d windows, want another try", held)
	}
	prove.AssertHeld(t, memoryOf(t, f))
}

// To Refresh brings nothing in that is only locked once it is touched.
func TestRefreshLeavesOnFault(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Advice)
	needLocks(t)
	path, _ := patternFile(t, 8*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Prefault: -1})
	check(t, f.LockContext(t.Context(), 0, f.Size(), &mmapio.LockOptions{OnFault: true}))
	for range 2 {
		cutAndRegrow(t, path, 3*pageSize, 8*pageSize)
		_, err := f.Refresh()
		check(t, err)
		if got := prove.PresentPages(t, memoryOf(t, f)); prove.Count(got) != 0 {
			t.Errorf("pages %v are mapped in, want none", got)
		}
	}
}

// What Refresh cannot bring in again is missed by the next Lock.
func TestRefreshUnreadableIsMissed(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Verify)
	needLocks(t)
	disk := slowfs.Start(t, slowfs.Options{})
	disk.AddData("f", pattern(4*pageSize, 1))
	f := mustOpen(t, disk.Path("f"), nil)
	check(t, f.LockAll())
	cutAndRegrow(t, disk.Path("f"), pageSize, 4*pageSize)
	readable := disk.FailReads("f", 0, 0, unix.EIO)
	_, err := f.Refresh()
	check(t, err)
	readable()
	check(t, f.LockAll())
	prove.AssertHeld(t, memoryOf(t, f))
}

// Pages that are locked after it was looked whether any is do not leave.
func TestPageOutLockedMeanwhile(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	const size = 4 << 20
	needLockOf(t, size)
	path, _ := patternFile(t, size)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	wrote := 0
	defer mmapio.SetFailpoint(func(step string) error {
		if step == "write out" {
			wrote++
			check(t, f.Lock(5*pageSize, 3*pageSize))
		}
		return nil
	})()
	if err := f.Advise(0, size, mmapio.AdvicePageOut); !errors.Is(err, mmapio.ErrBusy) || wrote != 1 {
		t.Errorf("%v, written out %d times", err, wrote)
	}
	prove.AssertHeld(t, memoryOf(t, f)[5*pageSize:8*pageSize])
}
