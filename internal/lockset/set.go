// Package lockset keeps the books of page locking: which bytes of a mapping
// are to be locked, which pins lie where, and which pages the kernel holds.
//
// It makes no system calls. A caller changes what is wanted with Assign, Pin,
// Unpin and Truncate, asks Missing and Excess where the kernel differs, makes
// the system calls, and records with Hold what came of them.
//
// All offsets count from the page-aligned start of the mapping. What is wanted
// is kept to the byte, since two callers may lock different bytes of one page,
// and is answered in whole pages, since that is what the kernel locks: a page
// is wanted at the highest level of any byte or pin on it.
//
// Everywhere lo == hi does nothing, and what lies below 0 or beyond the last
// page that ends within an int64 is left out.
package lockset

import (
	"fmt"
	"math"

	"github.com/mmapio/mmapio/internal/page"
)

// A Level says how firmly memory is locked. A higher one includes the lower.
type Level uint8

const (
	None    Level = iota // not locked
	OnFault              // stays once it is in
	Now                  // is in and stays
)

func (l Level) String() string {
	switch l {
	case None:
		return "none"
	case OnFault:
		return "on fault"
	case Now:
		return "now"
	}
	return fmt.Sprintf("Level(%d)", uint8(l))
}

// A Run is the range [Lo, Hi) with one level throughout.
type Run struct {
	Lo, Hi int64
	Level  Level
}

// A Set is the books of one mapping. It is not safe for concurrent use, not
// even the methods that only ask: they keep a hint for the next look-up.
type Set struct {
	pageSize int64
	limit    int64 // end of the last whole page, less than the greatest int64

	want steps // levels and pins, to the byte
	held steps // levels only, in whole pages
	// Both follow from held; kept so that asking costs nothing.
	heldBytes int64
	heldRuns  int

	epoch uint64 // number of cuts so far
	live  int64  // pins made since the last cut
	cuts  []cut

	scratch []Run // for Excess
}

// New returns an empty set for a mapping with pages of pageSize bytes,
// a power of two.
func New(pageSize int64) *Set {
	if pageSize <= 0 || pageSize&(pageSize-1) != 0 {
		panic(fmt.Sprintf("lockset: page size %d is not a power of two", pageSize))
	}
	s := &Set{pageSize: pageSize, limit: page.Down(math.MaxInt64-1, pageSize)}
	s.want.init()
	s.held.init()
	return s
}

// clip cuts [lo, hi) to the offsets that a Set covers.
func (s *Set) clip(lo, hi int64) (int64, int64) {
	return max(lo, 0), min(hi, s.limit)
}

// pages returns the whole pages that touch [lo, hi).
func (s *Set) pages(lo, hi int64) (int64, int64) {
	// After clip, rounding up cannot overflow.
	lo, hi = s.clip(lo, hi)
	lo, hi, _ = page.Outward(lo, hi, s.pageSize)
	return lo, hi
}

// Assign gives every byte of [lo, hi) level l, whatever it had. Pins are not
// touched. Assigning is not counted: once undoes any number of times.
func (s *Set) Assign(lo, hi int64, l Level) {
	lo, hi = s.clip(lo, hi)
	s.want.apply(lo, hi, change{op: opLevel, level: l})
}

// Raise is Assign for the bytes of [lo, hi) that have a lower level than l.
func (s *Set) Raise(lo, hi int64, l Level) {
	lo, hi = s.clip(lo, hi)
	s.want.apply(lo, hi, change{op: opRaise, level: l})
}

// Truncate forgets all levels and pins of the bytes at size and beyond, and
// the held record of the pages that lie wholly there.
//
// The page that size cuts in the middle, if it was held, still is: it stays
// mapped. It is wanted as long as a byte before size on it is, and after that
// Excess reports it.
func (s *Set) Truncate(size int64) {
	size, end := s.clip(size, s.limit)
	if size >= end {
		return
	}
	s.cutPins(size)
	s.want.apply(size, end, change{op: opWipe})
	// size < limit, so this is at most limit.
	up, _ := page.Up(size, s.pageSize)
	s.Hold(up, end, None)
}

// Wanted appends to dst the runs of the pages touching [lo, hi) that are
// wanted, in order and as long as they can be.
func (s *Set) Wanted(dst []Run, lo, hi int64) []Run {
	lo, hi = s.pages(lo, hi)
	base := len(dst)
	c := s.want.from(lo, hi)
	for c.next() {
		l := c.state.wanted()
		if l == None {
			continue
		}
		a, b, _ := page.Outward(c.lo, c.hi, s.pageSize)
		// Byte runs are disjoint, so page runs share one page at most: the
		// last one of the run before. It goes to the higher level.
		if n := len(dst); n > base && dst[n-1].Hi > a {
			if last := &dst[n-1]; l <= last.Level {
				a = last.Hi
			} else if last.Hi = a; last.Lo == a {
				dst = dst[:n-1]
			}
		}
		dst = extend(dst, base, a, b, l)
	}
	return dst
}

// WantedBytes appends to dst the runs of bytes within [lo, hi) that are
// wanted, by a level or by a pin, not rounded to pages.
func (s *Set) WantedBytes(dst []Run, lo, hi int64) []Run {
	lo, hi = s.clip(lo, hi)
	base := len(dst)
	c := s.want.from(lo, hi)
	for c.next() {
		if l := c.state.wanted(); l != None {
			dst = extend(dst, base, c.lo, c.hi, l)
		}
	}
	return dst
}

// extend appends [lo, hi) at level l to dst, or makes the last run longer if
// it ends at lo with the same level. The first base runs are not ours.
func extend(dst []Run, base int, lo, hi int64, l Level) []Run {
	if lo >= hi {
		return dst
	}
	if n := len(dst); n > base && dst[n-1].Hi == lo && dst[n-1].Level == l {
		dst[n-1].Hi = hi
		return dst
	}
	return append(dst, Run{lo, hi, l})
}
