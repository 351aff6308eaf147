package mmapio

import (
	"sync/atomic"
	"time"

	"github.com/mmapio/mmapio/internal/limits"
	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/sys"
)

// maxMaps remembers vm.max_map_count for a second: to read it takes longer than
// to lock a page.
var maxMaps maxMapCount

type maxMapCount struct{ last atomic.Pointer[mapCount] }

type mapCount struct {
	at    time.Time
	value int64
	err   error
}

func (m *maxMapCount) get() (int64, error) {
	now := time.Now()
	c := m.last.Load()
	if c == nil || now.Sub(c.at) > time.Second {
		c = &mapCount{at: now}
		c.value, c.err = limits.MaxMapCount()
		m.last.Store(c)
	}
	return c.value, c.err
}

// splits is how many mappings the locks and the advice of all Files have cost.
var splits atomic.Int64

// recount brings splits up to date after a change of the held pages. The
// kernel cuts a mapping wherever locked and unlocked pages meet; a run that
// reaches an end of the File costs one cut less.
func (f *File) recount(g *generation) {
	extra := f.locks.cost(g, f.locks.set.HeldRuns()) + f.src.cuts.Load()
	splits.Add(extra - f.src.extra.Swap(extra))
}

func (l *locker) cost(g *generation, runs int) int64 {
	ps := int64(sys.PageSize())
	cuts := 2 * int64(runs)
	if l.set.Covered(0, ps, lockset.OnFault) {
		cuts--
	}
	if end := g.mem.mapped.Load(); l.set.Covered(end-ps, end, lockset.OnFault) {
		cuts--
	}
	return max(cuts, 0)
}

// cuts reports whether to unlock a run takes more mappings, because the pages
// on both sides stay locked.
func (l *locker) cuts(run lockset.Run) bool {
	return run.Lo > 0 && l.set.Covered(run.Lo-1, run.Hi+1, lockset.OnFault)
}

// mapRoom refuses a change that makes so many runs more, if locks would then
// take more than half of the mappings that a process may have: when they run
// out, Go itself dies.
func (l *locker) mapRoom(runs int) error {
	more := 2 * int64(runs)
	if more <= 0 {
		return nil
	}
	limit, err := maxMaps.get()
	if err != nil || splits.Load()+more <= limit/2 {
		return nil //nolint:nilerr // no such limit here
	}
	return &mapCountError{splits.Load() + more, limit}
}
