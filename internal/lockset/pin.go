package lockset

import "sort"

// A Pin remembers what Set.Pin added, for Unpin. The zero Pin holds nothing.
type Pin struct {
	lo, hi int64
	epoch  uint64
	level  Level
}

// Range returns the bytes that were pinned.
func (p Pin) Range() (lo, hi int64) { return p.lo, p.hi }

// A cut is a Truncate that took bytes away from pins. It concerns the pins
// made up to its epoch, and later than the cut before it in Set.cuts.
type cut struct {
	epoch uint64
	size  int64
	live  int64 // how many of them are not released yet
}

// Pin counts one more holder of [lo, hi): the pages under it are wanted at
// least at level l until Unpin.
func (s *Set) Pin(lo, hi int64, l Level) Pin {
	lo, hi = s.clip(lo, hi)
	if lo >= hi || l == None {
		return Pin{}
	}
	s.want.apply(lo, hi, pinChange(l, 1))
	s.live++
	return Pin{lo, hi, s.epoch, l}
}

// Unpin takes back what Pin added, save what a Truncate has forgotten since.
// A pin is released once: a second time takes away another's, or panics if
// there is none.
func (s *Set) Unpin(p Pin) {
	if p.lo >= p.hi {
		return
	}
	s.want.apply(p.lo, s.release(p), pinChange(p.level, -1))
}

// WantedAll reports whether each byte of [lo, hi) is wanted at l or more, so that
// there is no excess on its pages where they are held at l.
func (s *Set) WantedAll(lo, hi int64, l Level) bool {
	lo, hi = s.clip(lo, hi)
	if state, ok := s.want.whole(lo, hi); ok && lo < hi {
		return state.wanted() >= l
	}
	c := s.want.from(lo, hi)
	for c.next() {
		if c.state.wanted() < l {
			return false
		}
	}
	return true
}

func pinChange(l Level, n int64) change {
	if l == OnFault {
		return change{op: opPin, onFault: n}
	}
	return change{op: opPin, now: n}
}

// cutPins notes that the pins made so far end at size from now on.
//
// After a truncation and a regrowth the same offsets are other bytes, on which
// others may have put their pins. What an old pin still has is what the least
// size since it was made has left. For a pin of epoch e that is the least size
// among the cuts of epoch e and later, so a cut is of no more use once a later
// one is as low. Those that remain grow in both epoch and size, and the first
// that concerns a pin is the least.
func (s *Set) cutPins(size int64) {
	if !s.pinned(size) {
		return // every pin ends before size already
	}
	c := cut{epoch: s.epoch, size: size, live: s.live}
	n := len(s.cuts)
	for ; n > 0 && s.cuts[n-1].size >= size; n-- {
		c.live += s.cuts[n-1].live
	}
	s.cuts = append(s.cuts[:n], c)
	s.epoch++
	s.live = 0
}

// pinned reports whether any pin lies on a byte at lo or beyond.
func (s *Set) pinned(lo int64) bool {
	c := s.want.from(lo, s.limit)
	for c.next() {
		if c.state.now > 0 || c.state.onFault > 0 {
			return true
		}
	}
	return false
}

// release forgets that p is live and returns where its bytes end.
func (s *Set) release(p Pin) int64 {
	if p.epoch == s.epoch {
		s.live--
		return p.hi
	}
	i := sort.Search(len(s.cuts), func(i int) bool { return s.cuts[i].epoch >= p.epoch })
	if i == len(s.cuts) {
		panic("lockset: a pin is released twice")
	}
	c := &s.cuts[i]
	hi := min(p.hi, c.size)
	if c.live--; c.live == 0 {
		// So there are never more cuts than live pins.
		s.cuts = append(s.cuts[:i], s.cuts[i+1:]...)
	}
	return hi
}
