package mmapio

import "github.com/mmapio/mmapio/internal/sys"

const (
	// A loop brings in more than the piece that it is at, but does not begin
	// with much: it may end any time.
	aheadFirst = 64 << 10
	aheadMost  = bringStep
	// aheadHint is how far the kernel is asked to read on meanwhile, once a loop
	// has come so far that it is likely to go on.
	aheadHint = 4 << 20
	// aheadRequest is what one such hint is about. The kernel reads no more at
	// once than the read-ahead of the device, 128 KiB where nobody changed it.
	aheadRequest = 128 << 10
)

// A lookahead brings a range in for a loop over it.
type lookahead struct {
	f   *File
	g   *generation
	op  string
	end int64 // of the range

	ready  int64 // up to here it is in
	asked  int64 // up to here the kernel was asked to read
	window int64
}

func newLookahead(f *File, g *generation, op string, off, n int64) lookahead {
	return lookahead{f: f, g: g, op: op, end: off + n, ready: off, asked: off, window: aheadFirst}
}

// reach brings in what the piece [at, next) needs, and some more.
func (l *lookahead) reach(at, next int64) error {
	if next <= l.ready || mayStall {
		return nil
	}
	target := min(l.end, max(next, l.ready+l.window))
	l.window = min(2*l.window, aheadMost)
	for l.ready < target {
		step := l.g.mem.step(l.ready, target)
		if !l.g.mem.loadable(l.ready, step) {
			l.hint(l.ready + int64(step))
			if l.f.ready(l.g, l.ready, step, false) != nil {
				break
			}
		}
		l.ready += int64(step)
	}
	if l.ready >= next {
		return nil
	}
	// Something is bad, but not necessarily in this piece.
	l.window = 0
	if err := l.f.readyAll(l.op, l.g, at, next-at); err != nil {
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
	e := l.g.mem
	l.asked = max(l.asked, l.ready)
	if l.asked > to+aheadHint/2 {
		return // a system call for each step would be too many
	}
	for stop := min(to+aheadHint, l.end); l.asked < stop; {
		at := l.asked + int64(e.delta)
		n := min(at&^(aheadRequest-1)+aheadRequest-at, stop-l.asked)
		first := int(at) &^ (sys.PageSize() - 1)
		e.space.ReadAhead(e.base+first, int(at+n)-first)
		l.asked += n
	}
}
