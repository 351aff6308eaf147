package mmapio

import (
	"errors"

	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

// handOver locks in the new generation what is locked in the old, window by
// window: both map the same pages, so none is ever free to leave, and no more
// than a window is charged twice. The caller holds locks.mu.
// What is added is locked last, when all else is charged once. cut is the last
// step; if it fails, the locks go back.
func (f *File) handOver(op string, from, to *generation, t *tail, cut func() error) error {
	l := &f.locks
	var done []lockset.Run
	if from.mem.secret {
		f.moveUnlocked(from, to)
	}
	for _, run := range l.set.Held(nil, 0, min(from.mem.mapped.Load(), to.mem.mapped.Load())) {
		window := int64(lockWindow)
		for lo := run.Lo; lo < run.Hi; {
			part := lockset.Run{Lo: lo, Hi: min(run.Hi, lo+window), Level: run.Level}
			err := f.lockNew(to, part)
			if n, ps := part.Hi-part.Lo, int64(sys.PageSize()); isNoRoom(err) && n > ps {
				// There may be room for less.
				window = max(page.Down(n/2, ps), ps)
				continue
			}
			lost := false
			if isNoRoom(err) && fitsAgain() {
				// There is room for nothing, so this page moves by being free
				// for a moment.
				f.kernelUnlock(from, part) //nolint:errcheck // it is locked again below
				err = f.lockNew(to, part)
				lost = err != nil && f.lockNew(from, part) != nil
			}
			if err != nil {
				f.kernelUnlock(to, part) //nolint:errcheck // what is locked of it
				f.handBack(from, to, done)
				if lost {
					f.amend(from, part.Lo, part.Hi) // others have taken the room for it
				}
				call := &lockCall{op: op, off: max(run.Lo-int64(to.mem.delta), 0), n: run.Hi - run.Lo}
				return f.lockErrorHeld(call, to, part.Lo, part.Hi, err, part.Hi-part.Lo)
			}
			if part.Level == lockset.OnFault {
				f.bringTouched(from, to, part)
			}
			moveSecret(from, to, part)
			f.kernelUnlock(from, part) //nolint:errcheck // the old mapping goes anyway
			done = append(done, part)
			lo = part.Hi
		}
	}
	err := f.lockReadyTail(t, to)
	if err == nil {
		err = cut()
	}
	if err != nil {
		f.unlockTail(t, to)
		f.handBack(from, to, done)
		return f.fail(op, err)
	}
	from.mem.blank()
	l.set.Truncate(int64(to.mem.delta + len(to.data)))
	return nil
}

// isNoRoom reports whether a lock was refused for a limit: not all systems call that
// a want of memory.
func isNoRoom(err error) bool { return isNoMemory(err) || errors.Is(err, sys.ErrAgain) }

// fitsAgain reports whether what is unlocked can be locked again: not if the
// limit has been lowered below what is locked already.
func fitsAgain() bool {
	lim, err := ReadLockLimits()
	return err != nil || lim.Soft < 0 || lim.InUse <= lim.Soft
}

// lockNew locks a run in a generation that nobody knows yet.
func (f *File) lockNew(g *generation, run lockset.Run) error {
	if err := failpoint("lock"); err != nil {
		return err
	}
	lock := func() error { return g.mem.space.Lock(g.mem.base+int(run.Lo), int(run.Hi-run.Lo)) }
	if run.Level != lockset.Now {
		return lock()
	}
	// A lock that begins or ends inside of a huge page takes all of that out
	// of the mapping. So the pages come in after it, where that can be.
	if sys.LocksOnFault() {
		if err := lock(); err != nil {
			return err
		}
	}
	if err := f.populate(g, run.Lo, run.Hi); err != nil && !errors.Is(err, sys.ErrUnreadable) {
		return err
	}
	if sys.LocksOnFault() {
		return nil
	}
	return lock()
}

// keepIn brings the locked pages of [lo, hi) in again, after something that may
// have taken them out of the mapping: what is not mapped is not locked. That
// is a lock or unlock of a part of a huge page, and a cut of the file inside
// of a folio (the kernel keeps files in folios of up to 2048 pages, and splits
// the one that is cut, or that an earlier cut could not split). The caller holds locks.mu.
func (f *File) keepIn(g *generation, lo, hi int64) {
	if lo >= hi || sys.LocksStay {
		return
	}
	f.locks.apart++ // windows that are under way look for themselves
	for _, run := range f.locks.set.Held(nil, lo, hi) {
		lo, hi := max(run.Lo, lo), min(run.Hi, hi)
		if at, err := g.mem.space.Absent(g.mem.base+int(lo), int(hi-lo)); err == nil && at < 0 {
			continue
		}
		if run.Level == lockset.OnFault {
			f.bringCached(g, lo, hi)
			continue
		}
		// Whatever stands in the way, VerifyLocked tells.
		f.bringBack(g, lo, hi) //nolint:errcheck // as above
	}
}

// bringCached is bringBack for pages that are locked once they are touched: those
// that were a moment ago are in the page cache still. If the kernel does not say
// which, the next touch locks them again.
func (f *File) bringCached(g *generation, lo, hi int64) {
	if f.anonymous() || !sys.Owns(f.src.info) {
		return // memory of its own does not leave
	}
	m := g.mem
	m.space.Incore(m.base+int(lo), int(hi-lo), func(lo, hi int) { //nolint:errcheck // as above
		f.populate(g, int64(lo-m.base), int64(hi-m.base)) //nolint:errcheck // as above
	})
}

// bringTouched brings in what is in the mapping before, where a page is locked once
// it is touched.
func (f *File) bringTouched(from, to *generation, run lockset.Run) {
	m := from.mem
	err := m.space.Present(m.base+int(run.Lo), int(run.Hi-run.Lo), func(lo, hi int) {
		f.populate(to, int64(lo-m.base), int64(hi-m.base)) //nolint:errcheck // the next touch tells
	})
	if errors.Is(err, errors.ErrUnsupported) {
		f.bringCached(to, run.Lo, run.Hi)
	}
}

// bringBack brings locked pages in again. To lock them once more does that where
// nothing else can, but must not meet what cannot be read.
func (f *File) bringBack(g *generation, lo, hi int64) error {
	err := f.populate(g, lo, hi)
	if err == nil && !sys.LocksOnFault() {
		err = g.mem.space.Lock(g.mem.base+int(lo), int(hi-lo))
	}
	return err
}

// edges tells how far beyond the two ends of a run the pages have to be kept in,
// because to unlock the run takes a huge page apart that it shares with them.
//
// No huge page spans the place where locked and unlocked pages meet: mappings
// end there. So only an end that lies within locked pages can be inside of one.
// To lock a run never takes out what is locked beside it: either the run meets
// it at such a place already, or it is no part of the same huge page.
func (f *File) edges(g *generation, run lockset.Run) (low, high int64) {
	low, high = run.Lo, run.Hi
	if sys.LocksStay {
		return low, high
	}
	m, huge := g.mem, int64(sys.HugePage())
	start := int64(m.area.Lo) + int64(m.base)
	inside := func(at int64) bool {
		return (start+at)%huge != 0 && at > 0 && at < m.mapped.Load() &&
			f.locks.set.Covered(at-1, at+1, lockset.OnFault) && m.space.Huge(m.base+int(at))
	}
	if inside(run.Lo) {
		low = max(run.Lo-(start+run.Lo)%huge, 0)
	}
	if inside(run.Hi) {
		high = min(run.Hi+huge-(start+run.Hi)%huge, m.mapped.Load())
	}
	return low, high
}

// handBack undoes a part of handOver. What was locked a moment ago fits again, unless
// others have taken the room for it: then it does not stand in the books any more.
func (f *File) handBack(from, to *generation, done []lockset.Run) {
	if from.mem.secret {
		f.moveUnlocked(to, from) // as long as the books tell what that is
	}
	for i := len(done) - 1; i >= 0; i-- {
		lock := func() error {
			return from.mem.space.Lock(from.mem.base+int(done[i].Lo), int(done[i].Hi-done[i].Lo))
		}
		err := lock() // beside the new one, for which there was room on the way here
		moveSecret(to, from, done[i])
		f.kernelUnlock(to, done[i]) //nolint:errcheck // the new mapping goes anyway
		if err != nil && lock() != nil {
			f.amend(from, done[i].Lo, done[i].Hi)
		}
	}
	for _, run := range done {
		if f.anonymous() || f.src.mode == CopyOnWrite {
			// Copies that the old mapping alone has were not locked meanwhile.
			from.mem.swapIn(from.mem.base+int(run.Lo), int(run.Hi-run.Lo)) //nolint:errcheck // as in keepIn
		}
		// That is where a huge page may have been taken apart.
		huge := int64(sys.HugePage())
		f.keepIn(from, run.Lo-huge, run.Lo+huge)
		f.keepIn(from, run.Hi-huge, run.Hi+huge)
	}
}

// lockAgain locks in a generation all that the books say. The caller holds
// locks.mu.
func (f *File) lockAgain(op string, g *generation) error {
	for _, run := range f.locks.set.Held(nil, 0, g.mem.mapped.Load()) {
		if err := f.lockNew(g, run); err != nil {
			call := &lockCall{op: op, off: max(run.Lo-int64(g.mem.delta), 0), n: run.Hi - run.Lo}
			return f.lockErrorHeld(call, g, run.Lo, run.Hi, err, run.Hi-run.Lo)
		}
	}
	return nil
}
