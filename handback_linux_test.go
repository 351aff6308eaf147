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
