package mmapio

import (
	"context"
	"runtime"
	"sync"

	"github.com/mmapio/mmapio/internal/limits"
	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/sys"
)

// Whether cgroups have to be looked at during a call.
const (
	cgroupsUnknown = iota
	cgroupsFree
	cgroupsLimited
)

// unaskedBytes may be brought in without a look at the cgroups: no more than
// any page fault of the program could.
const unaskedBytes = 256 << 10

// A room is what a window on its way may still be charged to the cgroups.
type room struct{ fresh, cached int64 }

// rooms adds up those of all windows under way, so that each finds room beside
// the others.
var rooms struct {
	mu   sync.Mutex
	sum  room
	less chan struct{} // closed when one is released
}

func (r *room) release() {
	if *r == (room{}) {
		return
	}
	rooms.mu.Lock()
	defer rooms.mu.Unlock()
	rooms.sum.fresh -= r.fresh
	rooms.sum.cached -= r.cached
	*r = room{}
	if rooms.less != nil {
		close(rooms.less)
		rooms.less = nil
	}
}

// roomInCgroups refuses what would make the kernel kill the process. What it
// does not refuse has its room until that is released. The pages of hugetlbfs are set
// aside beforehand, and charged elsewhere: where they are too few, that is an error.
func (f *File) roomInCgroups(ctx context.Context, call *lockCall, g *generation, missing []lockset.Run) (room, error) {
	var bytes int64
	for _, run := range missing {
		bytes += run.Hi - run.Lo
	}
	call.unasked += bytes
	if call.cgroups == cgroupsFree || call.unasked < unaskedBytes || f.src.huge > 0 {
		return room{}, nil
	}
	call.unasked = 0
	if call.cgroups == cgroupsUnknown {
		if err := f.roomInMachine(g, missing, bytes); err != nil {
			return room{}, f.lockError(call, g, missing[0].Lo, missing[len(missing)-1].Hi, err)
		}
		if limited, err := limits.Limited(); err == nil && !limited {
			call.cgroups = cgroupsFree
			return room{}, nil
		}
	}
	for {
		// A window that is released is charged by then. So the look at the
		// cgroups and the sum of what is still to come belong together.
		rooms.mu.Lock()
		groups, err := limits.Cgroups()
		if err != nil {
			rooms.mu.Unlock()
			return room{}, nil //nolint:nilerr // no cgroups here
		}
		if tight, ok := limits.Tightest(groups); !ok || tight.Limit < 0 {
			rooms.mu.Unlock()
			call.cgroups = cgroupsFree
			return room{}, nil
		}
		call.cgroups = cgroupsLimited
		need := f.needCounted(g, missing, bytes)
		full := overfull(groups, need, rooms.sum)
		if full != nil {
			var known bool
			need, known = f.needSearched(g, missing, bytes, need)
			if full = overfull(groups, need, rooms.sum); full != nil {
				full.guessed = !known
			}
		}
		if full == nil {
			rooms.sum.fresh += need.fresh
			rooms.sum.cached += need.cached
			rooms.mu.Unlock()
			return need, nil
		}
		if rooms.sum == (room{}) {
			rooms.mu.Unlock()
			return room{}, f.lockError(call, g, missing[0].Lo, missing[len(missing)-1].Hi, full)
		}
		// What others have kept may turn out to be more than they need.
		if rooms.less == nil {
			rooms.less = make(chan struct{})
		}
		less := rooms.less
		rooms.mu.Unlock()
		select {
		case <-less:
		case <-ctx.Done():
			return room{}, f.fail(call.op, context.Cause(ctx))
		}
	}
}

// needCounted is what bringing some runs of so many bytes in takes, as far as one
// call for each run tells.
func (f *File) needCounted(g *generation, missing []lockset.Run, bytes int64) room {
	var cached int64
	if f.src.file != nil {
		for _, run := range missing {
			if c, err := sys.Cached(f.src.file, f.src.off-int64(g.mem.delta)+run.Lo, run.Hi-run.Lo); err == nil {
				cached += c.Resident * int64(sys.PageSize())
			}
		}
	}
	return f.needOf(bytes, cached)
}

// needOf is the need of so many bytes of which some are cached.
func (f *File) needOf(bytes, cached int64) room {
	cached = min(cached, bytes)
	need := room{bytes - cached, cached}
	if f.src.file != nil && f.src.readsOf() == sys.ReadsMemory {
		need.cached = 0 // it cannot be dropped, so that it is no part of any room
	}
	return need
}

// needSearched takes off what so many bytes need what only a look at each page finds to
// be there, which takes a while. known is false if the kernel does not tell.
func (f *File) needSearched(g *generation, missing []lockset.Run, bytes int64, need room) (_ room, known bool) {
	known = true
	if need.fresh == bytes && !f.anonymous() {
		// There may be no cachestat(2), or none that sees this file, or no
		// descriptor to ask by.
		var cached int64
		for _, run := range missing {
			var s survey
			if err := f.survey(&s, g, run.Lo, run.Hi); err != nil || s.counts.Resident == sys.Unknown {
				known = false
				continue
			}
			cached += s.counts.Resident * int64(sys.PageSize())
		}
		need = f.needOf(bytes, cached)
	}
	need.cached -= min(need.cached, f.lockedAlready(g, missing))
	if f.src.mode != ReadOnly {
		// Pages of its own that the mapping has already are no new ones.
		need.fresh = min(need.fresh, g.mem.absentBytes(missing))
	}
	return need, known
}

// lockedAlready counts what of some runs is in the page cache and locked there, by this
// File on fault or by others of the process: it is no part of any room.
func (f *File) lockedAlready(g *generation, missing []lockset.Run) int64 {
	m, kept := g.mem, lockset.New(int64(sys.PageSize()))
	for _, run := range missing {
		if run.Level == lockset.OnFault && f.src.info != nil && f.src.mode != CopyOnWrite {
			m.space.Present(m.base+int(run.Lo), int(run.Hi-run.Lo), func(lo, hi int) { //nolint:errcheck // then it is not known
				kept.Hold(int64(lo-m.base), int64(hi-m.base), lockset.Now)
			})
		}
	}
	for _, s := range siblingsOf(f.src.info) {
		if s == f || s.src.mode == CopyOnWrite {
			continue // of copies, which are not in the page cache, nothing is known
		}
		l := &s.locks
		l.mu.Lock()
		skew := s.src.off - int64(s.cur.Load().mem.delta) - f.src.off + int64(m.delta)
		for _, run := range missing {
			for _, held := range l.set.Held(nil, run.Lo-skew, run.Hi-skew) {
				if held.Level == lockset.Now {
					kept.Hold(max(held.Lo+skew, run.Lo), min(held.Hi+skew, run.Hi), lockset.Now)
				}
			}
		}
		l.mu.Unlock()
	}
	return kept.HeldBytes()
}

// allInCgroups refuses in advance what does not fit as a whole. Windows that
// came in before one was refused would leave memory with no file behind it
// where it is, and with it no room for the program itself.
func (f *File) allInCgroups(ctx context.Context, call *lockCall, lo, hi int64) error {
	if call.level != lockset.Now || hi-lo < unaskedBytes {
		return nil
	}
	l := &f.locks
	l.mu.Lock()
	g := f.cur.Load()
	if g == closedGeneration || hi > int64(g.mem.delta+len(g.data)) {
		l.mu.Unlock()
		return nil // the first window finds it
	}
	pass, ok := g.mem.calls.Enter()
	if !ok {
		l.mu.Unlock()
		return nil // a shrink is under way: the windows look by themselves
	}
	missing := l.set.Missing(nil, lo, hi, call.level)
	l.mu.Unlock()
	defer pass.Leave()
	room, err := f.roomInCgroups(ctx, call, g, missing)
	room.release()
	runtime.KeepAlive(g)
	return err
}

// overfull finds the cgroup that has least room for what is needed beside
// others, if any has too little. Bytes that are cached already may be charged
// to any cgroup. Where they are, they are a part of its room, and no longer
// once they are locked.
func overfull(groups []limits.Cgroup, need, others room) (full *cgroupError) {
	ps := int64(sys.PageSize())
	for _, c := range groups {
		droppable := c.InactiveFile + c.ActiveFile
		need := limits.Need((need.fresh+others.fresh)/ps, int(ps)) + min(need.cached+others.cached, droppable)
		if lack := need - c.Room(); lack > 0 && (full == nil || lack > full.need-full.group.Room()) {
			full = &cgroupError{group: c, need: need}
		}
	}
	return full
}

// absentBytes counts what is not in memory of some runs.
func (e *extent) absentBytes(runs []lockset.Run) (n int64) {
	for _, run := range runs {
		at, end := e.base+int(run.Lo), e.base+int(run.Hi)
		if there, err := e.space.CountPresent(at, end-at); err == nil {
			n += int64(end - at - there)
			continue
		}
		for ; at < end; at += sys.PageSize() {
			bad, err := e.space.Absent(at, end-at)
			if err != nil {
				n += int64(end - at)
			}
			if err != nil || bad < 0 {
				break
			}
			at = bad
			n += int64(sys.PageSize())
		}
	}
	return n
}
