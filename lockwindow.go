package mmapio

import (
	"context"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mmapio/mmapio/internal/limits"
	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

// lockWindow bounds one step of locking. The kernel holds the lock of the
// whole address space while it marks pages as locked.
const lockWindow = 16 << 20

// lockWindows locks a range window by window.
//
// Each window is pinned until the whole range is done. So what the call has
// locked so far is its own: if it fails, to drop the pins is to undo exactly
// that, whatever others have locked or unlocked meanwhile, and if it succeeds,
// the bytes become locked in one step.
//
// done makes the change in the books that the call is for, once all is held.
func (f *File) lockWindows(ctx context.Context, call *lockCall, done func(lo, hi int64)) error {
	delta := f.src.off % int64(sys.PageSize())
	lo, hi := call.off+delta, call.off+call.n+delta
	for {
		if again, err := f.lockOnce(ctx, call, lo, hi, done); !again {
			return err
		}
	}
}

// lockOnce is one try of lockWindows. It asks for another if the File was made
// smaller and larger again meanwhile.
func (f *File) lockOnce(ctx context.Context, call *lockCall, lo, hi int64, done func(lo, hi int64)) (again bool, err error) {
	l := &f.locks
	var pins []lockset.Pin
	err = f.tooMuch(call, lo, hi)
	for at := lo; at < hi && err == nil; {
		end := min(hi, page.Down(at, lockWindow)+lockWindow)
		if err = ctx.Err(); err == nil {
			var pin lockset.Pin
			pin, err = f.claim(call, at, end)
			pins = append(pins, pin)
		} else {
			err = f.fail(call.op, context.Cause(ctx))
		}
		at = end
		if err == nil && call.progress != nil {
			call.progress(end-lo, call.n)
		}
	}

	l.mu.Lock()
	g := f.cur.Load()
	if g == closedGeneration {
		l.mu.Unlock()
		return false, f.fail(call.op, fs.ErrClosed) // what was held went with the mapping
	}
	if err == nil {
		err = f.within(call.op, g, call.off, call.n)
	}
	// A shrink and a regrowth have cut off what was locked already.
	cut := err == nil && !l.set.Covered(lo, hi, call.level)
	if err == nil && !cut {
		done(lo, hi)
	}
	for _, pin := range pins {
		l.set.Unpin(pin)
	}
	if err != nil || cut {
		f.letGo(g, lo, hi)
	}
	l.mu.Unlock()
	return cut, err
}

// A lockCall is what the caller asked for, for errors.
type lockCall struct {
	op     string
	off, n int64
	level  lockset.Level

	progress func(done, total int64)

	cgroups int   // whether they have to be looked at
	unasked int64 // bytes brought in since they were
}

// settleTries is how often a window whose pages leave RAM again before they
// are locked is brought in anew.
const settleTries = 10

// claim pins a window and makes the kernel hold it.
func (f *File) claim(call *lockCall, lo, hi int64) (pin lockset.Pin, err error) {
	l := &f.locks
	for {
		l.mu.Lock()
		g := f.cur.Load()
		if g == closedGeneration {
			l.mu.Unlock()
			return pin, f.fail(call.op, fs.ErrClosed)
		}
		if hi > int64(g.mem.delta+len(g.data)) {
			l.mu.Unlock()
			return pin, f.within(call.op, g, call.off, call.n)
		}
		if pin == (lockset.Pin{}) {
			pin = l.set.Pin(lo, hi, call.level)
		}
		missing := l.set.Missing(nil, lo, hi, call.level)
		pass, ok := g.mem.calls.Enter()
		l.mu.Unlock()
		if !ok {
			if _, err := f.current(call.op); err != nil { // waits for the Resize
				return pin, err
			}
			continue
		}
		held := false
		if len(missing) > 0 {
			held, err = f.hold(call, g, lo, hi, missing)
		}
		pass.Leave()
		runtime.KeepAlive(g)
		if err != nil || len(missing) == 0 || held {
			return pin, err
		}
		// The mapping has moved meanwhile.
	}
}

// hold brings the pages of some runs in, locks them and looks whether they
// stayed. It is done when held; else something changed meanwhile.
func (f *File) hold(call *lockCall, g *generation, lo, hi int64, missing []lockset.Run) (held bool, err error) {
	l := &f.locks
	m := g.mem
	if call.level == lockset.Now {
		if err := f.roomInCgroups(call, g, missing); err != nil {
			return false, err
		}
		for _, run := range missing {
			if err := f.populate(g, run.Lo, run.Hi); err != nil {
				return false, f.lockError(call, g, run.Lo, run.Hi, err)
			}
		}
	}

	l.mu.Lock()
	if f.cur.Load().mem != m {
		l.mu.Unlock()
		return false, nil
	}
	missing = l.set.Missing(missing[:0], lo, hi, call.level)
	err = f.kernelLock(call, g, missing)
	l.mu.Unlock()
	if err != nil || call.level != lockset.Now || !sys.LocksOnFault() {
		return true, err
	}

	// A page may have left between the two calls. It is locked on fault by
	// now, so to bring it in again is enough.
	for _, run := range missing {
		at, end := int(run.Lo), int(run.Hi)
		for try := 0; ; try++ {
			bad, err := m.space.Absent(m.base+at, end-at)
			if err != nil || bad < 0 {
				break // in, or the kernel does not tell
			}
			at = bad - m.base
			if try == settleTries {
				return false, f.lockError(call, g, int64(at), int64(end), errUnsettled)
			}
			if err := f.populate(g, int64(at), int64(end)); err != nil {
				return false, f.lockError(call, g, int64(at), int64(end), err)
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.cur.Load().mem != m {
		return false, nil
	}
	for _, run := range l.set.Missing(nil, lo, hi, lockset.Now) {
		if run.Level == lockset.OnFault {
			l.set.Hold(run.Lo, run.Hi, lockset.Now)
		}
	}
	return true, nil
}

// kernelLock locks runs, all or none. The caller holds locks.mu.
func (f *File) kernelLock(call *lockCall, g *generation, missing []lockset.Run) error {
	l := &f.locks
	m := g.mem
	var mends []func()
	for i, run := range missing {
		if run.Level != lockset.None {
			continue // locked on fault: it has the kernel's flag
		}
		mends = append(mends, f.edges(g, run))
		err := l.mapRoom(l.set.RunsIfHeld(run.Lo, run.Hi) - l.set.HeldRuns())
		if err == nil {
			err = m.space.Lock(m.base+int(run.Lo), int(run.Hi-run.Lo))
		}
		if err == nil {
			continue
		}
		// The kernel may have locked a part of what it refused.
		for _, run := range missing[:i+1] {
			if run.Level == lockset.None && f.kernelUnlock(g, run) != nil {
				l.set.Hold(run.Lo, run.Hi, lockset.OnFault) // as in letGo
			}
		}
		return f.lockErrorHeld(call, g, run.Lo, run.Hi, err, f.toLock(call))
	}
	// What has to be in RAM as well is looked for later.
	level := call.level
	if sys.LocksOnFault() {
		level = lockset.OnFault
	}
	for _, run := range missing {
		l.set.Hold(run.Lo, run.Hi, max(level, run.Level))
	}
	f.recount(g)
	for _, mend := range mends {
		mend()
	}
	return nil
}

// populate brings pages in by a system call. Offsets are the set's.
func (f *File) populate(g *generation, lo, hi int64) error {
	if sys.CanPopulate() {
		// Memory with no file behind it must be stored to, or the page of
		// zeroes would be there instead. A private page of a file must not, or
		// it would be copied.
		return g.mem.space.Populate(g.mem.base+int(lo), int(hi-lo), f.anonymous())
	}
	return f.readThrough(lo-int64(g.mem.delta), hi-int64(g.mem.delta), int64(len(g.data)))
}

// maxMaps remembers vm.max_map_count for a second: to read it takes longer than
// to lock a page.
var maxMaps maxMapCount

type maxMapCount struct {
	mu    sync.Mutex
	at    time.Time
	value int64
	err   error
}

func (m *maxMapCount) get() (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now(); now.Sub(m.at) > time.Second || m.at.IsZero() {
		m.value, m.err = limits.MaxMapCount()
		m.at = now
	}
	return m.value, m.err
}

// splits is how many mappings the locks of all Files have cost.
var splits atomic.Int64

// recount brings splits up to date after a change of the held pages. The
// kernel cuts a mapping wherever locked and unlocked pages meet; a run that
// reaches an end of the File costs one cut less.
func (f *File) recount(g *generation) {
	extra := f.locks.cost(g, f.locks.set.HeldRuns())
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
