package mmapio

import (
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/mmapio/mmapio/internal/fault"
	"github.com/mmapio/mmapio/internal/gate"
	"github.com/mmapio/mmapio/internal/known"
	"github.com/mmapio/mmapio/internal/sys"
)

// A source is what memory was mapped from: what all generations of a File have
// in common, and what an error about any of them needs.
type source struct {
	name string
	mode Mode
	off  int64       // in the file, of the first mapped byte; of memory with no file, in its first page
	file *os.File    // nil: no file, or DropFD
	info fs.FileInfo // as it was when opened; nil: no file

	huge     int  // the size of its pages, if it is on hugetlbfs
	shared   bool // to read by the descriptor moves the offset of one that is not ours
	uncached bool // no descriptor, and the pages are not in the page cache

	extra  atomic.Int64 // mappings that the File's locks and advice cost, see splits
	cuts   atomic.Int64 // of these, what advice costs
	reads  atomic.Int32 // a sys.Reads
	waits  atomic.Bool  // it can only be read by waiting, see readWaiting
	ahead  atomic.Int64 // as readAhead found out
	locked atomic.Bool  // something was ever locked
	random atomic.Bool  // some part was advised to be read at random, see window.ask

	owner weak.Pointer[File]
}

// readable reports whether there is a descriptor to read by.
func (s *source) readable() bool { return s.file != nil && !s.shared }

// A generation is what a File maps at a moment: a slice that never changes and
// the memory below it. Resize, Refresh and Close replace the File's generation.
type generation struct {
	data []byte // len == cap
	mem  *memory
}

// A memory keeps an extent alive. It is a type of its own because the
// collector, when nothing refers to a memory any more, gives the extent's
// addresses back (see newMemory): whoever touches data keeps the generation,
// and so the memory, alive past the last touch.
type memory struct {
	*extent
}

// An extent is one stretch of address space with mapped bytes in it, and those
// who are inside of it.
//
// There are three kinds of them. Holders (views, regions) are never waited
// for: the last to leave takes the memory away. Calls (system calls that may
// take long) are waited for by a shrink alone. Copiers are counted only where
// gated is set: elsewhere they enter nothing, and find out by a fault that
// their memory was taken away, which leaves the addresses reserved until the
// collector knows that no copier is left.
type extent struct {
	src   *source
	space *sys.Space
	base  int  // where in the space the page of the first mapped byte starts
	delta int  // where in that page the byte is
	gated bool // copiers enter too

	secret bool   // zeroed before it is given back
	serial uint64 // tells it from those before it, see met

	holders, calls, copiers gate.Gate

	mapped  atomic.Int64 // bytes from base that are mapped, in whole pages; the rest is reserved
	shrinks atomic.Int64 // how often pages were taken away in place, see found
	touched atomic.Bool  // a lock has brought something in, see kernelLock

	mu      sync.Mutex
	retired bool // taken away as soon as nobody is inside
	gone    bool // taken away
	idle    bool // … but for the addresses
	lost    bool // the collector has been here, and found somebody inside
	asked   bool // when it was taken away somebody was guarded, who may have faulted on it

	area fault.Area
	// Where what was lent before this extent may lie, see lent.
	before, beforeLen uintptr

	resident, writable known.Set // pages, counted from base; see stall.go

	_      [64]byte     // what follows is stored to while the rest is read
	missed atomic.Int64 // the page after the last that was brought in
	passed atomic.Int64 // the page after the last that was read past the mapping, see readCold
}

// newMemory wraps an extent for use. n is the number of bytes in use.
func newMemory(e *extent, n int) *memory {
	m := &memory{e}
	if e.space != nil {
		if n > 0 {
			e.mapped.Store(int64(pageUp(e.delta + n)))
		}
		e.area = fault.Area{Lo: e.space.Addr(), Hi: e.space.Addr() + uintptr(e.space.Size()), Owner: e}
		fault.Add(&e.area)
		e.watch()
		runtime.AddCleanup(m, (*extent).abandon, e)
	}
	return m
}

// generation returns one with the first n bytes of the memory.
func (m *memory) generation(n int) *generation {
	g := &generation{data: []byte{}, mem: m}
	if n > 0 {
		g.data = m.space.Bytes(m.base+m.delta, n)
	}
	return g
}

// closedGeneration is what a closed File has: nothing, with the gates shut.
var closedGeneration = func() *generation {
	g := &generation{mem: &memory{&extent{gated: true}}}
	g.mem.retire()
	return g
}()

// contains reports whether an address lies in the extent.
func (e *extent) contains(addr uintptr) bool { return e.area.Lo <= addr && addr < e.area.Hi }

// offset turns an address into an offset from the first mapped byte.
func (e *extent) offset(addr uintptr) int64 {
	return int64(addr) - int64(e.area.Lo) - int64(e.base+e.delta)
}

// lent reports whether a byte may have been lent by the File: from this extent, or
// from one before it that somebody holds.
func (e *extent) lent(addr uintptr) bool { return e.contains(addr) || addr-e.before < e.beforeLen }

// follow notes which extents are before this one.
func (e *extent) follow(all ...*extent) {
	lo, hi := ^uintptr(0), uintptr(0)
	for _, b := range all {
		if b.area.Hi > b.area.Lo {
			lo, hi = min(lo, b.area.Lo), max(hi, b.area.Hi)
		}
	}
	if lo < hi {
		e.before, e.beforeLen = lo, hi-lo
	}
}

// retire takes the memory away as soon as nobody is inside.
func (e *extent) retire() {
	// All gates first: who leaves by one of them calls settle, which must not
	// find another empty while it still lets somebody in.
	for _, g := range []*gate.Gate{&e.holders, &e.calls, &e.copiers} {
		g.Shut(e.settle)
	}
	e.mu.Lock()
	e.retired = true
	e.mu.Unlock()
	e.resident.Stop()
	e.writable.Stop()
	e.settle()
}

// settle takes retired memory away if nobody is inside. It is called each time
// that somebody leaves.
func (e *extent) settle() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.retired || e.gone || !e.holders.Empty() || !e.calls.Empty() || !e.copiers.Empty() {
		return
	}
	e.gone, e.asked = true, fault.AnyGuarded()
	if e.space == nil {
		return
	}
	if e.gated || e.lost {
		// Nobody can be left who does not show.
		e.zero(0, e.mapped.Load())
		fault.Remove(&e.area, e.late)
		e.space.Free() //nolint:errcheck // a whole mapping of ours: nothing can be done, nothing is lost
		return
	}
	// A copier may still be about to touch the memory: it must fault, and not
	// meet what is mapped here next. If even this fails (no more mappings) the
	// memory stays until the collector finds it.
	if e.space.Clear(0, e.space.Size()) == nil {
		e.idle = true
		idle.add(e.space.Size())
	}
}

// abandon runs when nothing refers to the memory any more: no File, no call.
// Only a holder that was dropped without Release can be left, and its slice
// may live on, so then the memory stays for ever; or one who came too late for it,
// and is about to leave.
func (e *extent) abandon() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.gone && !(e.holders.Empty() && e.calls.Empty() && e.copiers.Empty()) {
		e.lost = true
		return
	}
	if !e.retired {
		splits.Add(-e.src.extra.Swap(0)) // the File was dropped without Close
	}
	if !e.gone {
		e.zero(0, e.mapped.Load())
	}
	e.gone = true
	var late func() *fault.Area
	if e.asked {
		late = e.late
	}
	fault.Remove(&e.area, late)
	size := e.space.Size()
	e.space.Free() //nolint:errcheck // as in settle
	idle.freed.Add(1)
	if e.idle {
		idle.sub(size)
	}
}

// late is what a guard may still ask for once the extent is given back, see
// [fault.Remove]: enough to name the place, and no descriptor that would stay open.
func (e *extent) late() *fault.Area {
	s := e.src
	l := &extent{src: &source{name: s.name, mode: s.mode, off: s.off, info: s.info}, base: e.base, delta: e.delta, gone: true}
	l.mapped.Store(e.mapped.Load())
	l.area = fault.Area{Lo: e.area.Lo, Hi: e.area.Hi, Owner: l}
	return &l.area
}

const maxInt = int(^uint(0) >> 1)

func pageUp(n int) int {
	ps := sys.PageSize()
	return (n + ps - 1) &^ (ps - 1)
}
