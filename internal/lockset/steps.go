package lockset

import (
	"math"

	"github.com/google/btree"
)

// leafCap is a compromise: a leaf is moved about in memory as steps come and
// go, and searched once per operation.
const leafCap = 64

// A leaf holds the steps in [low, high). Leaves follow one another without a
// gap, from the first with the least int64 to the last with the greatest.
// None is empty unless it is the only one.
type leaf struct {
	low, high  int64
	prev, next *leaf
	n          int
	steps      []step // n of them, and room for more; see grow
}

// leafMin is the room that the first step makes. Most Files have few locks or
// none, and a program may have very many Files.
const leafMin = 4

// grow makes room for n steps, at most leafCap.
func (l *leaf) grow(n int) {
	if n <= len(l.steps) {
		return
	}
	room := make([]step, min(max(2*len(l.steps), n, leafMin), leafCap))
	copy(room, l.steps[:l.n])
	l.steps = room
}

// steps is an ordered set of disjoint runs, kept as the edges between them:
// the zero state up to the first step, and no step that changes nothing, so
// that equal neighbours are one run.
//
// The steps themselves lie in leaves, and only the leaves are in a btree. With
// the steps in the btree, a pin within a longer run took three look-ups and
// two insertions, each with a comparison through a func value at every level,
// and walking to a neighbour started from the root again. Here it is one
// look-up, or none when the leaf is the one used last, and a copy within it.
type steps struct {
	index *btree.BTreeG[indexed] // nil until there is a second leaf
	last  *leaf                  // the leaf used last
	free  *leaf                  // leaves to use again, chained by next
	nfree int
}

// indexed has the key beside the pointer, so that a search reads no leaves.
type indexed struct {
	low  int64
	leaf *leaf
}

// maxFree is how many leaves are kept for later: enough that runs that come
// and go allocate nothing, few enough not to matter.
const maxFree = 16

func (t *steps) init() {
	t.last = &leaf{low: math.MinInt64, high: math.MaxInt64}
}

// find returns the leaf whose range has x, and how many of its steps are at x
// or before.
func (t *steps) find(x int64) (*leaf, int) {
	l := t.last
	if x < l.low || x >= l.high {
		t.index.DescendLessOrEqual(indexed{low: x}, func(e indexed) bool {
			l = e.leaf
			return false
		})
		t.last = l
	}
	return l, l.search(x)
}

// search returns how many steps of l are at x or before.
func (l *leaf) search(x int64) int {
	i, j := 0, l.n
	for i < j {
		if m := int(uint(i+j) / 2); l.steps[m].at <= x {
			i = m + 1
		} else {
			j = m
		}
	}
	return i
}

// before returns the state just before step i of l.
func (l *leaf) before(i int) state {
	if i > 0 {
		return l.steps[i-1].state
	}
	if p := l.prev; p != nil && p.n > 0 {
		return p.steps[p.n-1].state
	}
	return state{}
}

// A cursor walks the runs of a range, those in the zero state included.
type cursor struct {
	lo, hi int64 // the run, cut to the range
	state  state

	end  int64
	leaf *leaf
	i    int // the step after the run
	then state
}

// from returns a cursor before the first run of [lo, hi). The set must not
// change while the cursor is in use.
func (t *steps) from(lo, hi int64) cursor {
	if lo >= hi {
		return cursor{} // at its end
	}
	l, i := t.find(lo)
	return cursor{hi: lo, end: hi, leaf: l, i: i, then: l.before(i)}
}

// next moves to the next run and reports whether there is one.
func (c *cursor) next() bool {
	if c.hi >= c.end {
		return false
	}
	c.lo, c.hi, c.state = c.hi, c.end, c.then
	if c.i == c.leaf.n && c.leaf.next != nil {
		c.leaf, c.i = c.leaf.next, 0
	}
	if c.i < c.leaf.n {
		if s := &c.leaf.steps[c.i]; s.at < c.end {
			c.hi, c.then = s.at, s.state
			c.i++
		}
	}
	return true
}

// apply changes every state in [lo, hi).
func (t *steps) apply(lo, hi int64, c change) {
	if lo >= hi {
		return
	}
	l, i := t.find(lo)
	if s := l.before(i); c.of(s) == s && l.runEnd(i) >= hi {
		return // one run, and it has the state already
	}
	if hi < l.high && t.splice(l, i, lo, hi, &c) {
		return
	}
	t.cut(hi)
	t.cut(lo)
	l, i = t.find(lo)
	i-- // the step at lo
	prev := l.before(i)
	for done := false; !done; {
		w := i
		for ; i < l.n && !done; i++ {
			s := l.steps[i]
			if s.at == hi {
				done = true // hi keeps its state, but may no longer be a step
			} else {
				s.state = c.of(s.state)
			}
			if s.state != prev {
				prev = s.state
				l.steps[w] = s
				w++
			}
		}
		if w < i {
			l.n = w + copy(l.steps[w:], l.steps[i:l.n])
		}
		next := l.next
		if l.prev != nil {
			l = t.join(l.prev, l)
		}
		if done {
			break
		}
		l, i = next, 0
	}
	if l.next != nil {
		t.join(l, l.next)
	}
}

// splice is apply for the common case: a range within one leaf with hardly a
// step in it. It builds what comes in the place of the old steps and copies
// the rest of the leaf once, where apply would do so for every edge. Step i
// of l is the first one after lo. If the case is another, splice does nothing
// and returns false.
func (t *steps) splice(l *leaf, i int, lo, hi int64, c *change) bool {
	var buf [4]step
	j := i // the first step after hi
	for j < l.n && l.steps[j].at <= hi {
		if j++; j-i > len(buf)-2 {
			return false
		}
	}
	old := l.before(i)
	first := i // the first step to be replaced
	if i > 0 && l.steps[i-1].at == lo {
		first--
	}
	prev := l.before(first)

	n := 0
	at := lo
	for k := i; ; k++ {
		if s := c.of(old); s != prev {
			buf[n] = step{at, s}
			n++
			prev = s
		}
		if k == j || l.steps[k].at == hi {
			if k < j {
				old = l.steps[k].state
			}
			break
		}
		at, old = l.steps[k].at, l.steps[k].state
	}
	if old != prev {
		buf[n] = step{hi, old}
		n++
	}

	size := l.n + n - (j - first)
	if size > leafCap {
		return false
	}
	l.grow(size)
	if first+n != j {
		copy(l.steps[first+n:size], l.steps[j:l.n])
	}
	copy(l.steps[first:], buf[:n])
	shrunk := size < l.n
	l.n = size
	if shrunk {
		t.tidy(l)
	}
	return true
}

// tidy joins l with its neighbours where they are small enough.
func (t *steps) tidy(l *leaf) {
	if l.prev != nil {
		l = t.join(l.prev, l)
	}
	if l.next != nil {
		t.join(l, l.next)
	}
}

// whole returns the state of [lo, hi) if it is one run, which it is most of the
// time and which takes less than a walk.
func (t *steps) whole(lo, hi int64) (state, bool) {
	l, i := t.find(lo)
	return l.before(i), l.runEnd(i) >= hi
}

// runEnd returns where the run before step i of l ends.
func (l *leaf) runEnd(i int) int64 {
	if i < l.n {
		return l.steps[i].at
	}
	if l.next != nil {
		return l.next.steps[0].at
	}
	return math.MaxInt64
}

// cut makes x a step, even if it changes nothing.
func (t *steps) cut(x int64) {
	l, i := t.find(x)
	if i > 0 && l.steps[i-1].at == x {
		return
	}
	s := step{x, l.before(i)}
	if l.n == leafCap {
		const half = leafCap / 2
		r := t.split(l, half)
		if i > half {
			l, i = r, i-half
		}
	}
	l.grow(l.n + 1)
	copy(l.steps[i+1:l.n+1], l.steps[i:l.n])
	l.steps[i] = s
	l.n++
}

// split moves the steps of l from i on to a new leaf after it.
func (t *steps) split(l *leaf, i int) *leaf {
	r := t.free
	if r != nil {
		t.free = r.next
		t.nfree--
	} else {
		r = &leaf{steps: make([]step, leafCap)}
	}
	r.grow(l.n - i)
	r.n = copy(r.steps, l.steps[i:l.n])
	l.n = i
	r.low, r.high = r.steps[0].at, l.high
	l.high = r.low
	r.prev, r.next = l, l.next
	if r.next != nil {
		r.next.prev = r
	}
	l.next = r
	if t.index == nil {
		t.index = btree.NewG(16, func(a, b indexed) bool { return a.low < b.low })
		t.index.ReplaceOrInsert(indexed{l.low, l})
	}
	t.index.ReplaceOrInsert(indexed{r.low, r})
	return r
}

// join moves the steps of r to l, the leaf before it, if either is empty or
// they make a leaf no more than half full, so that the next few insertions do
// not split it again. It returns the leaf where the steps of r are.
func (t *steps) join(l, r *leaf) *leaf {
	if l.n != 0 && r.n != 0 && l.n+r.n > leafCap/2 {
		return r
	}
	l.grow(l.n + r.n)
	copy(l.steps[l.n:], r.steps[:r.n])
	l.n += r.n
	l.high = r.high
	l.next = r.next
	if l.next != nil {
		l.next.prev = l
	}
	t.index.Delete(indexed{low: r.low})
	if t.last == r {
		t.last = l
	}
	r.prev, r.next = nil, nil
	if t.nfree < maxFree {
		r.next = t.free
		t.free = r
		t.nfree++
	}
	return l
}
