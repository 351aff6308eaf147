package mmapio_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// handsBack has a growth fail at its last step, when all locks are handed over already,
// and wants them back where they were.
func handsBack(t testing.TB, f *mmapio.File, path string, all []mmapio.Range) {
	t.Helper()
	check(t, appendTo(path, make([]byte, 60*pageSize))) // which a growth by less cuts off, at last
	was := standOf(t, f, path)
	restore := mmapio.SetFailpoint(func(step string) error {
		if step == "length" {
			return errInjected
		}
		return nil
	})
	err := f.Resize(f.Size() + 40*pageSize)
	restore()
	if !errors.Is(err, errInjected) {
		t.Errorf("a growth that fails at its last step: %v", err)
	}
	was.unchanged(t, "handed back", f, path)
	wantLocked(t, "handed back", f, 0, all)
	check(t, os.Truncate(path, f.Size()))
}

var loweredBody = prove.Register("resize-lowered", func(args []string) int {
	t, path := prove.T(), args[0]
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	check(t, f.LockAll())
	var lim unix.Rlimit
	check(t, unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim))
	lim.Cur = uint64(f.Size() / 2)
	check(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &lim))
	was := standOf(t, f, path)
	var le *mmapio.LockError
	if err := f.Resize(f.Size() + 40*pageSize); !errors.As(err, &le) || le.Cause != mmapio.CauseLimit {
		t.Errorf("a growth under a limit below what is locked: %v", err)
	}
	was.unchanged(t, "refused", f, path)
	wantLocked(t, "refused", f, 0, []mmapio.Range{{Len: f.Size()}})
	return 0
})

// TestResizeUnderLoweredLimit: what is locked beyond a limit that was lowered since
// would not be locked again, so nothing of it is let go to be moved.
func TestResizeUnderLoweredLimit(t *testing.T) {
	prove.Need(t, prove.Root, prove.Pagemap, prove.Scan, prove.LockCharge)
	path := filepath.Join(prove.PublicDir(t), "file")
	check(t, os.WriteFile(path, pattern(8*pageSize, 1), 0o666))
	check(t, os.Chmod(path, 0o666))
	if r := loweredBody.Run(t, asUser(prove.Args(path), prove.Memlock(uint64(8*pageSize)))...); r.Code != 0 {
		t.Error(r)
	}
}

// roomTakenBody has a growth move a page by letting go of it for a moment, in which
// others take the room for it. With "late" they take it when locks go back.
var roomTakenBody = prove.Register("resize-room-taken", func(args []string) int {
	t, path := prove.T(), args[0]
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	check(t, f.LockAll())
	other, err := unix.Mmap(-1, 0, int(2*pageSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	check(t, err)
	locks, taken := 0, 0
	restore := mmapio.SetFailpoint(func(step string) error {
		if step != "lock" {
			return nil
		}
		locks++
		if taken < len(other) && (args[1] != "late" || locks > 10) && unix.Mlock(other[taken:taken+int(pageSize)]) == nil {
			taken += int(pageSize)
		}
		return nil
	})
	var le *mmapio.LockError
	if err := f.Resize(f.Size() + 40*pageSize); !errors.As(err, &le) || le.Cause != mmapio.CauseLimit {
		t.Errorf("a growth while others take the room: %v", err)
	}
	restore()
	if taken == 0 {
		t.Fatal("nobody took any room")
	}
	kept := prove.Count(prove.LockedPages(t, memoryOf(t, f)))
	t.Logf("%d pages are locked still", kept)
	if got := f.LockedBytes(); got != int64(kept)*pageSize {
		t.Errorf("the books have %d bytes of %d pages that are locked", got, kept)
	}
	if err := f.LockAll(); !errors.As(err, &le) || le.Cause != mmapio.CauseLimit {
		t.Errorf("a lock of what is not locked any more: %v", err)
	}
	check(t, unix.Munmap(other))
	check(t, f.LockAll())
	wantLocked(t, "locked again", f, 0, []mmapio.Range{{Len: f.Size()}})
	return 0
})

// What cannot be locked again where it was does not stand in the books as locked.
func TestResizeRoomTaken(t *testing.T) {
	prove.Need(t, prove.Root, prove.Pagemap, prove.Scan, prove.LockCharge)
	path := filepath.Join(prove.PublicDir(t), "file")
	for _, when := range []string{"early", "late"} {
		check(t, os.WriteFile(path, pattern(8*pageSize, 1), 0o666))
		check(t, os.Chmod(path, 0o666))
		if r := roomTakenBody.Run(t, asUser(prove.Args(path, when), prove.Memlock(uint64(8*pageSize)))...); r.Code != 0 {
			t.Errorf("%s: %v", when, r)
		}
	}
}

// backRefusedBody has a growth fail when locks are handed over, and the kernel lock none
// of the first run again where it was.
var backRefusedBody = prove.Register("resize-back-refused", func(args []string) int {
	t := prove.T()
	var f *mmapio.File
	if args[0] == "secret" {
		f = newSecret(t, 8*pageSize, secretOptions)
	} else {
		f = mustOpen(t, args[0], &mmapio.Options{Mode: mmapio.ReadWrite})
	}
	check(t, f.LockAll())
	check(t, f.Unlock(2*pageSize, pageSize))
	was, addr := contentOf(t, f), uint32(addressOf(t, f))
	before, locks := mmapio.Splits(), 0
	restore := mmapio.SetFailpoint(func(step string) error {
		if step == "lock" {
			locks++
		}
		if locks < 2 {
			return nil
		}
		prove.RefuseArgs(t, unix.SYS_MLOCK2, int(unix.ENOMEM), addr, uint32(2*pageSize))
		return errInjected
	})
	err := f.Resize(f.Size() + 40*pageSize)
	restore()
	if !errors.Is(err, errInjected) {
		t.Errorf("a growth that fails while locks are handed over: %v", err)
	}
	same(t, "not moved", contentOf(t, f), was)
	prove.AssertNotHeld(t, memoryOf(t, f)[:3*pageSize])
	prove.AssertHeld(t, memoryOf(t, f)[3*pageSize:])
	if got, splits := f.LockedBytes(), before-mmapio.Splits(); got != 5*pageSize || splits != 1 {
		t.Errorf("the books have %d bytes locked, and %d mappings less than before", got, splits)
	}
	check(t, f.Lock(0, pageSize))
	check(t, f.VerifyLocked(0, pageSize))
	return 0
})

// So it is when all goes back, and nothing of a secret is lost on the way.
func TestResizeBackRefused(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Verify, prove.Filters)
	path, _ := patternFile(t, 8*pageSize)
	for _, what := range []string{path, "secret"} {
		if r := backRefusedBody.Run(t, prove.Args(what)); r.Code != 0 {
			t.Errorf("%s: %v", what, r)
		}
	}
}

// backFromSwapBody has growths fail when most of the memory has moved, and is in swap
// where it was.
var backFromSwapBody = prove.Register("resize-back-from-swap", func(args []string) int {
	t := prove.T()
	const once = 16 * mib // as much as goes at a time
	for _, onFault := range []bool{false, true} {
		var f *mmapio.File
		grow := func() error { return f.Resize(f.Size() + pageSize) }
		if args[0] == "anonymous" {
			f = opened(t)(mmapio.Anonymous(once+mib, nil))
		} else {
			f = mustOpen(t, args[0], &mmapio.Options{Mode: mmapio.CopyOnWrite})
			grow = func() error {
				check(t, appendTo(args[0], make([]byte, pageSize)))
				_, err := f.Refresh()
				return err
			}
		}
		dirty(t, f, 0, f.Size())
		check(t, f.LockContext(t.Context(), 0, f.Size(), &mmapio.LockOptions{OnFault: onFault}))
		was, b, locks := contentOf(t, f), memoryOf(t, f), 0
		restore := mmapio.SetFailpoint(func(step string) error {
			if step != "lock" {
				return nil
			}
			if locks++; locks == 1 {
				return nil
			}
			return errors.Join(errInjected, unix.Madvise(b[:once], unix.MADV_PAGEOUT))
		})
		err := grow()
		restore()
		if !errors.Is(err, errInjected) {
			t.Errorf("a growth that fails while locks are handed over: %v", err)
		}
		prove.AssertHeld(t, b)
		check(t, f.VerifyLocked(0, f.Size()))
		same(t, "not moved", contentOf(t, f), was)
	}
	return 0
})

// What was not locked while a growth had moved it that failed is in memory again.
func TestResizeBackFromSwap(t *testing.T) {
	prove.NeedE2E(t, prove.SwapFile, prove.Pagemap, prove.Verify)
	prove.Swap(t, 64<<20)
	path, _ := patternFile(t, 17*mib)
	for _, what := range []string{"anonymous", path} {
		if r := backFromSwapBody.Run(t, prove.Args(what)); r.Code != 0 {
			t.Errorf("%s: %v", what, r)
		}
	}
}
