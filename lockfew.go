package mmapio

import (
	"runtime"

	"github.com/mmapio/mmapio/internal/fault"
	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/sys"
)

// few is how much is locked in one go, without windows and what they are for: no
// more than the cgroups need not be asked about.
const few = 64 << 10

// lockFew pins a few pages in one window, and tells whether that was done; if not,
// lockWindows is to do it, or to say why not. The caller holds locks.mu, which is
// let go while pages are brought in.
func (f *File) lockFew(call *lockCall, g *generation, lo, hi int64) (pin lockset.Pin, held bool, err error) {
	if hi-lo > few || !sys.LocksOnFault() {
		return pin, false, nil
	}
	l := &f.locks
	var room [4]lockset.Run
	missing := l.set.Missing(room[:0], lo, hi, lockset.Now)
	pass, ok := g.mem.calls.Enter()
	if !ok {
		return pin, false, nil
	}
	if err := f.kernelLock(call, g, missing); err != nil {
		pass.Leave()
		return pin, false, err
	}
	if g.mem.touchKnown(missing) {
		f.holdRuns(call, g, missing, lockset.Now)
		pass.Leave()
		return l.set.Pin(lo, hi, lockset.Now), true, nil
	}
	f.holdRuns(call, g, missing, lockset.OnFault)
	pin = l.set.Pin(lo, hi, lockset.Now)
	apart, shrinks := l.apart, g.mem.shrinks.Load()
	l.mu.Unlock()
	for _, run := range missing {
		if err = f.populate(g, run.Lo, run.Hi); err != nil {
			break
		}
		g.mem.found(&g.mem.resident, int(run.Lo>>pageShift), int((run.Hi-1)>>pageShift), shrinks)
	}
	l.mu.Lock()
	// The pages cannot have been cut off and come back before this call leaves.
	if err == nil && f.cur.Load().mem == g.mem && l.apart == apart {
		for _, run := range l.set.Missing(room[:0], lo, hi, lockset.Now) {
			if run.Level == lockset.OnFault {
				l.set.Hold(run.Lo, run.Hi, lockset.Now)
			}
		}
		held = l.set.Covered(lo, hi, lockset.Now)
	}
	pass.Leave()
	runtime.KeepAlive(g)
	if !held && f.cur.Load() != closedGeneration {
		l.set.Unpin(pin) // and what is locked goes with the windows, if they fail
	}
	return pin, held, nil
}

// touchKnown brings some runs in by touch, if all are known. It tells whether they
// are there.
func (e *extent) touchKnown(runs []lockset.Run) bool {
	for _, run := range runs {
		if !e.known(run) {
			return false
		}
	}
	for _, run := range runs {
		if !e.touch(run, false) {
			return false
		}
	}
	return true
}

// known reports whether all pages of a run were seen in memory within the last second.
// Pages of memory with no file behind it count as not seen: to load gives them none of
// their own.
func (e *extent) known(run lockset.Run) bool {
	return e.src.info != nil && e.resident.Has(int(run.Lo>>pageShift), int((run.Hi-1)>>pageShift))
}

// touch loads from each page of a run, and tells whether they are there: it takes less
// time than a system call, and has them mapped as well. They are known then, if they
// were not.
func (e *extent) touch(run lockset.Run, unknown bool) bool {
	shrinks := e.shrinks.Load()
	if fault.Touch(e.space.Bytes(e.base+int(run.Lo), int(run.Hi-run.Lo)), sys.PageSize(), false) >= 0 {
		return false
	}
	if unknown {
		e.found(&e.resident, int(run.Lo>>pageShift), int((run.Hi-1)>>pageShift), shrinks)
	}
	return true
}
