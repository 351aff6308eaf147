package mmapio

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mmapio/mmapio/internal/pace"
	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

// A window is a part of a long system call: of bringing pages in, or of locking
// them. Offsets are the lock set's.
type window struct {
	lo, hi int64
	run    *windows
	plan   pace.Window

	claim  claim // of lockwindow.go
	pinned bool  // for the lock that it is of
	took   time.Duration
	waited bool
	err    error
	halted bool // err is not its own, see stopped
}

// windows brings a range in, window by window, several side by side where that
// is faster.
type windows struct {
	ctx    context.Context
	f      *File
	op     string
	lo, hi int64
	pace   *pace.Pace
	ahead  func() int64 // the device's read-ahead

	// begin is called in the order of the offsets and does not wait for the
	// disk. work may wait, and runs side by side with that of others. After
	// an error of begin there is no work.
	begin, work func(w *window) error
	// done is called by the goroutine that called run, with the bytes so far.
	done func(bytes int64)

	alone  window       // those of a stream, one after another
	cached int64        // up to where all was seen to be in the page cache, by these; -1: not all
	failed atomic.Int64 // where the first window lies that failed
	quick  atomic.Bool  // the last window was there at once
}

// windowsOf makes the windows of a range. What to do in them is to be added.
func (f *File) windowsOf(ctx context.Context, op string, lo, hi int64) *windows {
	r := &windows{ctx: ctx, f: f, op: op, lo: lo, hi: hi}
	r.failed.Store(maxInt64)
	r.ahead = sync.OnceValue(func() int64 { return int64(sys.ReadAhead(f.src.file)) })
	return r
}

// newPace lets tests have windows side by side whatever the machine does.
var newPace = pace.New

// run returns the error of the first window, by offset, that failed. By then
// none is under way any more, and what lies before it is done.
func (r *windows) run() error {
	r.pace = newPace(r.ahead, !sys.TellsWaits)
	var (
		results chan *window
		under   int
		wg      sync.WaitGroup
		first   *window // that failed
		sum     int64
	)
	defer wg.Wait() // also if done panics
	defer r.fail(math.MinInt64)
	finish := func(w *window) {
		r.pace.Done(w.plan, w.hi-w.lo, w.took, w.waited)
		switch {
		case w.err == nil:
			sum += w.hi - w.lo
			if first == nil && r.done != nil {
				r.done(sum)
			}
		case first == nil || w.lo < first.lo:
			first = w
		}
	}
	for at := r.lo; ; {
		var plan pace.Window
		ok := false
		if at < r.hi && first == nil {
			plan, ok = r.pace.Next(time.Now())
		}
		if !ok {
			if under == 0 {
				break
			}
			w := <-results
			under--
			finish(w)
			continue
		}
		w := r.window(at, plan)
		at = w.hi
		if w.err = w.stopped(); w.err == nil {
			w.err = r.begin(w)
		}
		switch {
		case w.err != nil:
			r.fail(w.lo)
			finish(w)
		case plan.Alone || under == 0 && w.hi == r.hi:
			r.do(w)
			finish(w)
		default:
			under++
			if results == nil {
				results = make(chan *window, pace.Most)
			}
			wg.Go(func() {
				defer func() { results <- w }()
				r.do(w)
			})
		}
	}
	if first != nil {
		return first.err
	}
	return nil
}

// window makes the next one. What a stream allocates is memory that the program has
// not touched yet, more often than not: a page fault each few windows.
func (r *windows) window(at int64, plan pace.Window) *window {
	w := &r.alone
	if !plan.Alone {
		w = new(window)
	}
	*w = window{lo: at, hi: min(r.hi, r.f.edge(at, plan.Size)), run: r, plan: plan, claim: claim{missing: w.claim.missing[:0]}}
	return w
}

// do does the work of a window.
func (r *windows) do(w *window) {
	w.err = r.work(w)
	if w.err != nil {
		r.fail(w.lo)
	}
}

// fail stops the windows beyond an offset.
func (r *windows) fail(at int64) {
	for {
		old := r.failed.Load()
		if old <= at || r.failed.CompareAndSwap(old, at) {
			return
		}
	}
}

// errStopped is the error of a window that another's error has stopped.
var errStopped = errors.New("stopped")

// stopped returns an error where there is no point in going on.
func (w *window) stopped() error {
	if r := w.run; r.ctx.Err() != nil {
		return r.f.fail(r.op, context.Cause(r.ctx))
	}
	if w.run.failed.Load() < w.lo {
		return errStopped
	}
	return nil
}

// edge returns where a window of about n bytes that starts at an offset of the
// lock set ends: not inside of what one huge page can map, which would take it
// apart. Huge pages map aligned parts of files.
func (f *File) edge(at, n int64) int64 {
	skew := f.src.off - f.src.off%int64(sys.PageSize())
	if f.anonymous() {
		m := f.cur.Load().mem
		skew = int64(m.area.Lo) + int64(m.base) // also when the memory is gone
	}
	skew %= pace.Small
	return max(page.Down(at+skew+n, pace.Small)-skew, at+1)
}
