package mmapio

import (
	"context"
	"io/fs"

	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/sys"
)

// A tail is what a growth adds, where Options.Lock wants it locked before
// anybody sees it. A nil tail asks for nothing.
type tail struct {
	call   lockCall    // what is added, for errors
	lo, hi int64       // its pages, but for the one in which the old end lies
	edge   lockset.Pin // keeps that one locked meanwhile
	roomy  bool        // the cgroups were asked for its room
	done   bool        // it stands in the books
}

// newTail begins a growth to size. After an error too it is for endTail.
func (f *File) newTail(op string, g *generation, size int64) (*tail, error) {
	old := int64(len(g.data))
	level := f.opts.Lock.level()
	if level == lockset.None || size <= old {
		return nil, nil
	}
	t := &tail{call: lockCall{op: op, off: old, n: size - old, level: level}}
	t.hi = int64(pageUp(g.mem.delta + int(size)))
	if old == 0 {
		return t, nil
	}
	end := int64(g.mem.delta) + old
	t.lo = int64(pageUp(int(end)))
	if t.lo == end {
		return t, nil
	}
	// Bytes are added to a page that others see already: it is locked as any
	// page, and goes along like all that is locked.
	var err error
	t.edge, err = f.claim(&t.call, end-1, end)
	return t, err
}

// endTail lets go of what newTail took.
func (f *File) endTail(t *tail) {
	if t == nil || t.done {
		return
	}
	l := &f.locks
	l.mu.Lock()
	defer l.mu.Unlock()
	lo, hi := t.edge.Range()
	l.set.Unpin(t.edge)
	f.letGo(f.cur.Load(), lo, hi)
}

// enter puts what is locked into the books. The caller holds locks.mu, and
// shows the new size before it lets go of it.
func (t *tail) enter(f *File, delta int) {
	if t == nil {
		return
	}
	l := &f.locks
	f.hasLocked()
	held := t.call.level
	if !sys.LocksOnFault() {
		held = lockset.Now
	}
	l.set.Raise(t.call.off+int64(delta), t.call.off+t.call.n+int64(delta), t.call.level)
	l.set.Hold(t.lo, t.hi, held)
	l.set.Unpin(t.edge)
	t.done = true
}

func (t *tail) run() lockset.Run { return lockset.Run{Lo: t.lo, Hi: t.hi} }

// bringsIn reports whether there are pages to be brought in.
func (t *tail) bringsIn() bool {
	return t != nil && t.lo < t.hi && (t.call.level == lockset.Now || !sys.LocksOnFault())
}

// lockTail locks the pages of a generation that nobody sees yet, and that
// takes nobody's locks over. After an error they are for unlockTail.
func (f *File) lockTail(t *tail, next *generation) error {
	if t == nil || t.lo >= t.hi {
		return nil
	}
	if err := f.tryTail(t, next); err != nil {
		return err
	}
	return f.bringTail(t, next, true)
}

// readyTail does for a generation that takes locks over all but the locking
// itself: that has to wait until the old locks are charged once again.
func (f *File) readyTail(t *tail, next *generation) error {
	if t == nil || t.lo >= t.hi {
		return nil
	}
	err := f.tryTail(t, next)
	f.unlockTail(t, next)
	if err != nil {
		return err
	}
	return f.bringTail(t, next, false)
}

// tryTail asks for the lock before anything is read from the disk for it, where
// that leaves pages alone that are not in memory, as none is yet.
func (f *File) tryTail(t *tail, next *generation) error {
	l := &f.locks
	l.mu.Lock()
	err := failpoint("lock tail")
	if err == nil {
		err = l.mapRoom(l.set.RunsIfHeld(t.lo, t.hi) - l.set.HeldRuns())
	}
	l.mu.Unlock()
	if err == nil && sys.LocksOnFault() {
		err = next.mem.space.Lock(next.mem.base+int(t.lo), int(t.hi-t.lo))
	}
	if err != nil {
		return f.lockError(&t.call, next, t.lo, t.hi, err)
	}
	return nil
}

// bringTail brings the pages in, window by window, and with lock sees to it that
// they are locked where tryTail did not do that.
func (f *File) bringTail(t *tail, next *generation, lock bool) error {
	if !t.bringsIn() {
		return nil
	}
	if !t.roomy {
		// All at once: what is brought in but not yet locked would count as room.
		room, err := f.roomInCgroups(context.Background(), &t.call, next, []lockset.Run{t.run()})
		if err != nil {
			return err
		}
		defer room.release()
	}
	for lo := t.lo; lo < t.hi; {
		hi := min(t.hi, lo+lockWindow)
		if f.closing.Load() {
			return f.fail(t.call.op, fs.ErrClosed)
		}
		err := f.settle(next, lo, hi)
		if err == nil && lock && !sys.LocksOnFault() {
			err = next.mem.space.Lock(next.mem.base+int(lo), int(hi-lo))
		}
		if err != nil {
			return f.lockError(&t.call, next, lo, hi, err)
		}
		lo = hi
	}
	return nil
}

// settle brings pages in, and looks whether they stayed. Where they cannot be
// brought into the mapping, the lock does that, afterwards.
func (f *File) settle(g *generation, lo, hi int64) error {
	if !sys.CanPopulate() {
		return f.populate(g, lo, hi)
	}
	return f.settleAgain(g, lo, hi)
}

// settleAgain is settle of pages that are locked already.
func (f *File) settleAgain(g *generation, lo, hi int64) error {
	for range settleTries {
		if err := f.bringBack(g, lo, hi); err != nil {
			return err
		}
		if err := failpoint("settle"); err != nil {
			return err
		}
		bad, err := g.mem.space.Absent(g.mem.base+int(lo), int(hi-lo))
		if err != nil || bad < 0 {
			return nil //nolint:nilerr // the kernel does not tell
		}
		lo = int64(bad - g.mem.base)
	}
	return errUnsettled
}

// lockReadyTail is the rest of what readyTail began. The caller holds locks.mu.
func (f *File) lockReadyTail(t *tail, next *generation) error {
	if t == nil {
		return nil
	}
	for lo := t.lo; lo < t.hi; {
		hi := min(t.hi, lo+lockWindow)
		err := next.mem.space.Lock(next.mem.base+int(lo), int(hi-lo))
		if err == nil && t.call.level == lockset.Now && sys.LocksOnFault() {
			bad, known := next.mem.space.Absent(next.mem.base+int(lo), int(hi-lo))
			if known == nil && bad >= 0 {
				err = f.settle(next, int64(bad-next.mem.base), hi)
			}
		}
		if err != nil {
			return f.lockErrorHeld(&t.call, next, lo, hi, err, t.hi-t.lo)
		}
		lo = hi
	}
	return nil
}

// unlockTail undoes lockTail and lockReadyTail, for memory that stays.
func (f *File) unlockTail(t *tail, next *generation) {
	if t != nil && t.lo < t.hi {
		f.kernelUnlock(next, t.run()) //nolint:errcheck // it was locked as one
	}
}
