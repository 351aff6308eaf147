package mmapio_test

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// takesOut has what a growth adds to a file leave RAM, as often as that at a step: it
// is cut off, and comes back as a hole. It returns how often that was.
func takesOut(t testing.TB, path string, at string, times, before, after int64) (n *int64) {
	t.Helper()
	n = new(int64)
	t.Cleanup(mmapio.SetFailpoint(func(step string) error {
		if step != at || *n == times {
			return nil
		}
		*n++
		return errors.Join(os.Truncate(path, before), os.Truncate(path, after))
	}))
	return n
}

// What a growth brings in may leave again before it is locked, or while that is looked
// at. It is brought in once more, and if it does not stay then, nothing has grown.
func TestOptionsLockLooksAgain(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Pagemap, prove.FileEnd, prove.Disk)
	needLockOf(t, 32*pageSize)
	const before, after = 4, 20
	for _, c := range []struct {
		step  string
		times int64
		holds bool
	}{
		{"settle", 1, true},
		{"settle", 9, true},
		{"settle", 1000, false},
		{"lock", 1, true},
	} {
		for _, reserve := range []int64{0, 2 * after * pageSize} {
			if c.step == "lock" && reserve > 0 {
				continue // nothing is handed over
			}
			path := fileOf(t, before*pageSize)
			f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Lock: mmapio.LockNow, Reserve: reserve})
			was := standOf(t, f, path)
			n := takesOut(t, path, c.step, c.times, before*pageSize, after*pageSize)
			err := f.Resize(after * pageSize)
			taken := *n
			*n = c.times // no more from here on
			var le *mmapio.LockError
			switch {
			case c.holds && (err != nil || taken != c.times):
				t.Errorf("%s, %d of %d times, reserve %d: %v", c.step, taken, c.times, reserve, err)
			case c.holds:
				heldAs(t, c.step, f, true, mmapio.Range{Len: f.Size()})
			case !errors.As(err, &le) || le.Cause != mmapio.CauseMemory || le.Op != "resize":
				t.Errorf("what does not stay, reserve %d: %v", reserve, err)
			default:
				was.unchanged(t, "what does not stay", f, path)
				mustResize(t, f, after*pageSize)
				heldAs(t, "grown at last", f, true, mmapio.Range{Len: f.Size()})
			}
			mustClose(t, f)
		}
	}
}

// A growth that reads what it locks from the disk gives way to Close.
func TestOptionsLockGivesWayToClose(t *testing.T) {
	prove.Need(t, prove.Advice)
	needLockOf(t, 32*mib)
	disk := slowfs.Start(t, slowfs.Options{})
	for _, reserve := range []int64{0, 64 * mib} {
		disk.AddFile("f", pageSize, slowfs.Offsets)
		f := mustOpen(t, disk.Path("f"), &mmapio.Options{Lock: mmapio.LockNow, Reserve: reserve})
		disk.Truncate("f", 24*mib)
		goOn := disk.Hold(slowfs.OpRead, "f")
		grown, closed := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := f.Refresh()
			grown <- err
		}()
		disk.WaitHeld(1)
		go func() { closed <- f.Close() }()
		until(t, "closing", func() bool { return mmapio.Closing(f) })
		goOn()
		if err := <-grown; !errors.Is(err, fs.ErrClosed) {
			t.Errorf("reserve %d: Refresh: %v", reserve, err)
		}
		noError(t, "Close", <-closed)
	}
}
