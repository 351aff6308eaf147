package mmapio_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// Pages in a storm. Every word of a page says which page of which file it is
// of, at which store it was written, and, by a hash, where on the page it
// lies. So a word of another page, another file, or of memory that was used
// again cannot pass for a right one. The race detector does not see mapped
// bytes: these words are the proof.
//
// A page has one writer at a time, by a lock of the test's, so that what is
// torn is not taken for wrong. What a cut of the file takes away while it is
// stored to or read may come back as zeroes: a word may be zero if, and only
// if, the page was cut since it was last stored to.
type stormPages struct {
	nonce uint64
	pages []stormPage
	ps    int64

	strict, lenient atomic.Int64 // pages checked that were not, or were, cut
}

type stormPage struct {
	mu    sync.RWMutex
	seq   uint64        // of the last store, successful or not
	clean uint64        // cuts at the last store, if it was whole, else stormNever
	cuts  atomic.Uint64 // cuts that are over << 16 + cuts under way
}

const stormNever = 1<<16 - 1

func newStormPages(nonce uint64, n int) *stormPages {
	s := &stormPages{nonce: nonce, pages: make([]stormPage, n), ps: pageSize}
	for i := range s.pages {
		s.pages[i].clean = stormNever
		if torn(int64(i)) {
			s.pages[i].cuts.Store(1) // for good
		}
	}
	return s
}

// torn says of a page that cuts may go through it. A store to such a page may
// lie beyond the end of the file, and is then lost when the file grows, though
// nobody cuts it again.
func torn(page int64) bool { return page >= stormKept && page%4 == 3 }

// cutAt picks a length for the file.
func cutAt(r *rand.Rand) int64 {
	page := stormKept + r.Int64N(stormMost-stormKept+1)
	if torn(page) {
		return page*pageSize + 8*r.Int64N(pageSize/8) // words stay whole
	}
	return page * pageSize
}

// word is what lies in word i of a page after a store.
func (s *stormPages) word(page int64, seq, i uint64) uint64 {
	h := (s.nonce ^ uint64(page)<<40 ^ seq<<12 ^ i) * 0x9E3779B97F4A7C15
	h = (h ^ h>>29) * 0xBF58476D1CE4E5B9
	return uint64(page)<<52 | (seq&0xFFFFFFFF)<<20 | h>>44
}

func (s *stormPages) fill(b []byte, page int64, seq uint64) {
	for i := 0; i+8 <= len(b); i += 8 {
		binary.NativeEndian.PutUint64(b[i:], s.word(page, seq, uint64(i/8)))
	}
}

// beginCut tells that the pages from the one with byte n on may be cut. end
// tells that this is over.
func (s *stormPages) beginCut(n int64) (end func()) {
	from := min(int(n/s.ps), len(s.pages))
	for i := from; i < len(s.pages); i++ {
		s.pages[i].cuts.Add(1)
	}
	return func() {
		for i := from; i < len(s.pages); i++ {
			s.pages[i].cuts.Add(1<<16 - 1)
		}
	}
}

// store has put store a new value of a page, which must be locked.
func (s *stormPages) store(page int64, b []byte, put func([]byte) error) error {
	p := &s.pages[page]
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seq++
	s.fill(b, page, p.seq)
	before := p.cuts.Load()
	p.clean = stormNever
	err := put(b)
	if err == nil && before&stormNever == 0 && p.cuts.Load() == before {
		p.clean = before
	}
	return err
}

// check looks at bytes of a page from at on, read while the page was locked
// for reading. at is a multiple of 8.
func (s *stormPages) check(b []byte, page, at int64) error {
	p := &s.pages[page]
	strict := p.clean == p.cuts.Load() && p.clean&stormNever == 0
	if strict {
		s.strict.Add(1)
	} else {
		s.lenient.Add(1)
	}
	for i := 0; i+8 <= len(b); i += 8 {
		w := binary.NativeEndian.Uint64(b[i:])
		if w == 0 && strict {
			// Held memory is read here and now, and a cut may have come.
			strict = p.clean == p.cuts.Load()
		}
		if w == 0 && !strict {
			continue
		}
		seq := w >> 20 & 0xFFFFFFFF
		n := uint64(at+int64(i)) / 8
		switch {
		case w != s.word(page, seq, n):
			return fmt.Errorf("page %d, word %d: %#x is no word of it (strict %v)", page, n, w, strict)
		case seq > p.seq, strict && seq != p.seq:
			return fmt.Errorf("page %d, word %d: store %d, last was %d (strict %v)", page, n, seq, p.seq, strict)
		}
	}
	return nil
}

// under calls read with the page locked for reading, and checks what it gives.
func (s *stormPages) under(page, at int64, read func() ([]byte, error)) (wrong, err error) {
	p := &s.pages[page]
	p.mu.RLock()
	defer p.mu.RUnlock()
	b, err := read()
	return s.check(b, page, at), err
}
