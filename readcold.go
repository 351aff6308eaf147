package mmapio

import (
	"github.com/mmapio/mmapio/internal/fault"
	"github.com/mmapio/mmapio/internal/known"
	"github.com/mmapio/mmapio/internal/sys"
)

// readCold reads from the file into the caller's bytes, past the mapping: where
// both show the same, one system call does all, and no page table is touched. It
// reports whether it has read them all. Whatever else happened is found out by
// who then goes through the mapping.
//
// Pages that were read so are not known to be there: a load would take a fault,
// which waits for no disk, but costs as much as some reads, and under some
// hypervisors as dozens.
func (f *File) readCold(g *generation, p []byte, off int64) bool {
	if g.mem.gated || f.src.file == nil || mayStall || f.src.mode == CopyOnWrite {
		return false
	}
	if g.mem.lent(fault.Start(p)) {
		return false // the system copies from the front, whatever overlaps
	}
	if f.locks.onFault.Load() {
		return false // a page is locked as it comes into the mapping
	}
	reads := f.src.readsOf()
	if reads == sys.ReadsElsewhere {
		return false
	}
	lo, last := g.mem.pageRange(off, len(p))
	if g.mem.resident.Has(lo, last) || g.mem.stillIn(lo, last) {
		return false
	}
	// What is read a third time, or again at once, is worth a place in the mapping.
	passed := g.mem.passed.Swap(int64(last) + 1)
	first := g.mem.serial<<36 + uint64(lo)
	again := met.Third(first)
	if lo != last {
		again = met.Third(first+uint64(last-lo)) && again
	} else if passed == int64(last)+1 {
		again = true
	}
	if again {
		return false
	}
	at := f.src.off + off
	if reads == sys.ReadsEither && f.src.cached(at, len(p)) {
		return false // it would show nothing: somebody else may have read them
	}
	if n, err := f.src.readWaiting(p, at, reads); n < len(p) || err != nil {
		return false
	}
	if reads == sys.ReadsEither {
		reads = sys.ReadsElsewhere
		if f.src.cached(at, len(p)) {
			reads = sys.ReadsPages
		}
		f.src.reads.Store(int32(reads))
	}
	return reads == sys.ReadsPages || reads == sys.ReadsMemory
}

// readPast reads what cannot be had through the mapping, if it can be had from the
// file: of a hole on a file system that keeps files in memory and has no more.
func (f *File) readPast(g *generation, p []byte, off int64) bool {
	if g.mem.gated || f.src.file == nil || f.src.mode == CopyOnWrite {
		return false
	}
	switch f.src.readsOf() {
	case sys.ReadsPages, sys.ReadsMemory:
		n, err := f.src.file.ReadAt(p, f.src.off+off)
		return n == len(p) && err == nil
	}
	return false
}

// met counts how often pages were read past the mapping, of all extents.
var met known.Tally

// readsOf asks the system once.
func (s *source) readsOf() sys.Reads {
	if r := sys.Reads(s.reads.Load()); r != sys.ReadsNotAsked {
		return r
	}
	r := sys.ReadsOf(s.file)
	s.reads.Store(int32(r))
	return r
}

// cached reports whether any of n bytes of the file is known to be in memory.
func (s *source) cached(at int64, n int) bool {
	c, err := sys.Cached(s.file, at, int64(n))
	return err == nil && c.Resident > 0
}
