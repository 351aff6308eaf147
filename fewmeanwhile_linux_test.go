package mmapio_test

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// meanwhile has fn called once, before the kernel is asked for a change that goes
// beside others. What fn returns is taken for the kernel's answer.
func meanwhile(t *testing.T, change string, fn func() error) (done func() bool) {
	t.Helper()
	var called atomic.Bool
	t.Cleanup(mmapio.SetFailpoint(func(step string) error {
		if step == change && called.CompareAndSwap(false, true) {
			return fn()
		}
		return nil
	}))
	return called.Load
}

// returns reports whether a call that was begun comes back while nothing else happens.
func returns(done <-chan struct{}) bool {
	for range 5000 {
		select {
		case <-done:
			return true
		default:
			runtime.Gosched()
		}
	}
	return false
}

// mustPin pins, and has the kernel asked whether it is so.
func mustPin(t *testing.T, f *mmapio.File, off, n int64) *mmapio.Pin {
	t.Helper()
	p, err := f.Pin(off, n)
	check(t, err)
	check(t, f.VerifyLocked(off, n))
	return p
}

// While a page is locked or let go, the same is done to others, and whoever wants that
// one, or all, waits.
func TestFewMeanwhile(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Verify)
	for _, c := range []struct {
		name, change string
		lock         bool
	}{
		{"pin", "lock beside", false}, {"release", "unlock beside", false},
		{"lock", "lock beside", true}, {"unlock", "unlock beside", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, _ := patternFile(t, 64*pageSize)
			f := mustOpen(t, path, nil)
			check(t, f.Populate(t.Context(), 0, f.Size()))
			// hold has some bytes held, and returns what lets them go.
			hold := func(off, n int64) (letGo func() error) {
				if c.lock {
					check(t, f.Lock(off, n))
					return func() error { return f.Unlock(off, n) }
				}
				p, err := f.Pin(off, n)
				check(t, err)
				return p.Release
			}
			begin := func(do func()) <-chan struct{} {
				done := make(chan struct{})
				go func() {
					defer close(done)
					do()
				}()
				return done
			}
			var waiting []<-chan struct{}
			pinned := make(chan *mmapio.Pin, 3)
			reached := meanwhile(t, c.change, func() error {
				select {
				case <-begin(func() { check(t, hold(20*pageSize, pageSize)()) }):
				case <-time.After(time.Minute):
					t.Error("another page waits")
				}
				for _, r := range []mmapio.Range{{Off: 5 * pageSize, Len: 1}, {Off: 6*pageSize - 1, Len: 2}, {Off: 0, Len: f.Size()}} {
					done := begin(func() {
						p, err := f.Pin(r.Off, r.Len)
						if err != nil {
							t.Error(err)
						}
						pinned <- p
					})
					waiting = append(waiting, done)
					if returns(done) {
						t.Errorf("a pin of [%d, +%d) did not wait", r.Off, r.Len)
					}
				}
				return nil
			})
			check(t, hold(5*pageSize, pageSize)())
			if !reached() {
				t.Fatal("the change did not go beside others")
			}
			for _, done := range waiting {
				<-done
			}
			check(t, f.VerifyLocked(0, f.Size()))
			heldAs(t, "pinned", f, true, mmapio.Range{Off: 0, Len: f.Size()})
			for range waiting {
				check(t, (<-pinned).Release())
			}
			heldAs(t, "let go", f, true)
		})
	}
}

// To let go of what is being let go waits until that is done.
func TestUnlockMeanwhile(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Verify)
	path, _ := patternFile(t, 64*pageSize)
	f := mustOpen(t, path, nil)
	check(t, f.Populate(t.Context(), 0, f.Size()))
	done := make(chan struct{})
	reached := meanwhile(t, "unlock beside", func() error {
		go func() {
			defer close(done)
			check(t, f.Unlock(5*pageSize, 1))
		}()
		if returns(done) {
			t.Error("unlocked, while the page was still held")
		}
		return nil
	})
	check(t, mustPin(t, f, 5*pageSize, pageSize).Release())
	if !reached() {
		t.Fatal("the release did not go beside others")
	}
	<-done
	heldAs(t, "let go", f, true)
}

// What the kernel refuses to do beside others is done, or told, as all else is.
func TestFewRefused(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Verify)
	refused := errors.New("refused")
	path, _ := patternFile(t, 64*pageSize)
	f := mustOpen(t, path, nil)
	check(t, f.Populate(t.Context(), 0, f.Size()))
	before := mmapio.Splits()

	meanwhile(t, "lock beside", func() error { return refused })
	check(t, f.Lock(5*pageSize, pageSize))
	heldAs(t, "locked", f, true, mmapio.Range{Off: 5 * pageSize, Len: pageSize})
	check(t, f.Unlock(5*pageSize, pageSize))
	heldAs(t, "unlocked", f, true)

	reached := meanwhile(t, "lock beside", func() error { return refused })
	p := mustPin(t, f, 5*pageSize, pageSize)
	if !reached() {
		t.Fatal("the pin did not go beside others")
	}
	heldAs(t, "pinned", f, true, mmapio.Range{Off: 5 * pageSize, Len: pageSize})
	if n := mmapio.Splits() - before; n != 2 {
		t.Errorf("the pin costs %d mappings by the books, want 2", n)
	}

	reached = meanwhile(t, "unlock beside", func() error { return refused })
	check(t, p.Release())
	if !reached() {
		t.Fatal("the release did not go beside others")
	}
	// It is held, and the books say so, until the next change lets it go.
	heldAs(t, "not let go", f, true, mmapio.Range{Off: 5 * pageSize, Len: pageSize})
	if n := mmapio.Splits() - before; n != 2 {
		t.Errorf("what was not let go costs %d mappings by the books, want 2", n)
	}
	check(t, mustPin(t, f, 20*pageSize, pageSize).Release())
	heldAs(t, "let go", f, true)
	if n := mmapio.Splits() - before; n != 0 {
		t.Errorf("%d mappings are counted after all was let go", n)
	}
}

// What was not let go is counted together with what was pinned beside it meanwhile.
func TestPinBesideRefusedRelease(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Verify)
	path, _ := patternFile(t, 64*pageSize)
	f := mustOpen(t, path, nil)
	check(t, f.Populate(t.Context(), 0, f.Size()))
	before := mmapio.Splits()
	p := mustPin(t, f, 5*pageSize, pageSize)
	var next *mmapio.Pin
	reached := meanwhile(t, "unlock beside", func() (err error) {
		next, err = f.Pin(6*pageSize, pageSize)
		check(t, err)
		return errors.New("refused")
	})
	check(t, p.Release())
	if !reached() {
		t.Fatal("the release did not go beside others")
	}
	if n := mmapio.Splits() - before; n != 2 {
		t.Errorf("two pages side by side cost %d mappings by the books, want 2", n)
	}
	heldAs(t, "not let go", f, true, mmapio.Range{Off: 5 * pageSize, Len: 2 * pageSize})
	check(t, next.Release())
	heldAs(t, "let go", f, true)
	if n := mmapio.Splits() - before; n != 0 {
		t.Errorf("%d mappings are counted after all was let go", n)
	}
}
