package mmapio

import (
	"context"
	"time"

	"github.com/mmapio/mmapio/internal/limits"
	"github.com/mmapio/mmapio/internal/pace"
	"github.com/mmapio/mmapio/internal/sys"
)

// RefusedStep is why a step was refused of a lock that still needs so much.
func RefusedStep(need, step int64, lim LockLimits) LockCause {
	e := &LockError{Limits: lim, Err: sys.ErrNoMemory}
	(&File{src: &source{}}).refused(e, need, step)
	return e.Cause
}

// What stands in a LockError when the kernel refuses to lock the whole of f
// under limits that are made up.
func RefusedWith(f *File, lim LockLimits) *LockError {
	e := &LockError{Op: "lock", Path: f.Name(), Len: f.Size(), Limits: lim, Err: sys.ErrNoMemory}
	f.refused(e, f.Size(), f.Size())
	return e
}

// The same for too many mappings, and for a cgroup without room.
func RefusedMapCount(need, limit int64) *LockError {
	e := &LockError{Op: "lock", Path: "f", Off: 8192, Len: 1}
	e.mapCount(need, limit)
	return e
}

func RefusedCgroup(need int64, path string, limit, usage, inactive, active int64) *LockError {
	e := &LockError{Op: "lockall", Path: "f", Len: 1 << 30}
	group := limits.Cgroup{Path: path, Limit: limit, Usage: usage, InactiveFile: inactive, ActiveFile: active}
	e.cgroup(&cgroupError{group: group, need: need})
	return e
}

// SideBySide has long calls bring 1<<step windows in at a time until restore.
func SideBySide(step int) (restore func()) {
	newPace = func(func() int64, bool) *pace.Pace { return pace.Fixed(step) }
	return func() { newPace = pace.New }
}

// LockAheadFrom has locks reach ahead of their windows where so much is not mapped in.
func LockAheadFrom(n int64) (restore func()) {
	was := reachFrom
	reachFrom = n
	return func() { reachFrom = was }
}

// EmptyUpTo is how far a lock of f reaches that is to reach to hi, or to end.
func EmptyUpTo(f *File, hi, end int64) int64 { return f.emptyUpTo(f.cur.Load(), hi, end) }

// CachedFrom asks of [0, hi), n bytes at a time, whether what follows on each of some
// offsets is cached, and returns up to where.
func CachedFrom(f *File, hi, n int64, at ...int64) (upTo []int64) {
	defer func(was int64) { cachedStep = was }(cachedStep)
	cachedStep = n
	r := f.windowsOf(context.Background(), "test", 0, hi)
	for _, lo := range at {
		if ok := r.cachedFrom(lo); ok != (r.cached >= 0) {
			panic("cachedFrom contradicts itself")
		}
		upTo = append(upTo, r.cached)
	}
	return upTo
}

// AdvisedRandom notes that a part of f was advised to be read at random.
func AdvisedRandom(f *File) { f.src.random.Store(true) }

// IsRandom reports whether f remembers that.
func IsRandom(f *File) bool { return f.src.random.Load() }

// The same of need bytes, with the hint that another system gives.
func RefusedWithHint(hint string, need int64, lim LockLimits, err error) *LockError {
	return RefusedWithHints(hint, "", need, lim, err)
}

// With both of the hints that another system gives.
func RefusedWithHints(hint, raised string, need int64, lim LockLimits, err error) *LockError {
	defer func(was, raised string) { sys.LockHint, sys.RaiseHint = was, raised }(sys.LockHint, sys.RaiseHint)
	sys.LockHint, sys.RaiseHint = hint, raised
	e := &LockError{Op: "lock", Path: "f", Len: need, Limits: lim, Err: err}
	(&File{src: &source{name: "f"}}).refused(e, need, need)
	return e
}

// SpaceOf returns the addresses that f has for its mapping.
func SpaceOf(f *File) (lo, hi uintptr) {
	m := f.cur.Load().mem
	return m.area.Lo, m.area.Hi
}

// SlowUntil is the offset up to which a loop takes a device for slow when steps
// of n bytes took so long.
func SlowUntil(n int64, took ...time.Duration) int64 {
	var w waits
	for i, d := range took {
		w.judge(int64(i)*n, n, d)
	}
	return w.slow
}

// Siblings is of how many disk files locks are known.
func Siblings() int {
	siblings.mu.Lock()
	defer siblings.mu.Unlock()
	return len(siblings.of)
}

// Splits is how many mappings the locks and the advice of all Files cost.
func Splits() int64 { return splits.Load() }

// Lack is what is lacking to bring so many bytes in.
func Lack(fresh, cached int64, m limits.Memory) int64 { return room{fresh, cached}.lack(m) }

// EnterOnly is inside of f's memory, as one who came too late for it, without
// keeping that alive, until it is told to leave.
func EnterOnly(f *File) (leave func()) {
	pass, ok := f.cur.Load().mem.holders.Enter()
	if !ok {
		panic("shut")
	}
	return pass.Leave
}

// Reserve keeps room in the cgroups, as a call does that is bringing pages in, until
// release.
func Reserve(fresh, cached int64) (release func()) {
	r := room{fresh, cached}
	rooms.mu.Lock()
	defer rooms.mu.Unlock()
	rooms.sum.fresh += fresh
	rooms.sum.cached += cached
	return r.release
}

// Reserved is how much room all calls keep.
func Reserved() (fresh, cached int64) {
	rooms.mu.Lock()
	defer rooms.mu.Unlock()
	return rooms.sum.fresh, rooms.sum.cached
}

// CgroupState is what the kernel says of a cgroup.
type CgroupState struct{ Limit, Usage, Inactive, Active int64 }

// Overfull is which of some cgroups has least room for what is needed beside others,
// bytes to come and bytes cached, or -1 if all have enough.
func Overfull(states []CgroupState, need, others [2]int64) int {
	var groups []limits.Cgroup
	for i, s := range states {
		groups = append(groups, limits.Cgroup{
			Path: string(rune('0' + i)), Limit: s.Limit, Usage: s.Usage, InactiveFile: s.Inactive, ActiveFile: s.Active,
		})
	}
	full := overfull(groups, room{need[0], need[1]}, room{others[0], others[1]})
	if full == nil {
		return -1
	}
	return int(full.group.Path[0] - '0')
}

// SpareMeanwhile has a mapping fail for want of addresses that are given back before that
// is seen, and tells how often it is tried.
func SpareMeanwhile() (tries int, err error) {
	var s idleSpace
	s.add(1)
	err = s.spare(func() error {
		if tries++; tries > 1 {
			return nil
		}
		s.freed.Add(1)
		s.sub(1)
		return sys.ErrNoMemory
	})
	return tries, err
}
