package mmapio_test

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"

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

// While a pin or its release is under way, those of other pages are made, and whoever
// wants one of the same pages, or all, waits.
func TestPinMeanwhile(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Verify)
	for _, change := range []string{"lock beside", "unlock beside"} {
		t.Run(change, func(t *testing.T) {
			path, _ := patternFile(t, 64*pageSize)
			f := mustOpen(t, path, nil)
			check(t, f.Populate(t.Context(), 0, f.Size()))
			pinned := make(chan *mmapio.Pin, 4)
			begin := func(do func() (*mmapio.Pin, error)) <-chan struct{} {
				done := make(chan struct{})
				go func() {
					defer close(done)
					p, err := do()
					if err != nil {
						t.Error(err)
					}
					pinned <- p
				}()
				return done
			}
			var waiting []<-chan struct{}
			reached := meanwhile(t, change, func() error {
				p, err := f.Pin(20*pageSize, pageSize)
				check(t, err)
				if !returns(begin(func() (*mmapio.Pin, error) { return nil, p.Release() })) {
					t.Error("a release of another page waits")
				}
				for _, r := range []mmapio.Range{{Off: 5 * pageSize, Len: 1}, {Off: 6*pageSize - 1, Len: 2}, {Off: 0, Len: f.Size()}} {
					done := begin(func() (*mmapio.Pin, error) { return f.Pin(r.Off, r.Len) })
					waiting = append(waiting, done)
					if returns(done) {
						t.Errorf("a pin of [%d, +%d) did not wait", r.Off, r.Len)
					}
				}
				return nil
			})
			p, err := f.Pin(5*pageSize, pageSize)
			check(t, err)
			check(t, p.Release())
			if !reached() {
				t.Fatal("the pin did not go beside others")
			}
			for _, done := range waiting {
				<-done
			}
			check(t, f.VerifyLocked(0, f.Size()))
			heldAs(t, "pinned", f, true, mmapio.Range{Off: 0, Len: f.Size()})
			for range len(waiting) + 1 {
				if p := <-pinned; p != nil {
					check(t, p.Release())
				}
			}
			heldAs(t, "released", f, true)
		})
	}
}

// What the kernel refuses to do beside others is done, or told, as all else is.
func TestPinRefusedBeside(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Verify)
	refused := errors.New("refused")
	path, _ := patternFile(t, 64*pageSize)
	f := mustOpen(t, path, nil)
	check(t, f.Populate(t.Context(), 0, f.Size()))
	before := mmapio.Splits()

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
