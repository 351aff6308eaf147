package mmapio_test

import (
	"context"
	"errors"
	"github.com/mmapio/mmapio/internal/prove"
	"io/fs"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/mmapio/mmapio"
)

// pinFile makes a File of so many pages, or skips where nothing can be locked.
func pinFile(t *testing.T, pages int) (f *mmapio.File, page int64) {
	t.Helper()
	f, err := mmapio.Anonymous(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	page = int64(f.PageSize())
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f, err = mmapio.Create(filepath.Join(tempDir(t), "f"), int64(pages)*page)
	if errors.Is(err, errors.ErrUnsupported) {
		prove.Unable(t, "%s does not write through a mapping", runtime.GOOS)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Lock(0, 1); errors.Is(err, errors.ErrUnsupported) {
		prove.Unable(t, "%s locks no pages", runtime.GOOS)
	} else if err != nil {
		t.Fatal(err)
	}
	if err := f.Unlock(0, 1); err != nil {
		t.Fatal(err)
	}
	return f, page
}

func pin(t *testing.T, f *mmapio.File, off, n int64) *mmapio.Pin {
	t.Helper()
	p, err := f.Pin(off, n)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func release(t *testing.T, p *mmapio.Pin) {
	t.Helper()
	if err := p.Release(); err != nil {
		t.Errorf("Release: %v", err)
	}
}

func wantLockedBytes(t *testing.T, f *mmapio.File, want int64) {
	t.Helper()
	if got := f.LockedBytes(); got != want {
		t.Errorf("%d bytes locked in %v, want %d", got, f.LockedRanges(), want)
	}
}

func TestPinCounts(t *testing.T) {
	f, page := pinFile(t, 8)
	a := pin(t, f, 0, 2*page)
	b := pin(t, f, page, 2*page) // shares the second page
	c := pin(t, f, page+1, 1)
	wantLockedBytes(t, f, 3*page)
	release(t, a)
	release(t, a) // the second time takes nothing away from others
	release(t, a)
	wantLockedBytes(t, f, 2*page)
	release(t, b)
	wantLockedBytes(t, f, page)
	release(t, c)
	wantLockedBytes(t, f, 0)
}

func TestPinAndLock(t *testing.T) {
	f, page := pinFile(t, 4)
	p := pin(t, f, 0, page)
	if err := f.UnlockAll(); err != nil {
		t.Fatal(err)
	}
	wantLockedBytes(t, f, page) // Unlock does not touch pins
	if err := f.Lock(10, 1); err != nil {
		t.Fatal(err)
	}
	release(t, p)
	wantLockedBytes(t, f, page) // Release does not touch locks
	if err := f.Unlock(10, 1); err != nil {
		t.Fatal(err)
	}
	wantLockedBytes(t, f, 0)
}

// A pin that a shrink has cut must not take away what others pin there later.
func TestPinAfterShrink(t *testing.T) {
	f, page := pinFile(t, 4)
	old := pin(t, f, 0, 4*page)
	for _, size := range []int64{page, 4 * page} {
		if err := f.Resize(size); err != nil {
			t.Fatal(err)
		}
	}
	wantLockedBytes(t, f, page)
	young := pin(t, f, 2*page, page)
	release(t, old)
	wantLockedBytes(t, f, page)
	release(t, young)
	wantLockedBytes(t, f, 0)
}

func TestPinAfterClose(t *testing.T) {
	f, page := pinFile(t, 2)
	p := pin(t, f, 0, page)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	release(t, p)
	release(t, p)
	if _, err := f.Pin(0, 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Pin after Close: %v", err)
	}
}

func TestPinConcurrently(t *testing.T) {
	f, page := pinFile(t, 16)
	var wg sync.WaitGroup
	for g := range int64(8) {
		wg.Go(func() {
			for i := range int64(200) {
				p, err := f.Pin((g*7+i)%14*page, 2*page)
				if err != nil {
					t.Error(err)
					return
				}
				if err := p.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantLockedBytes(t, f, 0)
}

func TestPinAllocation(t *testing.T) {
	f, page := pinFile(t, 16)
	if err := f.LockAll(); err != nil {
		t.Fatal(err)
	}
	n := testing.AllocsPerRun(200, func() {
		p, err := f.Pin(page, page)
		if err != nil {
			t.Fatal(err)
		}
		p.Release() //nolint:errcheck // always nil
	})
	if n > 1 {
		t.Errorf("%v allocations a pin, want the handle alone", n)
	}
}

func TestLockContextProgress(t *testing.T) {
	f, page := pinFile(t, 4)
	var calls []int64
	opts := &mmapio.LockOptions{Progress: func(done, total int64) {
		calls = append(calls, done)
		if total != 3*page {
			t.Errorf("total %d, want %d", total, 3*page)
		}
	}}
	if err := f.LockContext(t.Context(), 0, 3*page, opts); err != nil {
		t.Fatal(err)
	}
	if n := len(calls); n == 0 || calls[n-1] != 3*page {
		t.Errorf("progress %v does not end with %d", calls, 3*page)
	}
	wantLockedBytes(t, f, 3*page)
}

// Cancelling rolls back what the call locked, and nothing else.
func TestLockContextCancel(t *testing.T) {
	const window = 16 << 20
	f, page := pinFile(t, 1)
	if err := f.Resize(3 * window); err != nil {
		t.Fatal(err)
	}
	if err := f.Lock(page, page); err != nil {
		t.Fatal(err)
	}
	if err := f.Lock(0, f.Size()); err != nil {
		prove.Unable(t, "not enough may be locked here: %v", err)
	}
	if err := f.UnlockAll(); err != nil {
		t.Fatal(err)
	}
	if err := f.Lock(page, page); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := f.LockContext(ctx, 0, f.Size(), &mmapio.LockOptions{Progress: func(done, _ int64) {
		if done >= window {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("LockContext: %v, want context.Canceled", err)
	}
	wantLockedBytes(t, f, page)
}

// What is cut off while a call locks it is not locked, also where that is less than
// a page, and does not come back so.
func TestLockContextShrunk(t *testing.T) {
	f, page := pinFile(t, 3)
	err := f.LockContext(t.Context(), 0, 3*page, &mmapio.LockOptions{Progress: func(_, _ int64) {
		if err := f.Resize(3*page - 10); err != nil {
			t.Error(err)
		}
	}})
	wantRangeError(t, err, mmapio.RangeError{Op: "lockcontext", Path: f.Name(), Len: 3 * page, Size: 3*page - 10})
	wantLockedBytes(t, f, 0)
	if err := f.Resize(3 * page); err != nil {
		t.Fatal(err)
	}
	wantLockedBytes(t, f, 0)
}

// A pin of nothing lies inside of the File, too.
func TestPinNothing(t *testing.T) {
	f, page := pinFile(t, 2)
	for _, off := range []int64{0, 1, f.Size()} {
		release(t, pin(t, f, off, 0))
	}
	for _, off := range []int64{-1, f.Size() + 1, 9 * page} {
		_, err := f.Pin(off, 0)
		wantRangeError(t, err, mmapio.RangeError{Op: "pin", Path: f.Name(), Off: off, Size: f.Size()})
	}
}
