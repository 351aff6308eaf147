package mmapio

import (
	"runtime"
	"sync"

	"github.com/mmapio/mmapio/internal/beside"
	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

// To lock or pin a few pages, and to let them go, when nothing but these pages is at
// stake, is a change that goes beside others. What is not so simple, or fails, is left
// to the way that all others go.

// kernelTurn is for the system calls of such changes, of all Files.
var kernelTurn beside.Turn

// lockBeside locks bytes, or fills in a pin of them, if their pages are locked already,
// or are a few of which none is and all are in memory. Else it does nothing.
func (f *File) lockBeside(off, n int64, p *Pin) bool {
	done, unseen := f.lockKnown(off, n, p, false)
	if unseen && f.inCache(off, n) {
		done, _ = f.lockKnown(off, n, p, true)
	}
	return done
}

// lockKnown is lockBeside for pages that were seen in memory: within the last second,
// or by the caller, if seen. It reports unseen if to see them was all that it wanted.
func (f *File) lockKnown(off, n int64, p *Pin, seen bool) (done, unseen bool) {
	l := &f.locks
	l.mu.LockBeside()
	g, lo, hi, err := f.lockRange("lock", off, n)
	if err != nil || n == 0 {
		l.mu.Unlock()
		return false, false
	}
	var run lockset.Run
	run.Lo, run.Hi, _ = page.Outward(lo, hi, int64(sys.PageSize()))
	var change *beside.Change
	switch {
	case l.mu.Changing(run.Lo, run.Hi):
	case l.set.Covered(lo, hi, lockset.Now):
		l.want(lo, hi, p)
		done = true
	case hi-lo > few || !sys.LocksOnFault() || !l.alone(run, 0) || l.mapRoom(1) != nil:
	case seen || g.mem.known(run):
		change = l.mu.Begin(run.Lo, run.Hi)
	default:
		unseen = true
	}
	if change == nil {
		l.mu.Unlock()
		return done, unseen
	}
	// It stands in the books before it is done, for those who look beside.
	mark := l.set.Pin(lo, hi, lockset.Now)
	f.holdBeside(g, run, lockset.Now)
	f.hasLocked()
	l.mu.Unlock()
	if err = failpoint("lock beside"); err == nil {
		err = kernelTurn.Run(func() error { return g.mem.space.Lock(g.mem.base+int(run.Lo), int(run.Hi-run.Lo)) })
	}
	done = err == nil && g.mem.touch(run, seen)
	if !done {
		err = f.kernelUnlock(g, run) // also of what was refused: a part may be locked
	}
	runtime.KeepAlive(g)
	if done && p != nil {
		p.in, p.mark = l.set, mark // nobody else takes the set away during a change
		l.mu.End(change)
		return true, false
	}
	l.mu.LockBeside()
	if done {
		l.want(lo, hi, nil)
	}
	l.set.Unpin(mark)
	switch {
	case done:
	case err != nil:
		l.stuck = true // as in letGo
		f.amend(g, run.Lo, run.Hi)
	default:
		f.holdBeside(g, run, lockset.None)
	}
	l.mu.Unlock()
	l.mu.End(change)
	return done, false
}

// want has bytes wanted that are held: locked, or by a pin.
func (l *locker) want(lo, hi int64, p *Pin) {
	if p == nil {
		l.set.Raise(lo, hi, lockset.Now)
	} else {
		p.in, p.mark = l.set, l.set.Pin(lo, hi, lockset.Now)
	}
}

// asked is how much the page cache is asked about, at most: to ask is to copy.
const asked = 8 << 10

// answers are room for what is copied to see whether it is there.
var answers = sync.Pool{New: func() any { return new([asked]byte) }}

// inCache reports whether the page cache has the pages of a few bytes of which nothing is
// known; if not, the system has begun to read them. It asks for all bytes of the pages:
// where blocks are smaller, some may be there and others not.
func (f *File) inCache(off, n int64) bool {
	s, ps := f.src, int64(sys.PageSize())
	if s.file == nil || s.mode == CopyOnWrite || s.waits.Load() || s.readsOf() != sys.ReadsPages {
		return false
	}
	lo, hi, ok := page.Outward(s.off+off, s.off+off+n, ps)
	if !ok || hi-lo > asked {
		return false
	}
	hi = min(hi, s.off+f.Size())
	b := answers.Get().(*[asked]byte)
	defer answers.Put(b)
	got, ok := s.readAtOnce(b[:max(hi-lo, 0)], lo)
	return ok && int64(got) == hi-lo
}

// alone reports whether of the pages of a run and the two beside it so many runs are held:
// none, or the run itself.
func (l *locker) alone(run lockset.Run, runs int) bool {
	var room [2]lockset.Run
	held := l.set.Held(room[:0], run.Lo-1, run.Hi+1)
	return len(held) == runs && (runs == 0 || held[0].Lo == run.Lo && held[0].Hi == run.Hi)
}

// holdBeside has a run held, or no longer, that is alone.
func (f *File) holdBeside(g *generation, run lockset.Run, level lockset.Level) {
	f.locks.set.Hold(run.Lo, run.Hi, level)
	if run.Lo == 0 || run.Hi >= g.mem.mapped.Load() {
		f.recount(g)
		return
	}
	cuts := int64(2)
	if level == lockset.None {
		cuts = -cuts
	}
	f.src.extra.Add(cuts)
	splits.Add(cuts)
}

// letGoBeside is letGo for a caller who has the lock by LockBeside, and lets go of that
// as well. It goes beside others if of a few pages all are to be let go, and none beside
// them is held.
func (f *File) letGoBeside(lo, hi int64) {
	l := &f.locks
	if !l.stuck && l.set.WantedAll(lo, hi, lockset.Now) {
		l.mu.Unlock()
		return
	}
	var room [2]lockset.Run
	excess := l.set.Excess(room[:0], lo, hi)
	if !l.stuck && len(excess) == 0 && !l.mu.Changing(lo, hi) {
		l.mu.Unlock()
		return
	}
	var change *beside.Change
	if !l.stuck && len(excess) == 1 && l.simple(excess[0]) {
		// Nobody is changing it: that would be wanted, or not held.
		change = l.mu.Begin(excess[0].Lo, excess[0].Hi)
	}
	if change == nil {
		l.mu.Unlock()
		l.mu.Lock()
		f.letGo(f.cur.Load(), lo, hi)
		l.mu.Unlock()
		return
	}
	g, run := f.cur.Load(), excess[0]
	// Nobody else comes to these pages before the change is over.
	f.holdBeside(g, run, lockset.None)
	l.mu.Unlock()
	err := failpoint("unlock beside")
	if err == nil {
		err = kernelTurn.Run(func() error { return f.kernelUnlock(g, run) })
	}
	if err != nil {
		l.mu.LockBeside()
		l.set.Hold(run.Lo, run.Hi, lockset.Now)
		f.recount(g) // it may not be alone any more
		l.stuck = true
		l.mu.Unlock()
	}
	l.mu.End(change)
}

// simple reports whether pages that are held at more than is wanted can be let go beside
// other changes.
func (l *locker) simple(run lockset.Run) bool {
	return run.Level == lockset.None && run.Hi-run.Lo <= few && l.alone(run, 1)
}
