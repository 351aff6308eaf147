package mmapio_test

import (
	"errors"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// stuckLock has a lock fail at its third page. Then one page can not be unlocked by
// itself: its first, or the one that was refused, of which the kernel may have locked
// a part.
var stuckLock = prove.Register("stuck lock", func(args []string) int {
	t := prove.T()
	f := mustOpen(t, args[0], nil)
	ps := pageSize
	check(t, f.Lock(2*ps, ps))
	stuck, want := ps, mmapio.Range{Off: ps, Len: 2 * ps}
	if args[1] == "refused" {
		stuck, want = 3*ps, mmapio.Range{Off: 2 * ps, Len: ps} // the kernel says that it has locked nothing of it
	}
	prove.RefuseArgs(t, unix.SYS_MUNLOCK, int(unix.EPERM), uint32(addressOf(t, f))+uint32(stuck), uint32(ps))
	var le *mmapio.LockError
	if err := f.Lock(ps, 3*ps); !errors.As(err, &le) || !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("a lock over the limit: %v", err)
	}
	if got, want := f.LockedRanges(), []mmapio.Range{want}; !slices.Equal(got, want) {
		t.Errorf("after it %v are locked, want %v", got, want)
	}
	// The next change lets go of both pages in one call.
	check(t, f.Unlock(2*ps, ps))
	holds(t, f, ".....")
	return 0
})

// What a failed lock could not undo is undone as soon as it can be.
func TestLockUndoneLater(t *testing.T) {
	prove.Need(t, prove.Root, prove.Pagemap, prove.LockCharge, prove.Filters)
	file := prove.NewFile(t, prove.PublicDir(t), "f", 5*pageSize)
	limit := prove.Memlock(uint64(2 * pageSize))
	for _, page := range []string{"first", "refused"} {
		if res := stuckLock.Run(t, prove.AsNobody(), limit, prove.Args(file, page)); res.Code != 0 {
			t.Errorf("%s page: %v", page, res)
		}
	}
}

// shrinkAfter makes a File smaller after locks of it were refused.
var shrinkAfter = prove.Register("shrink after", func([]string) int {
	t := prove.T()
	f := opened(t)(mmapio.Anonymous(max(64*pageSize, 256<<10), nil))
	for _, n := range []int64{2 * pageSize, f.Size() / 2} { // at once, and in windows
		var le *mmapio.LockError
		if err := f.Lock(0, n); !errors.As(err, &le) || le.Cause != mmapio.CauseLimit {
			t.Errorf("a lock of %d bytes: %v", n, err)
		}
		if _, err := f.Pin(0, n); !errors.As(err, &le) || le.Cause != mmapio.CauseLimit {
			t.Errorf("a pin of %d bytes: %v", n, err)
		}
	}
	check(t, f.Resize(3*pageSize)) // waits for whoever is inside
	check(t, f.Lock(0, pageSize))
	return 0
})

// Whoever is refused a lock is not inside any more.
func TestShrinkAfterRefusedLock(t *testing.T) {
	prove.Need(t, prove.Root, prove.LockCharge)
	if res := shrinkAfter.Run(t, prove.AsNobody(), prove.Memlock(uint64(pageSize))); res.Code != 0 {
		t.Error(res)
	}
}

// stuckPin has a pin of a page that was seen in memory refused, and what undoes it.
var stuckPin = prove.Register("stuck pin", func(args []string) int {
	t := prove.T()
	f := mustOpen(t, args[0], nil)
	check(t, f.Populate(t.Context(), 0, f.Size()))
	p, err := f.Pin(0, 2*pageSize)
	check(t, err)
	prove.RefuseArgs(t, unix.SYS_MUNLOCK, int(unix.EPERM), uint32(addressOf(t, f))+uint32(3*pageSize), uint32(pageSize))
	var le *mmapio.LockError
	for range 2 { // nor the next one
		if _, err := f.Pin(3*pageSize, pageSize); !errors.As(err, &le) || !errors.Is(err, syscall.ENOMEM) {
			t.Errorf("a pin over the limit: %v", err)
		}
		if err := f.Lock(3*pageSize, pageSize); !errors.As(err, &le) || !errors.Is(err, syscall.ENOMEM) {
			t.Errorf("a lock over the limit: %v", err)
		}
	}
	check(t, p.Release())
	return 0
})

// What stands in the books because it could not be undone is not taken for pinned.
func TestPinRefusedAndNotUndone(t *testing.T) {
	prove.Need(t, prove.Root, prove.Verify, prove.LockCharge, prove.Filters)
	file := prove.NewFile(t, prove.PublicDir(t), "f", 5*pageSize)
	limit := prove.Memlock(uint64(2 * pageSize))
	if res := stuckPin.Run(t, prove.AsNobody(), limit, prove.Args(file)); res.Code != 0 {
		t.Error(res)
	}
}
