package mmapio

import (
	"errors"
	"io/fs"
	"time"

	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

func (f *File) verify(op string, off, n int64) error {
	for try := 0; ; try++ {
		sure, err := f.verifyOnce(op, off, n, try)
		if sure {
			return err
		}
		if err != nil {
			time.Sleep(time.Millisecond)
		}
	}
}

// moves is how often verify waits for a ms until the kernel has moved a page.
const moves = 100

// errMoving is not an error: a page that is locked may be moved about in memory,
// and looks as if it were in swap meanwhile.
var errMoving = errors.New("the page is being moved")

// verifyOnce is one try of verify. It is not sure of what has changed since it
// looked: a Resize leaves a mapping behind whose locks have gone to the next, and
// an unlock takes huge pages apart before it brings them in again. After some tries
// it keeps both waiting meanwhile.
func (f *File) verifyOnce(op string, off, n int64, try int) (sure bool, _ error) {
	still := try >= 3
	l := &f.locks
	l.mu.Lock()
	g, lo, hi, err := f.lockRange(op, off, n)
	if err == nil && n == 0 {
		err = f.within(op, g, off, n)
	}
	if err != nil || n == 0 {
		l.mu.Unlock()
		return true, err
	}
	lo, hi, _ = page.Outward(lo, hi, int64(sys.PageSize()))
	lazy := l.lazy(lo, hi)
	end, why := hi, error(nil)
	if not := l.set.Missing(nil, lo, hi, lockset.OnFault); len(not) > 0 {
		end, why = not[0].Lo, errNotLocked
	}
	m := g.mem
	pass, ok := m.calls.Enter()
	if !ok {
		l.mu.Unlock()
		_, err := f.current(op) // waits for the Resize
		return err != nil, err
	}
	defer pass.Leave()
	if !still {
		l.mu.Unlock()
	}
	var badWhy error
	bad, err := int64(-1), failpoint("verify")
	if err == nil {
		bad, badWhy, err = m.notHeld(lo, end, lazy)
	}
	if !still {
		l.mu.Lock()
	}
	defer l.mu.Unlock()
	switch {
	case err != nil:
		return true, f.fail(op, err)
	case bad >= 0:
		if f.cur.Load().mem != m || !m.lacks(bad, badWhy) {
			return false, nil
		}
		// A page that was on its way may have come in between.
		if moving := m.space.Swapped(m.base + int(bad)); try < moves && (moving || !m.lacks(bad, badWhy)) {
			return false, errMoving
		}
		end, why = bad, badWhy
	case why == nil:
		return true, nil
	}
	f.amend(g, end, hi)
	return true, f.notHeld(op, g, end-int64(m.delta), why)
}

// notHeld finds the first page of [lo, hi) that is not locked or, but for some
// runs, not in RAM; -1 if there is none.
func (e *extent) notHeld(lo, hi int64, but []lockset.Run) (bad int64, why, err error) {
	bad = -1
	if lo < hi {
		at, err := e.unlocked(e.base+int(lo), int(hi-lo))
		if err != nil {
			return -1, nil, err
		}
		if at >= 0 {
			bad, why = int64(at-e.base), errNotLocked
			hi = bad
		}
	}
	absent, err := e.absentBut(lo, hi, but)
	if err == nil && absent >= 0 {
		bad, why = absent, errNotPresent
	}
	return bad, why, err
}

// unlocked returns the first page of n bytes of the space that the kernel may take
// out of RAM, or -1: one that is not locked, nor of hugetlbfs.
func (e *extent) unlocked(at, n int) (int, error) {
	end := at + n
	bad, err := e.space.Unlocked(at, n)
	for e.src.huge > 0 && bad >= 0 && err == nil {
		next, ok := e.space.HugeEnd(bad)
		if !ok {
			break
		}
		if next >= end {
			return -1, nil
		}
		bad, err = e.space.Unlocked(next, end-next)
	}
	return bad, err
}

// lacks tells whether notHeld is still right about a page.
func (e *extent) lacks(at int64, why error) bool {
	look := e.unlocked
	if errors.Is(why, errNotPresent) {
		look = e.space.Absent
	}
	bad, err := look(e.base+int(at), sys.PageSize())
	return err != nil || bad >= 0
}

// lazy returns the pages that need not be in RAM: those locked on fault and
// asked for by nothing else. The caller holds mu.
func (l *locker) lazy(lo, hi int64) (runs []lockset.Run) {
	for _, run := range l.set.Missing(nil, lo, hi, lockset.Now) {
		at := run.Lo
		for _, w := range l.set.Wanted(nil, run.Lo, run.Hi) {
			if w.Level == lockset.Now {
				runs = append(runs, lockset.Run{Lo: at, Hi: w.Lo})
				at = w.Hi
			}
		}
		runs = append(runs, lockset.Run{Lo: at, Hi: run.Hi})
	}
	return runs
}

// absentBut returns the first page of [lo, hi) that is not in RAM and in none
// of the runs, which are in order, or -1.
func (e *extent) absentBut(lo, hi int64, but []lockset.Run) (int64, error) {
	but = append(but, lockset.Run{Lo: hi, Hi: hi})
	for _, run := range but {
		if end := min(run.Lo, hi); lo < end {
			bad, err := e.space.Absent(e.base+int(lo), int(end-lo))
			if err != nil || bad >= 0 {
				return int64(bad - e.base), err
			}
		}
		lo = max(lo, run.Hi)
	}
	return -1, nil
}

// amend takes out of the books what the kernel no longer holds of [lo, hi). To
// lock it once more then repairs it. The caller holds locks.mu.
func (f *File) amend(g *generation, lo, hi int64) {
	l, m, ps := &f.locks, g.mem, int64(sys.PageSize())
	if f.cur.Load().mem != m {
		return // all was locked anew
	}
	for _, run := range l.set.Held(nil, lo, min(hi, m.mapped.Load())) {
		for at := run.Lo; at < run.Hi; at += ps {
			bad, err := m.unlocked(m.base+int(at), int(run.Hi-at))
			if err != nil || bad < 0 {
				break
			}
			at = int64(bad - m.base)
			l.set.Hold(at, at+ps, lockset.None)
			m.forget(at, at+ps) // as locked it was known for good
		}
		if run.Level != lockset.Now {
			continue
		}
		for _, part := range l.set.Held(nil, run.Lo, run.Hi) {
			bad, err := m.space.Absent(m.base+int(part.Lo), int(part.Hi-part.Lo))
			if err == nil && bad >= 0 {
				// From here on all is brought in again: what is there, fast.
				l.set.Hold(int64(bad-m.base), part.Hi, lockset.OnFault)
				m.forget(int64(bad-m.base), part.Hi)
			}
		}
	}
	f.recount(g)
}

// mend brings locked pages in again that left because others have cut the file
// and made it longer. What it cannot bring in is for VerifyLocked to tell. The
// caller holds f.mu, so that the mapping stays.
func (f *File) mend() {
	if sys.LocksStay {
		return
	}
	l := &f.locks
	l.mu.Lock()
	g := f.cur.Load()
	held := l.set.Held(nil, 0, g.mem.mapped.Load())
	l.mu.Unlock()
	for _, run := range held {
		for lo := run.Lo; lo < run.Hi && run.Level == lockset.Now && !f.closing.Load(); lo += lockWindow {
			hi := min(run.Hi, lo+lockWindow)
			bad, err := g.mem.space.Absent(g.mem.base+int(lo), int(hi-lo))
			if err == nil && bad >= 0 && f.settleAgain(g, int64(bad-g.mem.base), hi) != nil {
				l.mu.Lock()
				f.amend(g, lo, hi)
				l.mu.Unlock()
			}
		}
	}
}

// A glance is when a File has looked at its file, and from when that was.
type glance struct{ at, modified time.Time }

// changed looks whether the file may have been changed since the last time.
// What was changed right before a glance may be changed again without another
// time of change.
func (s *glance) changed(info fs.FileInfo) bool {
	const tick = 2 * time.Second // the coarsest that there is
	was := *s
	*s = glance{time.Now(), info.ModTime()}
	return !s.modified.Equal(was.modified) || was.at.Sub(was.modified) < tick
}
