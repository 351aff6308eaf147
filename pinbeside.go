package mmapio

import (
	"runtime"

	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/sys"
)

// Changes of the kernel's locks go one after another: whoever makes one has the books
// (locker.mu) for himself. But many goroutines that pin a page each spent more time to
// be woken for their turn than in the kernel, which does such calls side by side. So a
// change of a few pages, when nothing but these pages is at stake, shares the books:
//
//   - mu is held as by a reader, so that everybody else finds no such change half-done;
//   - locker.few guards the set meanwhile, and is not held in a system call;
//   - locker.busy has the pages, so that no two changes of the same page meet.
//
// What is not so simple, or fails, is left to the way that all others go.

// busyMost is how many changes are made side by side, at most.
const busyMost = 8

// begin takes pages for a change, if nobody else is changing any of them. The caller
// holds few.
func (l *locker) begin(lo, hi int64) (slot int, ok bool) {
	slot = -1
	for i, b := range l.busy {
		if b.lo < hi && lo < b.hi {
			return 0, false
		}
		if b.hi == 0 {
			slot = i
		}
	}
	if slot < 0 {
		return 0, false
	}
	l.busy[slot] = pages{lo, hi}
	return slot, true
}

// idle reports whether nobody is changing any of some pages. The caller holds few.
func (l *locker) idle(lo, hi int64) bool {
	for _, b := range l.busy {
		if b.lo < hi && lo < b.hi {
			return false
		}
	}
	return true
}

func (l *locker) end(slot int) { l.busy[slot] = pages{} }

// pages are those of [lo, hi), which starts and ends with one.
type pages struct{ lo, hi int64 }

func pagesAround(lo, hi int64) pages {
	ps := int64(sys.PageSize())
	return pages{lo &^ (ps - 1), (hi + ps - 1) &^ (ps - 1)}
}

// pinBeside is Pin where the pages are locked already, or are a few of which none is
// and all were seen in memory a moment ago. Else it returns nil and has done nothing.
func (f *File) pinBeside(off, n int64) *Pin {
	l := &f.locks
	l.mu.RLock()
	defer l.mu.RUnlock()
	l.few.Lock()
	defer l.few.Unlock()
	g, lo, hi, err := f.lockRange("pin", off, n)
	if err != nil || n == 0 {
		return nil
	}
	p := pagesAround(lo, hi)
	if !l.idle(p.lo, p.hi) {
		return nil
	}
	if l.set.Covered(lo, hi, lockset.Now) {
		return &Pin{f: f, in: l.set, mark: l.set.Pin(lo, hi, lockset.Now)}
	}
	run := lockset.Run{Lo: p.lo, Hi: p.hi}
	if hi-lo > few || !sys.LocksOnFault() || !g.mem.known(run) || !l.unheld(p) ||
		l.mapRoom(l.set.RunsIfHeld(p.lo, p.hi)-l.set.HeldRuns()) != nil {
		return nil
	}
	pass, ok := g.mem.calls.Enter()
	if !ok {
		return nil
	}
	defer pass.Leave()
	slot, ok := l.begin(p.lo, p.hi)
	if !ok {
		return nil
	}
	// It stands in the books before it is done, for those who look beside.
	mark := l.set.Pin(lo, hi, lockset.Now)
	l.set.Hold(p.lo, p.hi, lockset.OnFault)
	f.hasLocked()
	f.recount(g)
	l.few.Unlock()
	err = g.mem.space.Lock(g.mem.base+int(p.lo), int(p.hi-p.lo))
	done := err == nil && g.mem.touch(run)
	if !done {
		f.kernelUnlock(g, run) //nolint:errcheck // a part of what is refused may be locked
	}
	runtime.KeepAlive(g)
	l.few.Lock()
	l.end(slot)
	if done {
		l.set.Hold(p.lo, p.hi, lockset.Now)
		return &Pin{f: f, in: l.set, mark: mark}
	}
	l.set.Unpin(mark)
	l.set.Hold(p.lo, p.hi, lockset.None)
	f.recount(g)
	return nil
}

// unheld reports whether none of some pages is held, nor one beside them.
func (l *locker) unheld(p pages) bool {
	var room [1]lockset.Run
	return len(l.set.Held(room[:0], p.lo-1, p.hi+1)) == 0
}

// releaseBeside takes a pin out of the books, and lets its pages go if that is simple:
// all of them or none, and none beside them is held. Else it returns the bytes that are
// still to be let go.
func (p *Pin) releaseBeside() (lo, hi int64) {
	f, l := p.f, &p.f.locks
	l.mu.RLock()
	defer l.mu.RUnlock()
	l.few.Lock()
	defer l.few.Unlock()
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
	if len(excess) > 1 || run.Level != lockset.None || l.besideHeld(run) {
		return lo, hi
	}
	slot, ok := l.begin(run.Lo, run.Hi)
	if !ok {
		return lo, hi
	}
	g := f.cur.Load()
	l.few.Unlock()
	err := f.kernelUnlock(g, run)
	l.few.Lock()
	l.end(slot)
	if err != nil {
		l.stuck = true
		return 0, 0
	}
	l.set.Hold(run.Lo, run.Hi, lockset.None)
	f.recount(g)
	return 0, 0
}

// besideHeld reports whether a page next to a run is held.
func (l *locker) besideHeld(run lockset.Run) bool {
	return run.Lo > 0 && l.set.Covered(run.Lo-1, run.Lo, lockset.OnFault) || l.set.Covered(run.Hi, run.Hi+1, lockset.OnFault)
}
