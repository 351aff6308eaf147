package lockset

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// geometries has pages of one model byte to a byte, and larger ones.
var geometries = []struct {
	ps, scale int64
	pages     int
}{
	{8, 1, 160},     // pages of 8, many of them
	{4096, 1, 3},    // pages of 4096
	{16, 4096, 40},  // pages of 65536
	{8, 1 << 50, 9}, // offsets beyond any mapping
}

func TestModel(t *testing.T) {
	for _, g := range geometries {
		t.Run(fmt.Sprint(g.ps*g.scale), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				testModel(t, newModel(g.ps, g.scale, g.pages))
			})
		})
	}
}

func testModel(t *rapid.T, m *model) {
	offset := rapid.OneOf(
		rapid.Int64Range(0, m.size()),
		// Page edges and their neighbours.
		rapid.Custom(func(t *rapid.T) int64 {
			x := rapid.Int64Range(0, m.size()/m.ps).Draw(t, "page")*m.ps + rapid.Int64Range(-1, 1).Draw(t, "by")
			return min(max(x, 0), m.size())
		}),
	)
	level := rapid.SampledFrom([]Level{None, OnFault, Now})
	bounds := func(t *rapid.T) (int64, int64) {
		lo, hi := offset.Draw(t, "lo"), offset.Draw(t, "hi")
		return min(lo, hi), max(lo, hi)
	}
	// A careful caller settles every range that changes, and then everything
	// agrees; a careless one records what it likes.
	careful := rapid.Bool().Draw(t, "careful")
	changed := func(t *rapid.T, lo, hi int64) {
		if careful {
			m.settle(lo, hi)
			m.settled(t)
		}
	}
	t.Repeat(map[string]func(*rapid.T){
		"assign": func(t *rapid.T) {
			lo, hi := bounds(t)
			m.assign(lo, hi, level.Draw(t, "level"))
			changed(t, lo, hi)
		},
		"comb": func(t *rapid.T) {
			lo, hi := bounds(t)
			m.comb(lo, hi, level.Draw(t, "level"))
			changed(t, lo, hi)
		},
		"pin": func(t *rapid.T) {
			lo, hi := bounds(t)
			m.pin(lo, hi, level.Draw(t, "level"))
			changed(t, lo, hi)
		},
		"unpin": func(t *rapid.T) {
			if len(m.pins) == 0 {
				return
			}
			lo, hi := m.unpin(rapid.IntRange(0, len(m.pins)-1).Draw(t, "pin"))
			changed(t, lo, hi)
		},
		"truncate": func(t *rapid.T) {
			size := offset.Draw(t, "size")
			m.truncate(size)
			changed(t, max(size-1, 0), size)
		},
		"hold": func(t *rapid.T) {
			if careful {
				return // only the careless hold what is not wanted
			}
			lo, hi := bounds(t)
			m.hold(lo/m.ps, hi/m.ps, level.Draw(t, "level"))
		},
		"": func(t *rapid.T) {
			lo, hi := bounds(t)
			m.check(t, lo, hi)
		},
	})
	for len(m.pins) > 0 {
		m.unpin(len(m.pins) / 2)
	}
	m.assign(0, m.size(), None)
	m.settle(0, m.size())
	m.check(t, 0, m.size())
	m.set.checkEmpty(t)
}

func (t *steps) leaves() int {
	if t.index == nil {
		return 1
	}
	return t.index.Len()
}

// checkEmpty fails if anything is left of what came and went.
func (s *Set) checkEmpty(t fataler) {
	t.Helper()
	if n := s.want.last.n + s.held.last.n; n != 0 || s.want.leaves() != 1 || s.held.leaves() != 1 {
		t.Fatalf("%d steps left in the last leaves, %d and %d leaves", n, s.want.leaves(), s.held.leaves())
	}
	if s.live != 0 || len(s.cuts) != 0 {
		t.Fatalf("no pins, but %d live and cuts %v", s.live, s.cuts)
	}
}

// FuzzSet reads operations from bytes: six of them for each.
func FuzzSet(f *testing.F) {
	f.Add([]byte{}, uint8(0))
	f.Add([]byte{0, 0, 0, 0, 100, 2, 0, 0, 200, 1, 44, 2, 0, 0, 0, 0, 100, 0}, uint8(1))
	f.Add([]byte{2, 0, 0, 4, 0, 2, 4, 1, 0, 0, 0, 0, 2, 0, 0, 4, 0, 2, 3, 0, 0, 0, 0, 0}, uint8(0))
	f.Add([]byte{1, 0, 0, 5, 0, 2, 1, 0, 1, 4, 0, 1, 6, 0, 0, 3, 0, 2, 0, 1, 0, 2, 0, 0}, uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, geometry uint8) {
		g := geometries[int(geometry)%len(geometries)]
		m := newModel(g.ps, g.scale, g.pages)
		if len(data) > 6*64 {
			data = data[:6*64]
		}
		for ; len(data) >= 6; data = data[6:] {
			op, l := data[0]%7, Level(data[5]%3)
			lo := (int64(data[1])<<8 | int64(data[2])) % (m.size() + 1)
			hi := (int64(data[3])<<8 | int64(data[4])) % (m.size() + 1)
			lo, hi = min(lo, hi), max(lo, hi)
			switch op {
			case 0:
				m.assign(lo, hi, l)
			case 1:
				m.comb(lo, hi, l)
			case 2:
				m.pin(lo, hi, l)
			case 3:
				if n := int64(len(m.pins)); n > 0 {
					lo, hi = m.unpin(int(lo % n))
				}
			case 4:
				m.truncate(lo)
			case 5:
				m.hold(lo/m.ps, hi/m.ps, l)
			case 6:
				m.settle(0, m.size())
				m.settled(t)
			}
			m.check(t, lo, max(lo, hi))
		}
		m.check(t, 0, m.size())
	})
}
