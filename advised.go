package mmapio

import (
	"errors"
	"io/fs"
	"slices"

	"github.com/mmapio/mmapio/internal/sys"
)

// What a File was advised for good has to be told to the system again for every
// new mapping. File.mu guards it.
type advised struct {
	read adviceRuns // sys.Random, sys.Sequential
	huge adviceRuns // sys.HugePages, sys.NoHugePages
}

// adviceRuns are runs of pages with advice that is not the usual one, sorted
// and apart from each other. Offsets count from the page of the first mapped
// byte; a run that reached the end of the File has none.
type adviceRuns []adviceRun

type adviceRun struct {
	lo, hi int64
	hint   sys.Hint
}

const noEnd = maxInt64

// with returns the runs after new advice for [lo, hi). sys.Normal is none.
func (all adviceRuns) with(lo, hi int64, h sys.Hint) adviceRuns {
	next := make(adviceRuns, 0, len(all)+2)
	add := func(r adviceRun) {
		switch n := len(next); {
		case r.lo >= r.hi || r.hint == sys.Normal:
		case n > 0 && next[n-1].hi == r.lo && next[n-1].hint == r.hint:
			next[n-1].hi = r.hi
		default:
			next = append(next, r)
		}
	}
	for _, r := range all {
		add(adviceRun{r.lo, min(r.hi, lo), r.hint})
	}
	add(adviceRun{lo, hi, h})
	for _, r := range all {
		add(adviceRun{max(r.lo, hi), r.hi, r.hint})
	}
	return next
}

// cut forgets what lies beyond the end.
func (all adviceRuns) cut(end int64) (kept adviceRuns) {
	for _, r := range all {
		if r.hi != noEnd {
			r.hi = min(r.hi, end)
		}
		if r.lo < r.hi && (r.lo < end || r.lo == 0) {
			kept = append(kept, r)
		}
	}
	return kept
}

// edges counts the places where a mapping must be cut, at most.
func (all adviceRuns) edges() (n int64) {
	for i, r := range all {
		if r.lo > 0 && (i == 0 || all[i-1].hi < r.lo) {
			n++
		}
		if r.hi != noEnd {
			n++
		}
	}
	return n
}

func (a *advised) edges() int64 { return a.read.edges() + a.huge.edges() }

// remember passes on advice that holds from now on.
func (f *File) remember(op string, off, n int64, h sys.Hint) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.cur.Load()
	if g == closedGeneration {
		return f.fail(op, fs.ErrClosed)
	}
	if err := f.within(op, g, off, n); err != nil || n == 0 {
		return err
	}
	next := f.advised
	first, last := g.pages(off, n)
	lo, hi := int64(first), int64(last)
	if off+n == int64(len(g.data)) {
		hi = noEnd
	}
	if h == sys.HugePages || h == sys.NoHugePages {
		next.huge = next.huge.with(lo, hi, h)
	} else {
		next.read = next.read.with(lo, hi, h)
	}
	if limit, err := maxMaps.get(); err == nil {
		more := next.edges() - f.advised.edges()
		if more > 0 && splits.Load()+more > limit/2 {
			return f.fail(op, errTooManyMaps)
		}
	}
	err := g.mem.space.Advise(g.mem.base+first, last-first, h)
	// Mappings end there now, which takes huge pages apart.
	huge := int64(sys.HugePage())
	f.locks.mu.Lock()
	f.keepIn(g, lo-huge, lo+huge)
	f.keepIn(g, int64(last)-huge, int64(last)+huge)
	f.locks.mu.Unlock()
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return f.fail(op, err)
	}
	f.setAdvised(g, next)
	return nil
}

var errTooManyMaps error = &sentinel{
	"locks and advice would take more than half of the mappings that vm.max_map_count allows", sys.ErrNoMemory,
}

// setAdvised changes the books. The caller holds mu.
func (f *File) setAdvised(g *generation, next advised) {
	f.advised = next
	l := &f.locks
	l.mu.Lock()
	f.src.cuts.Store(next.edges())
	f.src.random.Store(slices.ContainsFunc(next.read, func(r adviceRun) bool { return r.hint == sys.Random }))
	f.recount(g)
	l.mu.Unlock()
}

// cutAdvised forgets what was said about pages that a shrink took away.
func (f *File) cutAdvised(end int64) {
	f.setAdvised(f.cur.Load(), advised{f.advised.read.cut(end), f.advised.huge.cut(end)})
}

// readvise tells the system what it was told before, about pages that are newly
// mapped. They begin where the distance from base is at. Hints may fail.
func (f *File) readvise(e *extent, at, n int) {
	for _, runs := range []adviceRuns{f.advised.read, f.advised.huge} {
		for _, r := range runs {
			lo, hi := max(r.lo, int64(at)), min(r.hi, int64(pageUp(at+n)))
			if lo < hi {
				e.space.Advise(e.base+int(lo), int(hi-lo), r.hint) //nolint:errcheck // as above
			}
		}
	}
}
