package lockset

import (
	"slices"
)

// fataler is what *testing.T and *rapid.T have in common.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// A model does what a Set does, one byte at a time. Its bytes may stand for
// scale bytes each, so that large pages stay cheap to check.
type model struct {
	scale, ps int64 // ps counts model bytes
	level     []Level
	held      []Level // by page
	pins      []modelPin
	set       *Set
}

type modelPin struct {
	lo, hi int64 // what truncations have left
	level  Level
	pin    Pin
}

func newModel(ps, scale int64, pages int) *model {
	return &model{
		scale: scale,
		ps:    ps,
		level: make([]Level, ps*int64(pages)),
		held:  make([]Level, pages),
		set:   New(ps * scale),
	}
}

func (m *model) size() int64 { return int64(len(m.level)) }

func (m *model) assign(lo, hi int64, l Level) {
	for x := lo; x < hi; x++ {
		m.level[x] = l
	}
	m.set.Assign(lo*m.scale, hi*m.scale, l)
}

// comb assigns every other byte, to make many runs at once. It stops after
// enough to fill some leaves.
func (m *model) comb(lo, hi int64, l Level) {
	hi = min(hi, lo+6*leafCap)
	for x := lo; x < hi; x += 2 {
		m.assign(x, x+1, l)
	}
}

func (m *model) pin(lo, hi int64, l Level) {
	p := m.set.Pin(lo*m.scale, hi*m.scale, l)
	m.pins = append(m.pins, modelPin{lo, hi, l, p})
}

// unpin releases pin i and returns the range that it still had.
func (m *model) unpin(i int) (lo, hi int64) {
	p := m.pins[i]
	m.pins = slices.Delete(m.pins, i, i+1)
	m.set.Unpin(p.pin)
	return p.lo, p.hi
}

func (m *model) truncate(size int64) {
	for x := size; x < m.size(); x++ {
		m.level[x] = None
	}
	for i := range m.pins {
		p := &m.pins[i]
		p.hi = min(p.hi, size)
	}
	for i := (size + m.ps - 1) / m.ps; i < int64(len(m.held)); i++ {
		m.held[i] = None
	}
	m.set.Truncate(size * m.scale)
}

func (m *model) hold(page0, page1 int64, l Level) {
	for i := page0; i < page1; i++ {
		m.held[i] = l
	}
	m.set.Hold(page0*m.ps*m.scale, page1*m.ps*m.scale, l)
}

// settle does what a caller does after a change to [lo, hi): it makes the held
// pages what the set says they should be.
func (m *model) settle(lo, hi int64) {
	lo, hi = lo*m.scale, hi*m.scale
	set := func(lo, hi int64, l Level) {
		m.hold(lo/m.scale/m.ps, hi/m.scale/m.ps, l)
	}
	for _, w := range m.set.Wanted(nil, lo, hi) {
		for _, r := range m.set.Missing(nil, w.Lo, w.Hi, w.Level) {
			set(r.Lo, r.Hi, w.Level)
		}
	}
	for _, r := range m.set.Excess(nil, lo, hi) {
		set(r.Lo, r.Hi, r.Level)
	}
}

// bytes returns the level wanted for each byte.
func (m *model) bytes() []Level {
	want := slices.Clone(m.level)
	for _, p := range m.pins {
		for x := p.lo; x < p.hi; x++ {
			want[x] = max(want[x], p.level)
		}
	}
	return want
}

// pages returns the level wanted for each page, from that of each byte.
func (m *model) pages(bytes []Level) []Level {
	want := make([]Level, len(m.held))
	for x, l := range bytes {
		i := int64(x) / m.ps
		want[i] = max(want[i], l)
	}
	return want
}

// runs turns levels, each for unit model bytes from lo on, into runs. Where
// keep says no they are left out.
func (m *model) runs(levels []Level, lo, unit int64, keep func(i int) bool) []Run {
	var runs []Run
	for i, l := range levels {
		if !keep(i) {
			continue
		}
		at := (lo + int64(i)*unit) * m.scale
		runs = extend(runs, 0, at, at+unit*m.scale, l)
	}
	return runs
}

// check compares every answer about [lo, hi) with the model's.
func (m *model) check(t fataler, lo, hi int64) {
	t.Helper()
	m.set.check(t)

	same := func(what string, got, want []Run) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Fatalf("%s of [%d, %d):\n got %v\nwant %v", what, lo, hi, got, want)
		}
	}
	from, to := lo*m.scale, hi*m.scale
	p0, p1 := lo/m.ps, (hi+m.ps-1)/m.ps
	if lo == hi {
		p1 = p0
	}
	bytes := m.bytes()
	want, held := m.pages(bytes)[p0:p1], m.held[p0:p1]
	bytes = bytes[lo:hi]

	// What is in dst already must neither change nor grow.
	junk := []Run{{from - m.ps*m.scale, from, Now}, {0, from, OnFault}}
	got := m.set.Wanted(junk, from, to)
	if !slices.Equal(got[:len(junk)], junk) {
		t.Fatalf("Wanted changed what was in dst: %v", got)
	}
	same("Wanted", got[len(junk):], m.runs(want, p0*m.ps, m.ps, func(i int) bool { return want[i] != None }))
	same("WantedBytes", m.set.WantedBytes(nil, from, to),
		m.runs(bytes, lo, 1, func(i int) bool { return bytes[i] != None }))
	same("Held", m.set.Held(nil, from, to), m.runs(held, p0*m.ps, m.ps, func(i int) bool { return held[i] != None }))
	same("Excess", m.set.Excess(nil, from, to), m.runs(want, p0*m.ps, m.ps, func(i int) bool { return held[i] > want[i] }))
	for l := None; l <= Now; l++ {
		all := !slices.ContainsFunc(bytes, func(is Level) bool { return is < l })
		if got := m.set.WantedAll(from, to, l); got != all {
			t.Fatalf("WantedAll(%d, %d, %v) = %v", lo, hi, l, got)
		}
		missing := m.runs(held, p0*m.ps, m.ps, func(i int) bool { return held[i] < l })
		same("Missing", m.set.Missing(nil, from, to, l), missing)
		if got := m.set.Covered(from, to, l); got != (len(missing) == 0) {
			t.Fatalf("Covered(%d, %d, %v) = %v, missing %v", lo, hi, l, got, missing)
		}
	}

	count := func(held []Level) (bytes int64, runs int) {
		for i, l := range held {
			if l == None {
				continue
			}
			bytes += m.ps * m.scale
			if i == 0 || held[i-1] == None {
				runs++
			}
		}
		return bytes, runs
	}
	b, n := count(m.held)
	if gotB, gotN := m.set.HeldBytes(), m.set.HeldRuns(); gotB != b || gotN != n {
		t.Fatalf("HeldBytes, HeldRuns = %d, %d, want %d, %d", gotB, gotN, b, n)
	}
	after := slices.Clone(m.held)
	for i := p0; i < p1; i++ {
		after[i] = OnFault
	}
	if _, n := count(after); m.set.RunsIfHeld(from, to) != n {
		t.Fatalf("RunsIfHeld(%d, %d) = %d, want %d", lo, hi, m.set.RunsIfHeld(from, to), n)
	}
}

// settled fails unless every page is held as it is wanted.
func (m *model) settled(t fataler) {
	t.Helper()
	if want := m.pages(m.bytes()); !slices.Equal(m.held, want) {
		t.Fatalf("held %v, wanted %v", m.held, want)
	}
}

// check fails unless s is sound within.
func (s *Set) check(t fataler) {
	t.Helper()
	checkSteps(t, &s.want)
	checkSteps(t, &s.held)

	var bytes int64
	runs, end := 0, int64(-1)
	for _, r := range s.Held(nil, 0, s.limit) {
		if r.Lo%s.pageSize != 0 || r.Hi%s.pageSize != 0 {
			t.Fatalf("held run %v is not in whole pages", r)
		}
		bytes += r.Hi - r.Lo
		if r.Lo != end {
			runs++
		}
		end = r.Hi
	}
	if s.heldBytes != bytes || s.heldRuns != runs {
		t.Fatalf("heldBytes, heldRuns = %d, %d, counted %d, %d", s.heldBytes, s.heldRuns, bytes, runs)
	}

	for i, c := range s.cuts {
		if i > 0 && (s.cuts[i-1].epoch >= c.epoch || s.cuts[i-1].size >= c.size) {
			t.Fatalf("cuts do not grow: %v", s.cuts)
		}
		if c.live <= 0 || c.epoch >= s.epoch {
			t.Fatalf("cut %v is of no use in epoch %d", c, s.epoch)
		}
	}
}

// check fails unless t is sound within.
func checkSteps(t fataler, st *steps) {
	t.Helper()
	first := st.last
	for first.prev != nil {
		first = first.prev
	}
	if low := first.low; low >= 0 {
		t.Fatalf("first leaf begins at %d", low)
	}
	var prev state
	at, leaves := int64(-1), 0
	for l := first; l != nil; l = l.next {
		leaves++
		if st.index != nil {
			if e, ok := st.index.Get(indexed{low: l.low}); !ok || e.leaf != l {
				t.Fatalf("leaf [%d, %d) is not in the index", l.low, l.high)
			}
		}
		if l.next != nil && (l.next.prev != l || l.next.low != l.high) {
			t.Fatalf("leaf [%d, %d) is followed by [%d, %d)", l.low, l.high, l.next.low, l.next.high)
		}
		if l.n == 0 && (l.prev != nil || l.next != nil) {
			t.Fatalf("leaf [%d, %d) is empty", l.low, l.high)
		}
		for _, s := range l.steps[:l.n] {
			if s.at < l.low || s.at >= l.high || s.at <= at {
				t.Fatalf("step at %d after %d in leaf [%d, %d)", s.at, at, l.low, l.high)
			}
			if s.state == prev {
				t.Fatalf("step at %d changes nothing: %v", s.at, prev)
			}
			at, prev = s.at, s.state
		}
	}
	if prev != (state{}) {
		t.Fatalf("last run %v has no end", prev)
	}
	if n := st.leaves(); n != leaves {
		t.Fatalf("%d leaves, %d in the index", leaves, n)
	}
	free := 0
	for l := st.free; l != nil; l = l.next {
		free++
	}
	if free != st.nfree || free > maxFree {
		t.Fatalf("%d free leaves, counted %d", free, st.nfree)
	}
}
