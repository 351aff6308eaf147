package mmapio

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/mmapio/mmapio/internal/known"
	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/sys"
)

// What an extent knows of its pages: which of them were seen in memory a short time
// ago, or are locked, and which are ready for stores. See stall.go for what it is
// for.

// How long pages are known to be in memory, or to be ready for stores, at most.
// docs/rationale.md has the measurements.
var (
	residentFor = time.Second
	writableFor = 100 * time.Millisecond
)

// extents is how many there were so far.
var extents atomic.Uint64

// watch prepares what is remembered of the extent's pages.
func (e *extent) watch() {
	n := (e.space.Size() - e.base) / sys.PageSize()
	e.resident.Init(n, uint(pageShift), residentFor, e)
	e.writable.Init(n, uint(pageShift), writableFor, nil)
	e.missed.Store(-1)
	e.serial = extents.Add(1)
}

// pageShift turns offsets into numbers of pages.
var pageShift = bits.TrailingZeros(uint(sys.PageSize()))

// pageRange returns the first and the last page of n > 0 bytes, counted from base.
func (e *extent) pageRange(off int64, n int) (lo, last int) {
	at := int(off) + e.delta
	return at >> pageShift, (at + n - 1) >> pageShift
}

// loadable reports whether n > 0 bytes at off can be loaded without waiting, as
// far as is known. It is a look at one word, most of the time.
func (e *extent) loadable(off int64, n int) bool {
	return e.resident.HasBytes(int(off)+e.delta, n) || mayStall
}

// storable is loadable for stores.
func (e *extent) storable(off int64, n int) bool {
	return e.writable.HasBytes(int(off)+e.delta, n) || mayStall
}

// Keep tells which pages are locked, for the set of what is resident.
func (e *extent) Keep(lo, hi int, keep func(lo, hi int)) {
	f := e.src.owner.Value()
	if f == nil {
		return
	}
	ps := int64(sys.PageSize())
	f.locks.mu.Lock()
	defer f.locks.mu.Unlock()
	if f.cur.Load().mem.extent != e {
		return // the locks have moved with the File
	}
	for _, run := range f.locks.set.Held(nil, int64(lo)*ps, int64(hi)*ps) {
		if run.Level == lockset.Now {
			keep(max(lo, int(run.Lo/ps)), min(hi, int((run.Hi+ps-1)/ps)))
		}
	}
}

// locked reports whether pages are locked, as far as is to be had without waiting,
// and has it known. To lock more than a few pages says nothing to the set of what is
// resident: it would take memory, and longer than the lock, for what nobody may ever
// touch.
func (e *extent) locked(lo, last int) bool {
	f := e.src.owner.Value()
	if f == nil || !f.locks.mu.TryLock() {
		return false
	}
	defer f.locks.mu.Unlock()
	if f.cur.Load().mem.extent != e || !f.locks.set.Covered(int64(lo)<<pageShift, int64(last+1)<<pageShift, lockset.Now) {
		return false
	}
	e.resident.Add(lo, last) // before anybody can unlock them
	return true
}

// forget is for whoever takes pages out of memory. The range is in bytes from base.
func (e *extent) forget(lo, hi int64) {
	first, end := pagesOf(lo, hi)
	e.resident.Forget(first, end)
	e.writable.Forget(first, end)
}

// mayLeave is for whoever takes the lock off pages, which are in memory a moment
// longer.
func (e *extent) mayLeave(lo, hi int64) { e.resident.Unkeep(pagesOf(lo, hi)) }

func pagesOf(lo, hi int64) (first, end int) {
	ps := int64(sys.PageSize())
	return int(lo / ps), int((min(hi, maxInt64-ps) + ps - 1) / ps)
}

// writingBack tells that pages are about to be written to the file, which makes
// each one fault again when it is stored to next. done tells that they are.
func (s *source) writingBack() (done func()) {
	f := s.owner.Value()
	if f == nil {
		return func() {}
	}
	return f.cur.Load().mem.writable.Pause()
}

// whenFound lets tests come in between what found is about.
var whenFound = func() {}

// found has pages known that were in memory when there had been so many shrinks.
// A shrink does not wait for copiers that are not counted: it may have taken the
// pages away since, and forgotten them, and others may be in their place.
func (e *extent) found(set *known.Set, lo, last int, shrinks int64) {
	whenFound()
	set.Add(lo, last)
	if e.shrinks.Load() != shrinks {
		set.Forget(lo, last+1)
	}
}

// stillIn reports whether pages are locked, or were known until a moment ago and
// are still in the mapping. One look is about all such pages in the neighbourhood:
// when everything hot is forgotten at the same time, there is not a system call
// for each page of it.
func (e *extent) stillIn(lo, last int) bool {
	if e.src.locked.Load() && e.locked(lo, last) {
		return true
	}
	end, ok := e.resident.Were(lo)
	if !ok || last > end {
		return false
	}
	ps, before := sys.PageSize(), e.shrinks.Load()
	absent, err := e.space.Absent(e.base+lo*ps, (end-lo+1)*ps)
	if err != nil {
		return false
	}
	if absent >= 0 {
		end = (absent-e.base)/ps - 1
	}
	if end < last {
		return false
	}
	e.found(&e.resident, lo, end, before)
	return true
}
