package known

import "sync/atomic"

// tallySize is how many pages a Tally has room for.
const tallySize = 1 << 15

// A Tally tells pages that are met again and again from those that come up once
// or twice. A page that comes later may take the place of an earlier one, so it
// is right about pages that are met often, and forgets the others by and by. It
// takes one look at one word: who asks has just come back from waiting for a disk,
// and finds nothing in the processor's caches. Its methods may be called
// concurrently; the zero Tally is empty.
type Tally struct {
	// A page, but for the bits that its place tells, over two bits of how often.
	slots [tallySize]atomic.Uint32
}

// Third counts a page, any number that stands for it, as met, and reports whether
// it was met twice before. The next time is then its first.
func (t *Tally) Third(page uint64) bool {
	h := page * 0x9e3779b97f4a7c15 // Fibonacci hashing: neighbours lie far apart
	slot := &t.slots[h>>49]
	mine := uint32(h>>17) &^ 3
	times := uint32(1)
	// What another processor does between the two is lost, and no harm done.
	if old := slot.Load(); old&^3 == mine {
		times += old & 3
	}
	if times == 3 {
		slot.Store(0)
		return true
	}
	slot.Store(mine | times)
	return false
}
