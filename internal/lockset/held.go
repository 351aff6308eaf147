package lockset

import "fmt"

// Hold records that the kernel now holds the pages of [lo, hi) at level l, or
// with None that it has let them go. Both ends must lie on page edges: half a
// page is never held, and rounding would record what did not happen.
func (s *Set) Hold(lo, hi int64, l Level) {
	lo, hi = s.clip(lo, hi)
	if lo >= hi {
		return
	}
	if (lo|hi)&(s.pageSize-1) != 0 {
		panic(fmt.Sprintf("lockset: hold of [%d, %d) is not in whole pages of %d", lo, hi, s.pageSize))
	}
	b := s.heldWithin(lo, hi)
	s.heldBytes -= b.bytes
	s.heldRuns -= b.starts
	if l != None {
		s.heldBytes += hi - lo
		if !b.before {
			s.heldRuns++
		}
	} else if b.after {
		s.heldRuns++
	}
	s.held.apply(lo, hi, change{op: opLevel, level: l})
}

// heldStats is what is held in a range, and just outside.
type heldStats struct {
	bytes         int64 // held within
	starts        int   // held runs, regardless of level, that start within or at its end
	before, after bool  // whether the byte before, or at the end, is held
}

func (s *Set) heldWithin(lo, hi int64) heldStats {
	var b heldStats
	c := s.held.from(lo-1, hi+1)
	for c.next() {
		held := c.state.level != None
		if c.lo < lo {
			b.before = held
		} else if held && !b.after {
			b.starts++
		}
		if held {
			b.bytes += min(c.hi, hi) - max(c.lo, lo)
		}
		b.after = held // in the end, that of the last run
	}
	return b
}

// Held appends to dst what is held of the pages touching [lo, hi).
func (s *Set) Held(dst []Run, lo, hi int64) []Run {
	lo, hi = s.pages(lo, hi)
	c := s.held.from(lo, hi)
	for c.next() {
		if l := c.state.level; l != None {
			dst = append(dst, Run{c.lo, c.hi, l})
		}
	}
	return dst
}

// Missing appends to dst the runs of the pages touching [lo, hi) that are held
// at less than l. Run.Level is the level at which they are held.
func (s *Set) Missing(dst []Run, lo, hi int64, l Level) []Run {
	lo, hi = s.pages(lo, hi)
	c := s.held.from(lo, hi)
	for c.next() {
		if c.state.level < l {
			dst = append(dst, Run{c.lo, c.hi, c.state.level})
		}
	}
	return dst
}

// Covered reports whether all pages touching [lo, hi) are held at l or more,
// that is, whether Missing would find nothing.
func (s *Set) Covered(lo, hi int64, l Level) bool {
	lo, hi = s.pages(lo, hi)
	if state, ok := s.held.whole(lo, hi); ok && lo < hi {
		return state.level >= l
	}
	c := s.held.from(lo, hi)
	for c.next() {
		if c.state.level < l {
			return false
		}
	}
	return true
}

// Excess appends to dst the runs of the pages touching [lo, hi) that are held
// at more than is wanted. Run.Level is the level that is wanted.
func (s *Set) Excess(dst []Run, lo, hi int64) []Run {
	lo, hi = s.pages(lo, hi)
	base := len(dst)
	want := s.scratch[:0]
	if s.heldRuns > 0 {
		want = s.Wanted(want, lo, hi)
	}
	i := 0
	c := s.held.from(lo, hi)
	for c.next() {
		for at := c.lo; at < c.hi; {
			for i < len(want) && want[i].Hi <= at {
				i++
			}
			// [at, end) is wanted at l throughout.
			end, l := c.hi, None
			if i < len(want) {
				if w := want[i]; w.Lo <= at {
					end, l = min(end, w.Hi), w.Level
				} else {
					end = min(end, w.Lo)
				}
			}
			if c.state.level > l {
				dst = extend(dst, base, at, end, l)
			}
			at = end
		}
	}
	if cap(want) <= maxScratch {
		s.scratch = want
	}
	return dst
}

// maxScratch is the most runs that a Set keeps room for between calls.
const maxScratch = 1024

// HeldBytes returns how many bytes are held, in whole pages.
func (s *Set) HeldBytes() int64 { return s.heldBytes }

// HeldRuns returns how many runs of held pages there are. Neighbours held at
// different levels are one run: the kernel's mappings split only where locked
// and unlocked meet.
func (s *Set) HeldRuns() int { return s.heldRuns }

// RunsIfHeld returns what HeldRuns would be if the pages touching [lo, hi)
// were held too.
func (s *Set) RunsIfHeld(lo, hi int64) int {
	lo, hi = s.pages(lo, hi)
	if lo >= hi {
		return s.heldRuns
	}
	b := s.heldWithin(lo, hi)
	n := s.heldRuns - b.starts
	if !b.before {
		n++
	}
	return n
}
