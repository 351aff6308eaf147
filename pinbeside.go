package mmapio

import (
	"runtime"
	"slices"

	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

// Changes of the kernel's locks go one after another: whoever makes one has the books
// (locker.mu) for himself. But many goroutines that pin a page each spent more time to
// be woken for their turn than in the kernel, which does such calls side by side. So a
// change of a few pages, when nothing but these pages is at stake, shares the books:
//
//   - mu is held as by a reader, so that everybody else finds no such change half-done;
//   - locker.books guards the set meanwhile, and is not held in a system call;
//   - locker.busy has the pages, so that no two changes of the same page meet.
//
// What is not so simple, or fails, is left to the way that all others go.

// busyMost is how many changes are made side by side, at most.
const busyMost = 8

// begin takes pages for a change, if nobody else is changing any of them. The caller
// holds books.
func (l *locker) begin(run lockset.Run) (slot int, ok bool) {
	if !l.unchanging(run) {
		return 0, false
	}
	slot = slices.Index(l.busy, lockset.Run{})
	switch {
	case slot >= 0:
		l.busy[slot] = run
	case len(l.busy) < busyMost:
		slot = len(l.busy)
		l.busy = append(l.busy, run)
	default:
		return 0, false
	}
	return slot, true
}

// unchanging reports whether nobody is changing any of some pages. The caller holds
// books.
func (l *locker) unchanging(run lockset.Run) bool {
	for _, b := range l.busy {
		if b.Lo < run.Hi && run.Lo < b.Hi {
			return false
		}
	}
	return true
}

func (l *locker) end(slot int) { l.busy[slot] = lockset.Run{} }

// pinBeside is Pin where the pages are locked already, or are a few of which none is
// and all were seen in memory a moment ago. Else it returns nil and has done nothing.
func (f *File) pinBeside(off, n int64) *Pin {
	l := &f.locks
	l.mu.RLock()
	defer l.mu.RUnlock()
	l.books.Lock()
	defer l.books.Unlock()
	g, lo, hi, err := f.lockRange("pin", off, n)
	if err != nil || n == 0 {
		return nil
	}
	var run lockset.Run
	run.Lo, run.Hi, _ = page.Outward(lo, hi, int64(sys.PageSize()))
	if !l.unchanging(run) {
		return nil
	}
	if l.set.Covered(lo, hi, lockset.Now) {
		return &Pin{f: f, in: l.set, mark: l.set.Pin(lo, hi, lockset.Now)}
	}
	if hi-lo > few || !sys.LocksOnFault() || !g.mem.known(run) || !l.alone(run, 0) || l.mapRoom(1) != nil {
		return nil
	}
	slot, ok := l.begin(run)
	if !ok {
		return nil
	}
	// It stands in the books before it is done, for those who look beside.
	mark := l.set.Pin(lo, hi, lockset.Now)
	l.set.Hold(run.Lo, run.Hi, lockset.Now)
	f.hasLocked()
	f.recountOne(g, run, 1)
	l.books.Unlock()
	err = g.mem.space.Lock(g.mem.base+int(run.Lo), int(run.Hi-run.Lo))
	done := err == nil && g.mem.touch(run)
	if !done {
		err = f.kernelUnlock(g, run) // also of what was refused: a part may be locked
	}
	runtime.KeepAlive(g)
	l.books.Lock()
	l.end(slot)
	if done {
		return &Pin{f: f, in: l.set, mark: mark}
	}
	l.set.Unpin(mark)
	if err != nil {
		l.stuck = true // as in letGo
		return nil
	}
	l.set.Hold(run.Lo, run.Hi, lockset.None)
	f.recountOne(g, run, -1)
	return nil
}

// alone reports whether of the pages of a run and the two beside it so many runs are held:
// none, or the run itself.
func (l *locker) alone(run lockset.Run, runs int) bool {
	var room [2]lockset.Run
	held := l.set.Held(room[:0], run.Lo-1, run.Hi+1)
	return len(held) == runs && (runs == 0 || held[0].Lo == run.Lo && held[0].Hi == run.Hi)
}

// recountOne is recount after a run has been held, or no longer is, that is alone.
func (f *File) recountOne(g *generation, run lockset.Run, runs int64) {
	if run.Lo == 0 || run.Hi >= g.mem.mapped.Load() {
		f.recount(g)
		return
	}
	f.src.extra.Add(2 * runs)
	splits.Add(2 * runs)
}

// releaseBeside takes a pin out of the books, and lets its pages go if that is simple:
// all of them or none, and none beside them is held. Else it returns the bytes that are
// still to be let go.
func (p *Pin) releaseBeside() (lo, hi int64) {
	f, l := p.f, &p.f.locks
	l.mu.RLock()
	defer l.mu.RUnlock()
	l.books.Lock()
	defer l.books.Unlock()
	if l.set != p.in {
		return 0, 0 // released already, or the File was closed and the lock went with it
	}
	p.in = nil
	lo, hi = p.mark.Range()
	l.set.Unpin(p.mark)
	if l.stuck {
		return lo, hi
	}
	if l.set.WantedAll(lo, hi, lockset.Now) {
		return 0, 0
	}
	var room [2]lockset.Run
	excess := l.set.Excess(room[:0], lo, hi)
	if len(excess) == 0 {
		return 0, 0
	}
	run := excess[0]
	if len(excess) > 1 || run.Level != lockset.None || !l.alone(run, 1) {
		return lo, hi
	}
	slot, ok := l.begin(run)
	if !ok {
		return lo, hi
	}
	g := f.cur.Load()
	l.books.Unlock()
	err := f.kernelUnlock(g, run)
	l.books.Lock()
	l.end(slot)
	if err != nil {
		l.stuck = true
		return 0, 0
	}
	l.set.Hold(run.Lo, run.Hi, lockset.None)
	f.recountOne(g, run, -1)
	return 0, 0
}
