package mmapio_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// A slowDisk takes a while for each answer.
type slowDisk struct {
	*slowfs.FS
	f    *mmapio.File
	want []bool // pages locked before the test begins
}

const (
	slowSize = 128 * mib
	deep     = 48 * mib
)

// startSlow has calls bring eight windows in at a time, unless they measure.
func startSlow(t *testing.T, delay time.Duration, measure bool) *slowDisk {
	t.Helper()
	prove.NeedE2E(t, prove.FUSE, prove.Pagemap)
	if !measure {
		t.Cleanup(mmapio.SideBySide(3))
	}
	d := &slowDisk{FS: slowfs.Start(t, slowfs.Options{ReadDelay: delay})}
	d.AddFile("f", slowSize, slowfs.Offsets)
	d.f = mustOpen(t, d.Path("f"), &mmapio.Options{Mode: mmapio.ReadWrite})
	d.want = make([]bool, slowSize/pageSize)
	return d
}

// before locks some pages that have to stay so whatever fails.
func (d *slowDisk) before(t *testing.T) {
	t.Helper()
	for _, r := range []mmapio.Range{{Off: 3 * pageSize, Len: pageSize}, {Off: deep + mib, Len: 2 * pageSize}} {
		check(t, d.f.Lock(r.Off, r.Len))
		for i := r.Off / pageSize; i < (r.Off+r.Len)/pageSize; i++ {
			d.want[i] = true
		}
	}
	d.DropCache("f", 0, 3*pageSize) // what was read beside them
	d.ResetLog()
}

// unchanged fails if the kernel holds anything but what before has locked.
func (d *slowDisk) unchanged(t *testing.T) {
	t.Helper()
	prove.AssertHeldPages(t, memoryOf(t, d.f), d.want)
	if got := d.f.LockedBytes(); got != int64(prove.Count(d.want))*pageSize {
		t.Errorf("LockedBytes is %d after a failure", got)
	}
}

// hold stops all READs from deep on, starts a call, and waits until so many of
// them are stopped that there must be several windows.
func (d *slowDisk) hold(t *testing.T, call func() error) (release func(), result <-chan error) {
	t.Helper()
	release = d.Add(slowfs.Rule{Op: slowfs.OpRead, Path: "f", Off: deep, Hold: true})
	end := make(chan error, 1)
	go func() { end <- call() }()
	d.WaitHeld(20)
	return release, end
}

// within a second, wants the result of a call.
func soon(t *testing.T, result <-chan error) error {
	t.Helper()
	select {
	case err := <-result:
		return err
	case <-time.After(20 * time.Second): // whatever else the machine does
		t.Fatal("the call does not return")
		return nil
	}
}

// calls are those that bring windows in.
var windowCalls = map[string]func(ctx context.Context, f *mmapio.File) error{
	"populate": func(ctx context.Context, f *mmapio.File) error { return f.Populate(ctx, 0, f.Size()) },
	"lock": func(ctx context.Context, f *mmapio.File) error {
		return f.LockContext(ctx, 0, f.Size(), nil)
	},
}

func eachWindowCall(t *testing.T, measure bool, test func(t *testing.T, d *slowDisk, call func(context.Context, *mmapio.File) error)) {
	delay := time.Millisecond
	if measure {
		delay *= 20 // so much that nothing else on the machine counts
	}
	for name, call := range windowCalls {
		t.Run(name, func(t *testing.T) { test(t, startSlow(t, delay, measure), call) })
	}
}

// Where the disk takes long to answer, it is asked for several windows at a time.
func TestWindowsSideBySide(t *testing.T) {
	eachWindowCall(t, true, func(t *testing.T, d *slowDisk, call func(context.Context, *mmapio.File) error) {
		release, result := d.hold(t, func() error { return call(t.Context(), d.f) })
		windows := map[int64]bool{}
		for _, e := range d.Log(slowfs.OpRead) {
			if !e.Done {
				windows[e.Off/(2*mib)] = true
			}
		}
		if len(windows) < 2 {
			t.Errorf("READs in %d windows are under way, want several", len(windows))
		}
		release()
		check(t, soon(t, result))
		b := memoryOf(t, d.f)
		if n := prove.Count(prove.PresentPages(t, b)); n != len(d.want) {
			t.Errorf("%d of %d pages are there", n, len(d.want))
		}
		if n := d.Count(slowfs.OpRead); n > slowSize/(128*kib)*11/10 {
			t.Errorf("%d READs for %d bytes", n, slowSize)
		}
		check(t, d.f.UnlockAll())

		// One plain mlock(2), so that the test can see one that is not.
		d.DropCache("f", 0, 0)
		d.ResetLog()
		check(t, unix.Mlock(b[:8*mib]))
		if peak := d.Stats().Peak[slowfs.OpRead]; peak > 4 {
			t.Errorf("mlock(2) has %d READs under way", peak)
		}
		check(t, unix.Munlock(b[:8*mib]))
	})
}

// Of several windows that fail the first counts, those beyond it end, and what
// was locked before the call stays, and nothing else.
func TestProofWindowsFail(t *testing.T) {
	eachWindowCall(t, false, func(t *testing.T, d *slowDisk, call func(context.Context, *mmapio.File) error) {
		d.before(t)
		const bad = deep + 4*mib
		d.Add(slowfs.Rule{Op: slowfs.OpRead, Path: "f", Off: bad + 8*pageSize, Len: pageSize, Err: syscall.EIO})
		d.Add(slowfs.Rule{Op: slowfs.OpRead, Path: "f", Off: bad + 6*mib, Len: pageSize, Err: syscall.EIO})
		// The later one fails first.
		slow := d.Add(slowfs.Rule{Op: slowfs.OpRead, Path: "f", Off: bad, Len: 2 * mib, Delay: 50 * time.Millisecond})
		release, result := d.hold(t, func() error { return call(t.Context(), d.f) })
		release()
		began := time.Now()
		err := soon(t, result)
		if took := time.Since(began); took > time.Second {
			t.Errorf("the call returns %v later", took)
		}
		slow()
		var (
			fe *mmapio.FaultError
			le *mmapio.LockError
		)
		switch {
		case !errors.Is(err, syscall.EIO):
			t.Fatal(err)
		case errors.As(err, &fe):
			if fe.Off != bad+8*pageSize || fe.Op != "populate" {
				t.Errorf("%+v, want offset %d", *fe, bad+8*pageSize)
			}
		case !errors.As(err, &le) || le.Op != "lockcontext" ||
			err.Error() != fmt.Sprintf("lockcontext %s [0, %d): the page at offset %d cannot be read: input/output error", d.f.Name(), slowSize, bad+8*pageSize):
			t.Errorf("%#v: %v", err, err)
		}
		d.unchanged(t)
	})
}

// To cancel stops between windows, with others under way.
func TestProofWindowsCancel(t *testing.T) {
	eachWindowCall(t, false, func(t *testing.T, d *slowDisk, call func(context.Context, *mmapio.File) error) {
		d.before(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		release, result := d.hold(t, func() error { return call(ctx, d.f) })
		cause := errors.New("enough")
		cancel(cause)
		release()
		err := soon(t, result)
		pe := (*fs.PathError)(nil)
		if !errors.Is(err, cause) || !errors.As(err, &pe) || pe.Path != d.f.Name() {
			t.Errorf("%#v: %v", err, err)
		}
		d.unchanged(t)
	})
}

// Close does not wait for the windows under way, and ends the call.
func TestWindowsClose(t *testing.T) {
	eachWindowCall(t, false, func(t *testing.T, d *slowDisk, call func(context.Context, *mmapio.File) error) {
		locked := prove.VmLck(t, 0)
		d.before(t)
		release, result := d.hold(t, func() error { return call(t.Context(), d.f) })
		check(t, d.f.Close())
		if got := prove.VmLck(t, 0); got != locked {
			t.Errorf("VmLck is %d after Close, was %d", got, locked)
		}
		release()
		if err := soon(t, result); !errors.Is(err, fs.ErrClosed) {
			t.Error(err)
		}
		if got := prove.VmLck(t, 0); got != locked {
			t.Errorf("VmLck is %d after the call, was %d", got, locked)
		}
	})
}

// A shrink waits for the windows under way alone, and the call finds its range
// gone.
func TestWindowsShrink(t *testing.T) {
	eachWindowCall(t, false, func(t *testing.T, d *slowDisk, call func(context.Context, *mmapio.File) error) {
		release, result := d.hold(t, func() error { return call(t.Context(), d.f) })
		shrunk := make(chan error, 1)
		go func() { shrunk <- d.f.Resize(16 * mib) }()
		for !mmapio.Excludes(d.f) {
			select {
			case err := <-shrunk:
				t.Fatalf("Resize did not wait: %v", err)
			case <-result:
				t.Fatal("the call has ended before Resize began")
			default:
				runtime.Gosched()
			}
		}
		select {
		case err := <-shrunk:
			t.Fatalf("Resize did not wait: %v", err)
		default:
		}
		release()
		check(t, soon(t, shrunk))
		err := soon(t, result)
		re := (*mmapio.RangeError)(nil)
		if !errors.As(err, &re) || re.Size != 16*mib {
			t.Error(err)
		}
		if got := d.f.LockedBytes(); got != 0 {
			t.Errorf("%d bytes are locked", got)
		}
		check(t, d.f.UnlockAll())
		d.want = make([]bool, 16*mib/pageSize)
		d.unchanged(t)
	})
}

// Progress grows, ends with the whole, and is never called twice at a time.
func TestWindowsProgress(t *testing.T) {
	d := startSlow(t, time.Millisecond, false)
	var (
		inside atomic.Int32
		seen   []int64
	)
	check(t, d.f.LockContext(t.Context(), 5, slowSize-10, &mmapio.LockOptions{Progress: func(done, total int64) {
		if inside.Add(1) != 1 {
			t.Error("called while it is called")
		}
		if total != slowSize-10 {
			t.Errorf("total %d", total)
		}
		// Methods may be called. Windows end in any order, so of a single page
		// nothing is known before the last has ended.
		if err := d.f.VerifyLocked(5, 1); err != nil && done == total {
			t.Error(err)
		}
		seen = append(seen, done)
		inside.Add(-1)
	}}))
	if !slices.IsSorted(seen) || len(seen) < 10 || seen[0] <= 0 || seen[len(seen)-1] != slowSize-10 ||
		len(slices.Compact(slices.Clone(seen))) != len(seen) {
		t.Errorf("progress %v", seen)
	}
	prove.AssertHeld(t, memoryOf(t, d.f))

	// A panic of the caller's function undoes everything too.
	check(t, d.f.UnlockAll())
	d.DropCache("f", 0, 0)
	func() {
		defer func() {
			if recover() != "mine" {
				t.Error("the panic is gone")
			}
		}()
		//nolint:errcheck // it panics
		d.f.LockContext(t.Context(), 0, slowSize, &mmapio.LockOptions{Progress: func(done, _ int64) {
			if done > deep {
				panic("mine")
			}
		}})
	}()
	d.unchanged(t)
}

// A File that was advised to be read at random is still brought in by large
// reads.
func TestPopulateAdvisedRandom(t *testing.T) {
	const n = 8 * mib
	d := startSlow(t, time.Millisecond, true)
	b := memoryOf(t, d.f)
	check(t, d.f.Advise(0, d.f.Size(), mmapio.AdviceRandom))
	d.ResetLog()
	check(t, d.f.Populate(t.Context(), 0, n))
	if reads := d.Count(slowfs.OpRead); reads > n/(128*kib)*2 {
		t.Errorf("%d READs for %d bytes", reads, n)
	}
	d.ResetLog()
	prove.Need(t, prove.Populating)
	check(t, unix.Madvise(b[n:n+mib], unix.MADV_POPULATE_READ))
	if reads := d.Count(slowfs.OpRead); reads != int(mib/pageSize) {
		t.Errorf("control: %d READs, want one for each page", reads)
	}
}
