// Package known remembers which pages were seen in memory, for a while.
//
// A page that is said to be in memory may have left since, so what is known is
// forgotten after a time. There is no clock where pages are looked up: a timer
// runs while anything is known, forgets all of it at once, and is not set again
// before something new is known. So who does nothing pays nothing.
package known

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
	"weak"
)

const (
	wordBits  = bits.UintSize
	wordShift = 5 + bits.UintSize/64

	// blockPages is how many pages one block is about: 1 KiB of bits and as
	// much for what was known before. The table of a mapping of 16 TiB then has
	// 4 MiB, which is zeroes that nobody touches but where there are blocks.
	blockPages = 8192
)

// A Set is a set of page numbers. Its methods may be called concurrently.
type Set struct {
	pages  int
	life   time.Duration
	keeper Keeper

	table atomic.Pointer[table] // nil until something is known, and after Stop

	paused atomic.Int32
	lapses atomic.Uint32

	mu      sync.Mutex
	listed  []*block // those with bits that have to be forgotten
	timer   *time.Timer
	stopped bool
}

type table []atomic.Pointer[block]

type block struct {
	first  int // page
	listed atomic.Bool
	now    []atomic.Uintptr
	was    []atomic.Uintptr // forgotten for no other reason than time
}

// A Keeper knows of pages that cannot leave memory.
type Keeper interface {
	// Keep calls keep for the pages of [lo, hi) that are not to be forgotten.
	// Whoever lets them go calls Unkeep afterwards.
	Keep(lo, hi int, keep func(lo, hi int))
}

// Init prepares a Set for pages numbered [0, pages), which are forgotten after
// life at the latest. keeper may be nil.
func (s *Set) Init(pages int, life time.Duration, keeper Keeper) {
	s.pages, s.life, s.keeper = pages, life, keeper
}

// Has reports whether all pages from lo to last are known. lo <= last.
func (s *Set) Has(lo, last int) bool {
	t := s.table.Load()
	if t == nil {
		return false
	}
	if lo>>wordShift == last>>wordShift {
		b := (*t)[uint(lo)/blockPages].Load()
		m := mask(lo, last)
		return b != nil && b.now[uint(lo)%blockPages>>wordShift].Load()&m == m
	}
	return t.hasAll(lo, last)
}

// mask has the bits of the pages from lo to last, which are in the same word.
func mask(lo, last int) uintptr {
	// The first remainder changes nothing but saves the compiler a check.
	return ^uintptr(0) >> ((wordBits - 1 - uint(last-lo)) % wordBits) << (uint(lo) % wordBits)
}

func (t *table) hasAll(lo, last int) bool {
	for lo <= last {
		end := min(last, lo|(wordBits-1))
		b := (*t)[lo/blockPages].Load()
		if b == nil {
			return false
		}
		if m := mask(lo, end); b.now[lo%blockPages>>wordShift].Load()&m != m {
			return false
		}
		lo = end + 1
	}
	return true
}

// Missing returns the first and the last page from lo to last that are not
// known; first > last if all are.
func (s *Set) Missing(lo, last int) (first, end int) {
	t := s.table.Load()
	if t == nil {
		return lo, last
	}
	for lo <= last {
		edge := min(last, lo|(wordBits-1))
		if gap := t.gap(lo, edge); gap != 0 {
			lo += bits.TrailingZeros(uint(gap))
			break
		}
		lo = edge + 1
	}
	for last > lo {
		edge := max(lo, last&^(wordBits-1))
		if gap := t.gap(edge, last); gap != 0 {
			return lo, edge + bits.Len(uint(gap)) - 1
		}
		last = edge - 1
	}
	return lo, last
}

// gap has a bit for each page from lo to last that is not known, lo's first.
// They are in the same word.
func (t *table) gap(lo, last int) uintptr {
	m := mask(lo, last)
	if b := (*t)[lo/blockPages].Load(); b != nil {
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
	t := s.makeTable()
	for lo <= last {
		end := min(last, lo|(wordBits-1))
		b := s.makeBlock(t, lo/blockPages)
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

func (s *Set) makeTable() *table {
	for {
		if t := s.table.Load(); t != nil {
			return t
		}
		t := make(table, (s.pages+blockPages-1)/blockPages)
		if s.table.CompareAndSwap(nil, &t) {
			return &t
		}
	}
}

func (s *Set) makeBlock(t *table, i int) *block {
	if b := (*t)[i].Load(); b != nil {
		return b
	}
	first := i * blockPages
	n := (min(blockPages, s.pages-first) + wordBits - 1) / wordBits
	words := make([]atomic.Uintptr, 2*n)
	b := &block{first: first, now: words[:n:n], was: words[n:]}
	if (*t)[i].CompareAndSwap(nil, b) {
		return b
	}
	return (*t)[i].Load()
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
			s.keeper.Keep(b.first, b.first+len(b.now)*wordBits, func(lo, hi int) {
				if kept == nil {
					kept = make([]uintptr, len(b.now))
				}
				for hi = min(hi, b.first+len(b.now)*wordBits); lo < hi; {
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
	t := s.table.Load()
	if t == nil {
		return 0, false
	}
	b := (*t)[page/blockPages].Load()
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
	t := s.table.Load()
	if t == nil {
		return
	}
	for hi = min(hi, s.pages); lo < hi; {
		b := (*t)[lo/blockPages].Load()
		if b == nil {
			lo = (lo/blockPages + 1) * blockPages
			continue
		}
		end := min(hi-1, lo|(wordBits-1))
		i, m := lo%blockPages>>wordShift, mask(lo, end)
		b.now[i].And(^m)
		b.was[i].And(^m)
		lo = end + 1
	}
	s.lapses.Add(1)
}

// Unkeep tells that the Keeper has let pages of [lo, hi) go. Those that are known
// are forgotten in their time, as if they had been seen just now.
func (s *Set) Unkeep(lo, hi int) {
	t := s.table.Load()
	if t == nil {
		return
	}
	for i := lo / blockPages; i <= (min(hi, s.pages)-1)/blockPages; i++ {
		if b := (*t)[i].Load(); b != nil {
			s.list(b)
		}
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
	s.table.Store(nil)
	s.lapses.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.listed = nil
	if s.timer != nil {
		s.timer.Stop()
	}
}
