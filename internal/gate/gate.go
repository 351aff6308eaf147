// Package gate counts who is inside something that is about to be taken away.
//
// One counter, or a read-write lock, costs three times as much as soon as two
// cores use it, and a set of counters for each File would cost kilobytes for
// each of tens of thousands. So the process has one table of cells, each on a
// cache line of its own, and whoever enters writes the gate's address into a
// free cell. To ask whether a gate is empty is to look at all cells, which
// only those do who close something.
package gate

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// A Gate is open from the start. Its methods may be called concurrently.
type Gate struct {
	shut  atomic.Bool
	spill atomic.Int64 // those who found no free cell nearby, and Hold

	mu      sync.Mutex
	emptied sync.Cond // on mu
	notify  func()    // called after a Leave that may have been the last
}

// A Pass is the proof of having entered. The cell in it, and not a fresh look,
// says what to clear: the goroutine may have moved since, and its stack too.
type Pass struct {
	gate *Gate
	cell *cell
}

type cell struct {
	gate atomic.Uintptr // of the Gate; whoever is inside keeps that alive
	_    [64 - unsafe.Sizeof(uintptr(0))]byte
}

const (
	cellCount = 512 // a power of two
	tries     = 3   // after the first
)

var cells [cellCount]cell

func (g *Gate) id() uintptr { return uintptr(unsafe.Pointer(g)) }

// Enter tells that the caller is inside, unless the gate is shut.
func (g *Gate) Enter() (Pass, bool) {
	// Goroutines that run at the same time have different stacks.
	var here byte
	at := uintptr(unsafe.Pointer(&here)) >> 11
	c := &cells[(at^at>>9)%cellCount]
	if !c.gate.CompareAndSwap(0, g.id()) {
		c = g.elsewhere(at)
	}
	// The order matters: first be seen, then look. Shut does the reverse.
	if g.shut.Load() {
		Pass{g, c}.Leave()
		return Pass{}, false
	}
	return Pass{g, c}, true
}

// elsewhere finds another cell, or none. Calls nest, and stacks may collide.
func (g *Gate) elsewhere(at uintptr) *cell {
	for range tries {
		at = at*5 + 7
		c := &cells[(at^at>>9)%cellCount]
		if c.gate.Load() == 0 && c.gate.CompareAndSwap(0, g.id()) {
			return c
		}
	}
	g.spill.Add(1)
	return nil
}

// Leave ends what Enter began. It is called once for each Pass.
func (p Pass) Leave() {
	if p.cell == nil {
		p.gate.Release()
		return
	}
	p.cell.gate.Store(0)
	if p.gate.shut.Load() {
		p.gate.left()
	}
}

// Hold is Enter for those who stay long. Release ends it.
func (g *Gate) Hold() bool {
	g.spill.Add(1)
	if g.shut.Load() {
		g.Release()
		return false
	}
	return true
}

// Release ends what Hold began. It is called once for each Hold.
func (g *Gate) Release() {
	g.spill.Add(-1)
	if g.shut.Load() {
		g.left()
	}
}

// Shut makes Enter and Hold fail from now on. After each Leave and Release
// that follows, notify is called, if it is not nil.
func (g *Gate) Shut(notify func()) {
	g.mu.Lock()
	g.notify = notify
	g.emptied.L = &g.mu
	g.mu.Unlock()
	g.shut.Store(true)
}

// Open undoes Shut.
func (g *Gate) Open() { g.shut.Store(false) }

// Empty reports whether nobody is inside. The answer lasts only if the gate is
// shut.
func (g *Gate) Empty() bool {
	if g.spill.Load() != 0 {
		return false
	}
	for i := range cells {
		if cells[i].gate.Load() == g.id() {
			return false
		}
	}
	return true
}

// Wait returns when nobody is inside. The gate must be shut.
func (g *Gate) Wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.Empty() {
		g.emptied.Wait()
	}
}

func (g *Gate) left() {
	g.mu.Lock()
	notify := g.notify
	g.emptied.Broadcast()
	g.mu.Unlock()
	if notify != nil {
		notify()
	}
}
