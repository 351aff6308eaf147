// Package beside lets short changes of a process's mappings go beside each other.
//
// Whoever changes what the kernel holds locked, or reads the books about it, has a lock,
// so that nobody finds a change half-done. But many goroutines that change a page each
// would spend more time to be woken for their turn than in the kernel, which does such
// calls side by side. So there are changes of a few pages for which the lock is held
// while they are written into the books, and not in the system call.
package beside

import (
	"sync"
	"sync/atomic"
)

// A Lock is a mutex that waits for all changes to be over. The zero value is ready.
type Lock struct {
	mu      sync.Mutex
	changes *changes // nil until somebody begins one
}

// changes are those under way.
type changes struct {
	waiting atomic.Int32 // in Lock.Lock; written with mu held
	over    sync.Cond    // some are, for those who wait
	at      [most]Change
}

// most is how many changes go side by side, at most.
const most = 8

// A Change is one of some pages, from Begin to End.
type Change struct {
	on     atomic.Bool // turned on with mu held
	lo, hi int64       // written with mu held, while the change is not on
}

// Lock locks l when no change is under way. None begins while it waits.
func (l *Lock) Lock() {
	l.mu.Lock()
	if c := l.changes; c.any() {
		c.waiting.Add(1)
		for c.any() {
			c.over.Wait()
		}
		c.waiting.Add(-1)
	}
}

// TryLock is Lock where that need not wait. It reports whether it has locked l.
func (l *Lock) TryLock() bool {
	if !l.mu.TryLock() {
		return false
	}
	if l.changes.any() {
		l.mu.Unlock()
		return false
	}
	return true
}

// LockBeside locks l while changes may be under way. Their pages are to be left alone.
func (l *Lock) LockBeside() { l.mu.Lock() }

// Unlock ends Lock, TryLock and LockBeside.
func (l *Lock) Unlock() { l.mu.Unlock() }

func (c *changes) any() bool {
	if c == nil {
		return false
	}
	for i := range c.at {
		if c.at[i].on.Load() {
			return true
		}
	}
	return false
}

// Changing reports whether a change of any of [lo, hi) is under way. The caller holds l.
func (l *Lock) Changing(lo, hi int64) bool {
	if l.changes == nil {
		return false
	}
	for i := range l.changes.at {
		if c := &l.changes.at[i]; c.on.Load() && c.lo < hi && lo < c.hi {
			return true
		}
	}
	return false
}

// Begin begins a change of [lo, hi), of which nothing is being changed. It returns nil
// if enough changes are under way, or somebody waits for them to be over. The caller
// holds l, and lets go of it before the change is made.
func (l *Lock) Begin(lo, hi int64) *Change {
	if l.changes == nil {
		l.changes = new(changes)
		l.changes.over.L = &l.mu
	}
	if l.changes.waiting.Load() > 0 {
		return nil
	}
	for i := range l.changes.at {
		if c := &l.changes.at[i]; !c.on.Load() {
			c.lo, c.hi = lo, hi
			c.on.Store(true)
			return c
		}
	}
	return nil
}

// End ends a change. The caller does not hold l: most of the time nobody waits.
func (l *Lock) End(c *Change) {
	c.on.Store(false)
	// Who waits has said so before he looked at the changes.
	if l.changes.waiting.Load() > 0 {
		l.mu.Lock()
		l.changes.over.Broadcast()
		l.mu.Unlock()
	}
}
