package mmapio

import (
	"time"

	"github.com/mmapio/mmapio/internal/pace"
	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

const (
	// A loop brings in more than the piece that it is at, but does not begin
	// with much: it may end any time.
	aheadFirst = 64 << 10
	// What one huge page of the page cache holds: pages come in and are mapped
	// together.
	aheadMost = 2 << 20
	// How far ahead of a loop the kernel is asked to read, once the loop has come
	// so far that it is likely to go on: two of the requests that the device's
	// read-ahead allows, within reason.
	hintLeast = 4 << 20
	hintMost  = 16 << 20
)

// A lookahead brings a range in for a loop over it.
type lookahead struct {
	f   *File
	g   *generation
	op  string
	why purpose
	end int64 // of the range

	ready  int64  // up to here it is in
	lapses uint32 // of what is known to be in, when that was so
	asked  int64  // up to here the kernel was asked to read
	window int64

	request int64 // as readAhead says; 0: not asked

	waits waits
}

func newLookahead(f *File, g *generation, op string, off, n int64, why purpose) lookahead {
	return lookahead{f: f, g: g, op: op, why: why, end: off + n, ready: off, asked: off, window: aheadFirst}
}

// reach brings in what the piece [at, next) needs, and some more. Most of the
// time it looks at one word: what came in with an earlier piece may have left since.
func (l *lookahead) reach(at, next int64) error {
	if next <= l.ready && l.g.mem.resident.Lapses() == l.lapses || mayStall {
		return nil
	}
	return l.bring(at, next)
}

func (l *lookahead) bring(at, next int64) error {
	lapses := l.g.mem.resident.Lapses() // first, for what is forgotten meanwhile
	if lapses != l.lapses && at < l.ready {
		switch {
		case l.g.mem.loadable(at, int(l.ready-at)):
		case next < l.ready && l.g.mem.loadable(at, int(next-at)):
			return nil // the next piece asks again
		default:
			// Where nothing is known whatever is done (the File was closed, or there
			// are holes) a lapse leads here once, and not each piece.
			l.ready, l.window = at, min(l.window, aheadFirst)
		}
	}
	l.lapses = lapses
	if next <= l.ready {
		return nil
	}
	l.ready = max(l.ready, at) // the pieces before may not have been asked for
	target := min(l.end, max(next, l.ready+l.window))
	l.window = min(2*l.window, aheadMost)
	for l.ready < target {
		step := l.g.mem.step(l.ready, target, aheadMost)
		if !l.g.mem.loadable(l.ready, step) && !l.g.mem.stillIn(l.g.mem.pageRange(l.ready, step)) {
			l.hint(l.ready + int64(step))
			began := time.Now()
			if l.f.ready(l.g, l.ready, step, l.why) != nil {
				break
			}
			if l.window == aheadMost { // the first waits are for few bytes
				l.waits.judge(l.ready, int64(step), time.Since(began))
			}
		}
		l.ready += int64(step)
	}
	if l.ready >= next {
		return nil
	}
	// Something is bad, but not necessarily in this piece.
	l.window = 0
	if err := l.f.readyAll(l.op, l.g, at, next-at, l.why); err != nil {
		return err
	}
	l.ready = next
	return nil
}

// hint asks the kernel to read on beyond what is about to be waited for.
func (l *lookahead) hint(to int64) {
	if l.window < aheadMost {
		return
	}
	if l.request == 0 {
		l.request = l.f.src.readAhead()
	}
	// The hint would have the kernel use small pages, as it does anyway for what
	// was advised to be read at random.
	if l.request >= pace.ReadsFar && to > l.waits.slow && !l.f.src.random.Load() {
		return
	}
	e, far := l.g.mem, min(max(2*l.request, hintLeast), hintMost)
	l.asked = max(l.asked, l.ready)
	if l.asked > to+far/2 {
		return // a system call for each step would be too many
	}
	for stop := min(to+far, l.end); l.asked < stop; {
		n := min(l.request, stop-l.asked)
		first := page.Down(l.asked+int64(e.delta), int64(sys.PageSize()))
		e.space.Advise(e.base+int(first), int(l.asked+n-first)+e.delta, sys.WillNeed) //nolint:errcheck // a hint
		l.asked += n
	}
}

// readAhead is how much the kernel reads at once when it is asked to. It is
// looked up once.
func (s *source) readAhead() int64 {
	if n := s.ahead.Load(); n > 0 {
		return n
	}
	n := int64(aheadRequest)
	if s.file != nil {
		n = max(n, int64(sys.ReadAhead(s.file)))
	}
	s.ahead.Store(n)
	return n
}

// waits tell whether a device is slow: from a part of what comes in, for a while.
type waits struct {
	n    int64
	took time.Duration
	slow int64 // up to this offset it counts as slow
}

const (
	judgedBy = 32 << 20 // bytes
	slowFor  = 256 << 20
	slowByte = 2 * time.Nanosecond
)

// judge takes in how long n bytes at an offset took.
func (w *waits) judge(at, n int64, took time.Duration) {
	w.n, w.took = w.n+n, w.took+took
	if w.n < judgedBy {
		return
	}
	if w.took > time.Duration(w.n)*slowByte {
		w.slow = at + slowFor
	}
	w.n, w.took = 0, 0
}
