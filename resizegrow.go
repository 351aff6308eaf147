package mmapio

import (
	"context"

	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/sys"
)

// grow maps size bytes, at least as many as now. The file has them. cut is the
// last step that may fail.
func (f *File) grow(op string, g *generation, size int64, cut func() error) error {
	if size == int64(len(g.data)) {
		if err := cut(); err != nil {
			return f.fail(op, err)
		}
		return nil
	}
	t, err := f.newTail(op, g, size)
	if err == nil {
		switch {
		case f.growsInPlace(g, size):
			err = f.growInPlace(op, g, size, t, cut)
		case f.anonymous():
			err = f.moveMemory(op, g, size, t)
		case f.src.mode == CopyOnWrite:
			err = f.growPrivate(op, g, size, t)
		default:
			err = f.replace(op, g, size, t, nil, cut)
		}
	}
	f.endTail(t)
	return err
}

func (f *File) growsInPlace(g *generation, size int64) bool {
	m := g.mem
	if m.space == nil || !sys.CanReserve {
		return false
	}
	guard := 0
	if f.anonymous() {
		guard = m.base // as wide above as below
	}
	return m.base+pageUp(m.delta+int(size)) <= m.space.Size()-guard
}

// growInPlace maps what is missing behind what is mapped.
func (f *File) growInPlace(op string, g *generation, size int64, t *tail, cut func() error) error {
	m := g.mem
	from, to := int(m.mapped.Load()), pageUp(m.delta+int(size))
	next := m.generation(int(size))
	var err error
	if to > from {
		err = failpoint("map")
		if err == nil {
			err = f.place(m.extent, from, to-from)
		}
		if err == nil {
			err = f.adviseNew(m.extent, m.base+from, to-from)
		}
	}
	if err == nil && f.src.mode == CopyOnWrite {
		err = f.refill(g, size)
	}
	if err == nil {
		err = f.lockTail(t, next)
	}
	if err == nil {
		err = cut()
	}
	if err != nil {
		f.unlockTail(t, next)
		if to > from {
			m.space.Clear(m.base+from, to-from) //nolint:errcheck // the first error counts
		}
		return f.fail(op, err)
	}
	f.publish(next, t)
	return nil
}

// place maps n bytes of the extent from at on, counted from base.
func (f *File) place(e *extent, at, n int) error {
	if f.anonymous() {
		return e.space.PlaceAnon(e.base+at, n)
	}
	start := f.src.off - int64(e.delta) + int64(at)
	return e.space.Place(f.src.file, start, e.base+at, n, f.src.mode.access())
}

// publish makes a generation that grew in place the File's.
func (f *File) publish(next *generation, t *tail) {
	m := next.mem
	mapped := 0
	if len(next.data) > 0 {
		mapped = pageUp(m.delta + len(next.data))
	}
	l := &f.locks
	l.mu.Lock()
	defer l.mu.Unlock()
	m.mapped.Store(int64(max(mapped, int(m.mapped.Load()))))
	t.enter(f, m.delta)
	f.cur.Store(next)
	f.recount(next)
}

// replace maps all anew beside the old, carries the locks over, and gives the
// old up. fill, if not nil, makes the new memory what the old one is.
func (f *File) replace(op string, g *generation, size int64, t *tail, fill func(from, to *generation) error, cut func() error) error {
	err := failpoint("map")
	if err != nil {
		return f.fail(op, err)
	}
	next, err := f.mapNew(op, size, max(size, f.opts.Reserve))
	if err != nil {
		return err
	}
	room, err := f.roomToMove(op, g, next, t)
	defer room.release()
	if err == nil && fill != nil {
		if err = fill(g, next); err == nil && !g.mem.secret {
			room.release() // charged by now; a secret is copied as its locks are handed over
		}
	}
	if err != nil {
		next.mem.retire()
		return err
	}
	if err := f.readyTail(t, next); err != nil {
		next.mem.retire()
		return err
	}
	next.mem.follow(append(f.old, g.mem.extent)...)
	l := &f.locks
	l.mu.Lock()
	if err := f.handOver(op, g, next, t, cut); err != nil {
		l.mu.Unlock()
		next.mem.retire()
		return err
	}
	t.enter(f, next.mem.delta)
	f.cur.Store(next)
	f.recount(next)
	l.mu.Unlock()
	g.mem.retire()
	f.keep(g.mem.extent)
	return nil
}

// roomToMove asks the cgroups for what is locked of memory with no file behind it:
// until the old generation is given up, there are two of it. Of a secret it asks for
// the tail as well: its room is kept until the locks are handed over, and who asked
// for more meanwhile might wait for himself.
func (f *File) roomToMove(op string, g, next *generation, t *tail) (room, error) {
	if !f.anonymous() {
		return room{}, nil
	}
	l := &f.locks
	l.mu.Lock()
	held := l.set.Held(nil, 0, g.mem.mapped.Load())
	l.mu.Unlock()
	call := lockCall{op: op, n: int64(len(g.data)), level: lockset.Now}
	if g.mem.secret && t.bringsIn() {
		held, t.roomy = append(held, t.run()), true
		call.n = int64(len(next.data))
	}
	return f.roomInCgroups(context.Background(), &call, next, held)
}

// keep remembers old generations that are still in use, for a shrink to see.
func (f *File) keep(e *extent) {
	all := append(f.old, e)
	f.old = f.old[:0]
	for _, e := range all {
		e.mu.Lock()
		if !e.gone {
			f.old = append(f.old, e)
		}
		e.mu.Unlock()
	}
}
