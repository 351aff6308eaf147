package lockset

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// forPages runs fn for each page size that matters.
func forPages(t *testing.T, fn func(t *testing.T, ps int64)) {
	t.Helper()
	for _, ps := range []int64{8, 4096, 65536} {
		t.Run(fmt.Sprint(ps), func(t *testing.T) { fn(t, ps) })
	}
}

func wantRuns(t *testing.T, what string, got []Run, want ...Run) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

func TestWanted(t *testing.T) {
	forPages(t, func(t *testing.T, ps int64) {
		assign := func(lo, hi int64, l Level) func(*Set) {
			return func(s *Set) { s.Assign(lo, hi, l) }
		}
		pin := func(lo, hi int64, l Level) func(*Set) {
			return func(s *Set) { s.Pin(lo, hi, l) }
		}
		tests := []struct {
			name string
			ops  []func(*Set)
			want []Run
		}{
			{"nothing", nil, nil},
			{"empty range", []func(*Set){assign(3, 3, Now), pin(3, 3, Now)}, nil},
			{"backward range", []func(*Set){assign(5, 3, Now), pin(5, 3, Now)}, nil},
			{"pin at none", []func(*Set){pin(0, ps, None)}, nil},
			{"a byte is a page", []func(*Set){assign(1, 2, Now)}, []Run{{0, ps, Now}}},
			{"two bytes, two pages", []func(*Set){assign(ps-1, ps+1, OnFault)}, []Run{{0, 2 * ps, OnFault}}},
			{
				"unlocking one of two ranges on a page",
				[]func(*Set){assign(0, 2, Now), assign(4, 6, Now), assign(0, 2, None)},
				[]Run{{0, ps, Now}},
			},
			{
				"unlocking both",
				[]func(*Set){assign(0, 2, Now), assign(4, 6, Now), assign(0, 2, None), assign(4, 6, None)},
				nil,
			},
			{"not counted", []func(*Set){assign(0, ps, Now), assign(0, ps, Now), assign(0, ps, None)}, nil},
			{"unlock below a pin", []func(*Set){assign(0, 4*ps, Now), pin(ps, ps+1, Now), assign(0, 4*ps, None)}, []Run{{ps, 2 * ps, Now}}},
			{"the higher level wins a shared page", []func(*Set){assign(0, ps+2, OnFault), assign(ps+2, 3*ps, Now)}, []Run{{0, ps, OnFault}, {ps, 3 * ps, Now}}},
			{"from either side", []func(*Set){assign(0, ps+2, Now), assign(ps+2, 3*ps, OnFault)}, []Run{{0, 2 * ps, Now}, {2 * ps, 3 * ps, OnFault}}},
			{
				"three levels on one page, joined to the run before",
				[]func(*Set){assign(0, ps, Now), assign(ps, ps+2, OnFault), assign(ps+2, ps+3, Now), assign(ps+4, ps+5, OnFault)},
				[]Run{{0, 2 * ps, Now}},
			},
			{"a pin raises", []func(*Set){assign(0, 3*ps, OnFault), pin(ps+1, ps+2, Now)}, []Run{{0, ps, OnFault}, {ps, 2 * ps, Now}, {2 * ps, 3 * ps, OnFault}}},
			{"a pin does not lower", []func(*Set){assign(0, 3*ps, Now), pin(ps+1, ps+2, OnFault)}, []Run{{0, 3 * ps, Now}}},
			{"below zero", []func(*Set){assign(-ps, 1, Now)}, []Run{{0, ps, Now}}},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				s := New(ps)
				for _, op := range tt.ops {
					op(s)
				}
				s.check(t)
				wantRuns(t, "Wanted", s.Wanted(nil, 0, 100*ps), tt.want...)
			})
		}
	})
}

func TestUnpin(t *testing.T) {
	forPages(t, func(t *testing.T, ps int64) {
		s := New(ps)
		a := s.Pin(0, ps+1, Now)
		b := s.Pin(ps-1, 2*ps, OnFault)
		c := s.Pin(ps-1, 2*ps, Now)
		s.Unpin(Pin{})
		s.Unpin(c)
		wantRuns(t, "two pins", s.Wanted(nil, 0, 9*ps), Run{0, 2 * ps, Now})
		s.Unpin(a)
		wantRuns(t, "one pin", s.Wanted(nil, 0, 9*ps), Run{0, 2 * ps, OnFault})
		wantRuns(t, "its bytes", s.WantedBytes(nil, 0, 9*ps), Run{ps - 1, 2 * ps, OnFault})
		s.Unpin(b)
		wantRuns(t, "no pin", s.Wanted(nil, 0, 9*ps))
		s.check(t)
		s.checkEmpty(t)
	})
}

func TestTruncate(t *testing.T) {
	forPages(t, func(t *testing.T, ps int64) {
		s := New(ps)
		s.Assign(0, 4*ps, Now)
		s.Hold(0, 4*ps, Now)
		s.Truncate(2*ps + 1)
		wantRuns(t, "Wanted", s.Wanted(nil, 0, 9*ps), Run{0, 3 * ps, Now})
		wantRuns(t, "Held", s.Held(nil, 0, 9*ps), Run{0, 3 * ps, Now})
		wantRuns(t, "Excess", s.Excess(nil, 0, 9*ps))

		// Without that byte nothing wants the page in the middle, which the
		// kernel goes on holding.
		s.Assign(2*ps, 2*ps+1, None)
		s.Assign(2*ps+1, 4*ps, Now)
		s.Truncate(2*ps + 1)
		wantRuns(t, "Held", s.Held(nil, 0, 9*ps), Run{0, 3 * ps, Now})
		wantRuns(t, "Excess", s.Excess(nil, 0, 9*ps), Run{2 * ps, 3 * ps, None})

		s.Truncate(-1)
		s.check(t)
		s.checkEmpty(t)
		if s.HeldBytes() != 0 || s.HeldRuns() != 0 {
			t.Errorf("HeldBytes, HeldRuns = %d, %d after Truncate(-1)", s.HeldBytes(), s.HeldRuns())
		}
	})
}

func TestPinAcrossTruncate(t *testing.T) {
	forPages(t, func(t *testing.T, ps int64) {
		s := New(ps)
		a := s.Pin(0, 8*ps, Now)
		s.Truncate(4 * ps)
		b := s.Pin(2*ps, 8*ps, Now)
		s.Truncate(6 * ps)
		c := s.Pin(0, 8*ps, Now)

		s.Unpin(a) // has [0, 4) left
		wantRuns(t, "without a", s.Wanted(nil, 0, 9*ps), Run{0, 8 * ps, Now})
		s.Unpin(c)
		wantRuns(t, "without c", s.Wanted(nil, 0, 9*ps), Run{2 * ps, 6 * ps, Now})
		s.Truncate(ps) // nothing of b is left
		d := s.Pin(0, 8*ps, OnFault)
		s.Unpin(b)
		wantRuns(t, "without b", s.Wanted(nil, 0, 9*ps), Run{0, 8 * ps, OnFault})
		s.Unpin(d)
		s.check(t)
		s.checkEmpty(t)
	})
}

// A pin that lives long must not make every truncation be remembered.
func TestCutsAreFew(t *testing.T) {
	s := New(4096)
	old := s.Pin(0, 10, Now)
	for size := range int64(1000) {
		p := s.Pin(0, 1<<20, Now)
		s.Truncate(100 + size)
		s.Unpin(p)
		if n := len(s.cuts); n > 2 {
			t.Fatalf("%d cuts for one live pin", n)
		}
	}
	s.Unpin(old)
	s.checkEmpty(t)
}

func TestHold(t *testing.T) {
	forPages(t, func(t *testing.T, ps int64) {
		s := New(ps)
		count := func(pages int64, runs int) {
			t.Helper()
			s.check(t)
			if s.HeldBytes() != pages*ps || s.HeldRuns() != runs {
				t.Errorf("HeldBytes, HeldRuns = %d, %d, want %d, %d", s.HeldBytes(), s.HeldRuns(), pages*ps, runs)
			}
		}
		s.Hold(ps, ps, Now)
		count(0, 0)
		s.Hold(2*ps, 4*ps, Now)
		count(2, 1)
		s.Hold(4*ps, 6*ps, OnFault) // a neighbour at another level
		count(4, 1)
		s.Hold(8*ps, 9*ps, Now)
		count(5, 2)
		for _, tt := range []struct {
			lo, hi int64
			want   int
		}{{5, 5, 2}, {0, 1, 3}, {1, 2, 2}, {6, 7, 2}, {6, 8, 1}, {7, 8, 2}, {0, 20, 1}, {3, 5, 2}, {20, 21, 3}} {
			if got := s.RunsIfHeld(tt.lo*ps, tt.hi*ps); got != tt.want {
				t.Errorf("RunsIfHeld of pages [%d, %d) = %d, want %d", tt.lo, tt.hi, got, tt.want)
			}
		}
		wantRuns(t, "Held", s.Held(nil, 3*ps+1, 8*ps), Run{3 * ps, 4 * ps, Now}, Run{4 * ps, 6 * ps, OnFault})
		wantRuns(t, "Missing", s.Missing(nil, 3*ps+1, 8*ps+1, Now), Run{4 * ps, 6 * ps, OnFault}, Run{6 * ps, 8 * ps, None})
		if !s.Covered(2*ps+1, 6*ps-1, OnFault) || s.Covered(2*ps+1, 6*ps-1, Now) || s.Covered(5*ps, 6*ps+1, OnFault) {
			t.Error("Covered does not agree with Held")
		}
		s.Hold(3*ps, 5*ps, None) // in the middle
		count(3, 3)
		s.Hold(0, 20*ps, None)
		count(0, 0)
	})
}

func TestExcess(t *testing.T) {
	forPages(t, func(t *testing.T, ps int64) {
		s := New(ps)
		s.Assign(ps+1, ps+2, OnFault)
		s.Assign(3*ps+1, 3*ps+2, Now)
		wantRuns(t, "nothing held", s.Excess(nil, 0, 9*ps))
		s.Hold(0, 6*ps, Now)
		wantRuns(t, "all held", s.Excess(nil, 1, 6*ps-1),
			Run{0, ps, None}, Run{ps, 2 * ps, OnFault}, Run{2 * ps, 3 * ps, None}, Run{4 * ps, 6 * ps, None})
		wantRuns(t, "one page", s.Excess(nil, ps+5, ps+6), Run{ps, 2 * ps, OnFault})
		wantRuns(t, "no byte", s.Excess(nil, ps+5, ps+5))
	})
}

// Offsets at the ends of an int64 must do no harm.
func TestExtremes(t *testing.T) {
	forPages(t, func(t *testing.T, ps int64) {
		s := New(ps)
		s.Assign(math.MinInt64, math.MaxInt64, OnFault)
		p := s.Pin(math.MaxInt64-1, math.MaxInt64, Now)
		q := s.Pin(math.MaxInt64-3*ps, math.MaxInt64, Now)
		all := s.Wanted(nil, math.MinInt64, math.MaxInt64)
		if len(all) != 2 || all[0].Lo != 0 || all[1].Hi != math.MaxInt64-(ps-1) {
			t.Errorf("Wanted = %v", all)
		}
		s.Unpin(p)
		s.Unpin(q)
		s.Hold(0, s.limit, Now)
		s.RunsIfHeld(math.MinInt64, math.MaxInt64)
		s.Truncate(math.MaxInt64)
		wantRuns(t, "Excess", s.Excess(nil, math.MinInt64, math.MaxInt64), Run{0, s.limit, OnFault})
		s.Truncate(math.MinInt64)
		s.check(t)
		s.checkEmpty(t)
	})
}

// Enough runs for the index of leaves to have several levels.
func TestManyRuns(t *testing.T) {
	const n, ps = 30_000, 4096
	s := New(ps)
	for _, i := range rand.Perm(n) {
		lo := int64(i) * 2 * ps
		s.Assign(lo+5, lo+6, Now)
		s.Hold(lo, lo+ps, Now)
	}
	s.check(t)
	if got := s.HeldRuns(); got != n {
		t.Fatalf("HeldRuns = %d, want %d", got, n)
	}
	wantRuns(t, "Excess", s.Excess(nil, 0, 2*n*ps))
	if got := len(s.Missing(nil, 0, 2*n*ps, Now)); got != n {
		t.Fatalf("%d runs missing, want %d", got, n)
	}
	for i, k := range rand.Perm(n) {
		lo := int64(k) * 2 * ps
		s.Assign(lo, lo+ps, None)
		s.Hold(lo, lo+ps, None)
		if i%5000 == 0 {
			s.check(t)
		}
	}
	s.check(t)
	s.checkEmpty(t)
}

func TestPanics(t *testing.T) {
	tests := []struct {
		name string
		fn   func()
	}{
		{"page size", func() { New(5000) }},
		{"no page size", func() { New(0) }},
		{"half a page", func() { New(4096).Hold(0, 100, Now) }},
		{"released twice", func() {
			s := New(4096)
			p := s.Pin(0, 10, Now)
			s.Unpin(p)
			s.Unpin(p)
		}},
		{"released twice after a truncation", func() {
			s := New(4096)
			p := s.Pin(0, 10, Now)
			s.Truncate(5)
			s.Unpin(p)
			s.Unpin(p)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			tt.fn()
		})
	}
}

func TestLevelString(t *testing.T) {
	for l, want := range map[Level]string{None: "none", OnFault: "on fault", Now: "now", 7: "Level(7)"} {
		if got := l.String(); got != want {
			t.Errorf("Level %d is %q, want %q", uint8(l), got, want)
		}
	}
}

func TestAllocs(t *testing.T) {
	s := heldSet(1 << 30)
	for i := range int64(1000) {
		s.Pin(i<<20, i<<20+64, OnFault)
	}
	dst := make([]Run, 0, 16)
	off := int64(0)
	work := func() {
		off = (off + 7<<20) % (1 << 30)
		nested(t, s, off+100)
		s.Assign(off, off+4096, None)
		s.Assign(off, off+4096, Now)
		s.Excess(dst, off, off+4096)
		s.Missing(dst, off, off+4096, Now)
	}
	for range 1 << 12 {
		work()
	}
	if n := testing.AllocsPerRun(1000, work); n != 0 {
		t.Errorf("%v allocations a run, want none", n)
	}
}

// TestEmptyIsSmall: every File has a Set, and most have no lock.
func TestEmptyIsSmall(t *testing.T) {
	r := testing.Benchmark(func(b *testing.B) {
		for range b.N {
			New(4096)
		}
	})
	if n := r.AllocedBytesPerOp(); n > 512 {
		t.Errorf("an empty Set takes %d bytes", n)
	}
}
