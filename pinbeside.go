package mmapio

import (
	"runtime"

	"github.com/mmapio/mmapio/internal/beside"
	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

// A pin of a few pages, and its release, when nothing but these pages is at stake, is a
// change that goes beside others. What is not so simple, or fails, is left to the way
// that all others go.

// kernelTurn is for the system calls of such changes, of all Files.
var kernelTurn beside.Turn

// pinBeside is Pin where the pages are locked already, or are a few of which none is
// and all were seen in memory: within the last second, or by the caller, if seen. Else
// it returns nil and has done nothing; unseen, if to see them was all that it wanted.
func (f *File) pinBeside(off, n int64, seen bool) (p *Pin, unseen bool) {
	l := &f.locks
	l.mu.LockBeside()
	g, lo, hi, err := f.lockRange("pin", off, n)
	if err != nil || n == 0 {
		l.mu.Unlock()
		return nil, false
	}
	var run lockset.Run
	run.Lo, run.Hi, _ = page.Outward(lo, hi, int64(sys.PageSize()))
	var change *beside.Change
	switch {
	case l.mu.Changing(run.Lo, run.Hi):
	case l.set.Covered(lo, hi, lockset.Now):
		p = &Pin{f: f, in: l.set, mark: l.set.Pin(lo, hi, lockset.Now)}
	case hi-lo > few || !sys.LocksOnFault() || !l.alone(run, 0) || l.mapRoom(1) != nil:
	case seen || g.mem.known(run):
		change = l.mu.Begin(run.Lo, run.Hi)
	default:
		unseen = true
	}
	if change == nil {
		l.mu.Unlock()
		return p, unseen
	}
	// It stands in the books before it is done, for those who look beside.
	p = &Pin{f: f, in: l.set, mark: l.set.Pin(lo, hi, lockset.Now)}
	f.holdBeside(g, run, lockset.Now)
	f.hasLocked()
	l.mu.Unlock()
	if err = failpoint("lock beside"); err == nil {
		err = kernelTurn.Run(func() error { return g.mem.space.Lock(g.mem.base+int(run.Lo), int(run.Hi-run.Lo)) })
	}
	if err == nil && g.mem.touch(run, seen) {
		l.mu.End(change)
		runtime.KeepAlive(g)
		return p, false
	}
	err = f.kernelUnlock(g, run) // also of what was refused: a part may be locked
	runtime.KeepAlive(g)
	l.mu.LockBeside()
	l.set.Unpin(p.mark)
	if err == nil {
		f.holdBeside(g, run, lockset.None)
	} else {
		l.stuck = true // as in letGo
	}
	l.mu.Unlock()
	l.mu.End(change)
	return nil, false
}

// inCache reports whether the page cache has a page or two, of which nothing is known;
// if not, the system has begun to read them.
func (f *File) inCache(off, n int64) bool {
	s, ps := f.src, int64(sys.PageSize())
	if s.file == nil || s.mode == CopyOnWrite || s.waits.Load() || s.readsOf() != sys.ReadsPages {
		return false
	}
	lo, hi, ok := page.Outward(s.off+off, s.off+off+n, ps)
	if !ok || hi-lo > 2*ps {
		return false
	}
	var b [1]byte
	for ; lo < hi; lo += ps {
		if n, ok := s.readAtOnce(b[:], lo); n == 0 || !ok {
			return false
		}
	}
	return true
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

// releaseBeside takes a pin out of the books, and lets its pages go if that is simple:
// all of them or none, and none beside them is held. Else it returns the bytes that are
// still to be let go.
func (p *Pin) releaseBeside() (lo, hi int64) {
	f, l := p.f, &p.f.locks
	l.mu.LockBeside()
	if l.set != p.in {
		l.mu.Unlock()
		return 0, 0 // released already, or the File was closed and the lock went with it
	}
	p.in = nil
	lo, hi = p.mark.Range()
	l.set.Unpin(p.mark)
	if l.stuck {
		l.mu.Unlock()
		return lo, hi
	}
	var room [2]lockset.Run
	var excess []lockset.Run
	if !l.set.WantedAll(lo, hi, lockset.Now) {
		excess = l.set.Excess(room[:0], lo, hi)
	}
	if len(excess) == 0 {
		l.mu.Unlock()
		return 0, 0
	}
	run := excess[0] // nobody is changing it: that would be wanted, or not held
	var change *beside.Change
	if len(excess) == 1 && run.Level == lockset.None && l.alone(run, 1) {
		change = l.mu.Begin(run.Lo, run.Hi)
	}
	if change == nil {
		l.mu.Unlock()
		return lo, hi
	}
	// Nobody else comes to these pages before the change is over.
	g := f.cur.Load()
	f.holdBeside(g, run, lockset.None)
	l.mu.Unlock()
	err := failpoint("unlock beside")
	if err == nil {
		err = kernelTurn.Run(func() error { return f.kernelUnlock(g, run) })
	}
	if err != nil {
		l.mu.LockBeside()
		f.holdBeside(g, run, lockset.Now)
		l.stuck = true
		l.mu.Unlock()
	}
	l.mu.End(change)
	return 0, 0
}
