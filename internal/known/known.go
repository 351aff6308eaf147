// Package known remembers which pages were seen in memory, for a while.
//
// A page that is said to be in memory may have left since, so what is known is
// forgotten after a time. There is no clock where pages are looked up: a timer
// runs while anything is known, forgets all of it at once, and is not set again
// before something new is known. So who does nothing pays nothing.
package known

import (
	"iter"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
	"weak"
)

const (
	wordBits  = bits.UintSize
	wordShift = 5 + bits.UintSize/64

	// blockPages is how many pages one block is about: 128 bytes of bits and as
	// much for what was known before.
	blockPages = 1024
	blockWords = blockPages / wordBits

	// nearBlocks is how many blocks are found at once, where pages have 4 KiB
	// those of the first 16 GiB: that takes 32 KiB. The others are in parts, so
	// that a mapping of 16 TiB has 64 KiB more, and not 32 MiB.
	nearBlocks = 4096
	partBlocks = 512
)

// A Set is a set of page numbers. Its methods may be called concurrently.
type Set struct {
	// What a look at a page needs, see HasBytes. Blocks are made when something
	// is known of their pages, and dropped by Stop.
	near  []atomic.Pointer[block]
	shift uint
	far   []atomic.Pointer[part]

	pages  int
	life   time.Duration
	keeper Keeper

	paused atomic.Int32
	lapses atomic.Uint32

	mu      sync.Mutex
	listed  []*block // those with bits that have to be forgotten
	timer   *time.Timer
	stopped bool
}

type block struct {
	now    [blockWords]atomic.Uintptr
	was    [blockWords]atomic.Uintptr // forgotten for no other reason than time
	first  int                        // page
	listed atomic.Bool
}

type part [partBlocks]atomic.Pointer[block]

// A Keeper knows of pages that cannot leave memory.
type Keeper interface {
	// Keep calls keep for the pages of [lo, hi) that are not to be forgotten.
	// Whoever lets them go calls Unkeep afterwards.
	Keep(lo, hi int, keep func(lo, hi int))
}

// Init prepares a Set for pages numbered [0, pages), of 1<<shift bytes, which are
// forgotten after life at the latest. keeper may be nil.
func (s *Set) Init(pages int, shift uint, life time.Duration, keeper Keeper) {
	s.pages, s.shift, s.life, s.keeper = pages, shift, life, keeper
	blocks := (pages + blockPages - 1) / blockPages
	s.near = make([]atomic.Pointer[block], min(blocks, nearBlocks))
	if blocks > nearBlocks {
		s.far = make([]atomic.Pointer[part], (blocks-nearBlocks+partBlocks-1)/partBlocks)
	}
}

// HasBytes reports whether all pages of n > 0 bytes are known, the first of which
// is byte at of page 0. It is Has for who asks all the time: a call that makes no
// other, and follows two pointers.
func (s *Set) HasBytes(at, n int) bool {
	lo, last := uint(at)>>(s.shift%wordBits), uint(at+n-1)>>(s.shift%wordBits)
	if i := lo / blockPages; i < uint(len(s.near)) && lo>>wordShift == last>>wordShift {
		b, m := s.near[i].Load(), mask(int(lo), int(last))
		return b != nil && b.now[lo%blockPages>>wordShift].Load()&m == m
	}
	return s.Has(int(lo), int(last))
}

// Has reports whether all pages from lo to last are known. lo <= last.
func (s *Set) Has(lo, last int) bool {
	for lo <= last {
		end := min(last, lo|(wordBits-1))
		if s.gap(lo, end) != 0 {
			return false
		}
		lo = end + 1
	}
	return true
}

// mask has the bits of the pages from lo to last, which are in the same word.
func mask(lo, last int) uintptr {
	// The first remainder changes nothing but saves the compiler a check.
	return ^uintptr(0) >> ((wordBits - 1 - uint(last-lo)) % wordBits) << (uint(lo) % wordBits)
}

// Missing returns the first and the last page from lo to last that are not
// known; first > last if all are.
func (s *Set) Missing(lo, last int) (first, end int) {
	for lo <= last {
		edge := min(last, lo|(wordBits-1))
		if gap := s.gap(lo, edge); gap != 0 {
			lo += bits.TrailingZeros(uint(gap))
			break
		}
		lo = edge + 1
	}
	for last > lo {
		edge := max(lo, last&^(wordBits-1))
		if gap := s.gap(edge, last); gap != 0 {
			return lo, edge + bits.Len(uint(gap)) - 1
		}
		last = edge - 1
	}
	return lo, last
}

// gap has a bit for each page from lo to last that is not known, lo's first.
// They are in the same word.
func (s *Set) gap(lo, last int) uintptr {
	m := mask(lo, last)
	if b := s.block(lo / blockPages); b != nil {
		m &^= b.now[lo%blockPages>>wordShift].Load()
	}
	return m >> (uint(lo) % wordBits)
}

// Add makes the pages from lo to last known.
func (s *Set) Add(lo, last int) {
	if s.paused.Load() > 0 {
		return
	}
	from := lo
	for lo <= last {
		end := min(last, lo|(wordBits-1))
		b := s.makeBlock(lo / blockPages)
		w, m := &b.now[lo%blockPages>>wordShift], mask(lo, end)
		if w.Load()&m != m {
			w.Or(m)
			// The order matters: first the bits, then the look. The timer takes
			// a block off the list before it clears the bits.
			s.list(b)
		}
		lo = end + 1
	}
	if s.paused.Load() > 0 {
		s.Forget(from, last+1) // Pause or Stop may not have seen them
	}
}

// slot is where block i is, if it is; nil: it is not, and nor is its part.
func (s *Set) slot(i int) *atomic.Pointer[block] {
	if i < len(s.near) {
		return &s.near[i]
	}
	if i -= nearBlocks; i >= 0 && i/partBlocks < len(s.far) {
		if p := s.far[i/partBlocks].Load(); p != nil {
			return &p[i%partBlocks]
		}
	}
	return nil
}

func (s *Set) block(i int) *block {
	if slot := s.slot(i); slot != nil {
		return slot.Load()
	}
	return nil
}

func (s *Set) makeBlock(i int) *block {
	for { // Stop may drop what was there a moment ago
		slot := s.slot(i)
		if slot == nil {
			s.far[(i-nearBlocks)/partBlocks].CompareAndSwap(nil, new(part))
			continue
		}
		if b := slot.Load(); b != nil {
			return b
		}
		if b := (&block{first: i * blockPages}); slot.CompareAndSwap(nil, b) {
			return b
		}
	}
}

// blocks yields the blocks that there are for pages of [lo, hi).
func (s *Set) blocks(lo, hi int) iter.Seq[*block] {
	return func(yield func(*block) bool) {
		hi = min(hi, s.pages)
		for i := lo / blockPages; i*blockPages < hi; i++ {
			slot := s.slot(i)
			if slot == nil {
				i |= partBlocks - 1 // the rest of the part
			} else if b := slot.Load(); b != nil && !yield(b) {
				return
			}
		}
	}
}

// list has the timer see to a block.
func (s *Set) list(b *block) {
	if b.listed.Load() || !b.listed.CompareAndSwap(false, true) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	s.listed = append(s.listed, b)
	switch {
	case len(s.listed) > 1:
	case s.timer == nil:
		// The timer keeps nothing alive: a Set that nobody has any more need not
		// forget anything.
		me := weak.Make(s)
		s.timer = time.AfterFunc(s.life, func() {
			if s := me.Value(); s != nil {
				s.Expire()
			}
		})
	default:
		s.timer.Reset(s.life)
	}
}

// Expire forgets all pages but those that the Keeper keeps. The timer calls it.
func (s *Set) Expire() {
	s.mu.Lock()
	list := s.listed
	s.listed = nil
	s.mu.Unlock()
	for _, b := range list {
		b.listed.Store(false)
		var kept []uintptr
		if s.keeper != nil {
			s.keeper.Keep(b.first, b.first+blockPages, func(lo, hi int) {
				if kept == nil {
					kept = make([]uintptr, blockWords)
				}
				for hi = min(hi, b.first+blockPages); lo < hi; {
					end := min(hi-1, lo|(wordBits-1))
					kept[(lo-b.first)>>wordShift] |= mask(lo, end)
					lo = end + 1
				}
			})
		}
		for i := range b.now {
			old := b.now[i].Load()
			if old == 0 {
				b.was[i].Store(0)
				continue
			}
			var m uintptr
			if kept != nil {
				m = kept[i]
			}
			b.was[i].Store(b.now[i].And(m) &^ m)
		}
	}
	if len(list) > 0 {
		s.lapses.Add(1)
	}
}

// Lapses counts how often something was forgotten: as long as it says the same,
// what was known is. It changes right after.
func (s *Set) Lapses() uint32 { return s.lapses.Load() }

// Were reports whether a page was known until a short time ago, and returns the
// last such page in its neighbourhood.
func (s *Set) Were(page int) (last int, ok bool) {
	b := s.block(page / blockPages)
	if b == nil {
		return 0, false
	}
	w := b.was[page%blockPages>>wordShift].Load()
	if w>>(uint(page)%wordBits)&1 == 0 {
		return 0, false
	}
	return page&^(wordBits-1) + bits.Len(uint(w)) - 1, true
}

// Forget forgets the pages of [lo, hi) now.
func (s *Set) Forget(lo, hi int) {
	for b := range s.blocks(lo, hi) {
		end := min(hi, b.first+blockPages)
		for at := max(lo, b.first); at < end; {
			last := min(end-1, at|(wordBits-1))
			i, m := at%blockPages>>wordShift, mask(at, last)
			b.now[i].And(^m)
			b.was[i].And(^m)
			at = last + 1
		}
	}
	s.lapses.Add(1)
}

// Unkeep tells that the Keeper has let pages of [lo, hi) go. Those that are known
// are forgotten in their time, as if they had been seen just now.
func (s *Set) Unkeep(lo, hi int) {
	for b := range s.blocks(lo, hi) {
		s.list(b)
	}
}

// Pause forgets everything and has Add do nothing until the function that it
// returns is called.
func (s *Set) Pause() (resume func()) {
	s.paused.Add(1)
	s.Expire() // what is not listed yet is seen to by Add
	return func() { s.paused.Add(-1) }
}

// Stop forgets everything for good: from then on nothing is known, and there is
// no timer.
func (s *Set) Stop() {
	s.paused.Add(1) // no Add leaves anything, see there
	for i := range s.near {
		s.near[i].Store(nil)
	}
	for i := range s.far {
		s.far[i].Store(nil)
	}
	s.lapses.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.listed = nil
	if s.timer != nil {
		s.timer.Stop()
	}
}
