package mmapio_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
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

// To look right after a change is not to have seen all of it: what is changed again
// may bear the same time.
func TestRefreshAfterTwoChanges(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	needLocks(t)
	path, _ := patternFile(t, 4*pageSize)
	f := mustOpen(t, path, nil)
	check(t, f.LockAll())
	now := time.Now().Add(time.Hour) // a clock that is ahead: this is not long ago, whenever it is looked
	for range 2 {
		cutAndRegrow(t, path, pageSize, 4*pageSize)
		check(t, os.Chtimes(path, now, now))
		_, err := f.Refresh()
		check(t, err)
		prove.AssertHeld(t, memoryOf(t, f))
	}
}

// A Resize to less than was mapped, of a file that others have cut to even less,
// brings back what stays, however far it is from where the file ends then.
func TestShrinkBringsBack(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	needLocks(t)
	size := 5000 * pageSize // more than two of the kernel's largest folios
	path, _ := patternFile(t, 4*pageSize)
	check(t, os.Truncate(path, size))
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Sparse: true})
	at := 1000 * pageSize // what is at the front comes in with the page that was cut
	check(t, f.Lock(at, 3*pageSize))
	check(t, os.Truncate(path, pageSize))
	mustResize(t, f, size-pageSize)
	prove.AssertHeld(t, memoryOf(t, f)[at:at+3*pageSize])
}

// Where locked pages reach an end of a File, the mapping ends anyway.
func TestEdgesCostNothing(t *testing.T) {
	needLocks(t)
	path, _ := patternFile(t, 8*pageSize)
	f := mustOpen(t, path, nil)
	before := mmapio.Splits()
	for _, c := range []struct{ off, n, want int64 }{
		{0, 8, 0}, {0, 1, 1}, {0, 7, 1}, {7, 1, 1}, {1, 7, 1}, {1, 6, 2},
	} {
		check(t, f.Lock(c.off*pageSize, c.n*pageSize))
		if got := mmapio.Splits() - before; got != c.want {
			t.Errorf("pages [%d, %d) cost %d mappings, want %d", c.off, c.off+c.n, got, c.want)
		}
		check(t, f.UnlockAll())
	}
}

// What is locked at the end of a File is in the middle of it when it has grown, and
// then there is one mapping more.
func TestEdgesCostAfterGrowth(t *testing.T) {
	needLocks(t)
	for _, o := range []mmapio.Options{
		{Mode: mmapio.ReadWrite},
		{Mode: mmapio.ReadWrite, Reserve: 64 * pageSize},
	} {
		path, _ := patternFile(t, 8*pageSize)
		f := mustOpen(t, path, &o)
		before := mmapio.Splits()
		check(t, f.Lock(7*pageSize, pageSize))
		for _, c := range []struct{ pages, want int64 }{{8, 1}, {20, 2}, {30, 2}} {
			mustResize(t, f, c.pages*pageSize)
			if got := mmapio.Splits() - before; got != c.want {
				t.Errorf("reserve %d, %d pages: one that is locked costs %d mappings, want %d", o.Reserve, c.pages, got, c.want)
			}
		}
		mustClose(t, f)
	}
}

// A shrink goes on only when the step is done that a long call is at.
func TestShrinkWaitsForPopulate(t *testing.T) {
	prove.Need(t, prove.Advice)
	disk := slowfs.Start(t, slowfs.Options{})
	disk.AddFile("f", 16*pageSize, slowfs.Offsets)
	f := mustOpen(t, disk.Path("f"), &mmapio.Options{Mode: mmapio.ReadWrite})
	defer mmapio.SetFailpoint(func(step string) error {
		if step == "length" && mmapio.InCall(f) {
			t.Error("the file is cut while a call is in its memory")
		}
		return nil
	})()
	goOn := disk.Hold(slowfs.OpRead, "f")
	populated, shrunk := make(chan error, 1), make(chan error, 1)
	go func() { populated <- f.Populate(t.Context(), 0, f.Size()) }()
	disk.WaitHeld(1)
	go func() { shrunk <- f.Resize(8 * pageSize) }()
	waitFor(t, "the shrink", func() bool { return mmapio.Excludes(f) })
	goOn()
	check(t, <-shrunk)
	<-populated // with an error or without: it gives way
}

// The first byte behind the end of a file is as far from it as all others.
func TestLockRightBehindTheEnd(t *testing.T) {
	prove.Need(t, prove.Advice, prove.FileEnd)
	needLocks(t)
	path, _ := patternFile(t, 4*pageSize)
	f := mustOpen(t, path, nil)
	prove.Truncate(t, path, 2*pageSize)
	for _, off := range []int64{2 * pageSize, 3 * pageSize} {
		var le *mmapio.LockError
		if err := f.Lock(off, 1); !errors.As(err, &le) || le.Cause != mmapio.CauseBeyondEOF {
			t.Errorf("at %d: %v", off, err)
		} else if want := fmt.Sprintf("now %d bytes long", 2*pageSize); !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}
