package mmapio

import (
	"context"
	"io/fs"
	"runtime"

	"github.com/mmapio/mmapio/internal/gate"
	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/pace"
	"github.com/mmapio/mmapio/internal/sys"
)

// A lockCall is what the caller asked for, and how far it is.
type lockCall struct {
	op     string
	off, n int64
	level  lockset.Level

	progress func(done, total int64)

	pins    []lockset.Pin // of the windows begun, and of what they reach ahead to
	reached int64         // up to where that is
	locked  int64         // bytes that the kernel locked for it; guarded by locks.mu
	cgroups int           // whether they have to be looked at
	unasked int64         // bytes brought in since they were
}

// lockWindow bounds one step of handing locks over.
const lockWindow = 16 << 20

// lockWindows locks a range window by window, see [windows].
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
	call.pins, call.reached, call.locked = call.pins[:0], lo, 0
	defer func() { again, err = f.lockEnd(call, lo, hi, err, done) }()
	if err = f.tooMuch(call, lo, hi); err == nil {
		err = f.allInCgroups(ctx, call, lo, hi)
	}
	if err != nil {
		return false, err
	}
	r := f.windowsOf(ctx, call.op, lo, hi)
	r.begin = func(w *window) error { return f.lockBegin(call, w) }
	r.work = func(w *window) error { return f.lockWork(call, w) }
	if call.progress != nil {
		r.done = func(bytes int64) { call.progress(bytes, call.n) }
	}
	err = errStopped // if progress panics
	err = r.run()
	return false, err
}

// lockEnd puts into the books what has become of a call.
func (f *File) lockEnd(call *lockCall, lo, hi int64, err error, done func(lo, hi int64)) (again bool, _ error) {
	l := &f.locks
	l.mu.Lock()
	defer l.mu.Unlock()
	g := f.cur.Load()
	if g == closedGeneration {
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
	for _, pin := range call.pins {
		l.set.Unpin(pin)
	}
	if err != nil || cut {
		f.letGo(g, lo, hi)
	}
	return cut, err
}

// A claim is the right to work on a window in one generation.
type claim struct {
	g        *generation
	pass     gate.Pass
	missing  []lockset.Run
	apart    int // the locker's, before anything came in
	reserved room
}

func (c *claim) leave() {
	c.pass.Leave()
	runtime.KeepAlive(c.g)
	c.reserved.release()
}

// lockBegin pins a window and, where that brings nothing in, locks it. So what
// comes in later is locked as it comes, as with mlock(2), which takes less than
// to mark it afterwards. (mlock(2) itself is not used: on a page that cannot be
// read it spins in the kernel for ever.)
func (f *File) lockBegin(call *lockCall, w *window) error {
	if call.pins == nil {
		call.pins = make([]lockset.Pin, 0, min(w.run.hi-w.lo, 4<<30)/pace.Large+8)
	}
	if err := f.lockClaim(call, w); err != nil {
		return err
	}
	if call.level != lockset.Now || len(w.claim.missing) == 0 {
		return nil
	}
	reserved, err := f.roomInCgroups(w.run.ctx, call, w.claim.g, w.claim.missing)
	if err != nil {
		w.claim.leave()
		return err
	}
	w.claim.reserved = reserved
	return nil
}

// lockClaim enters the generation of now, and pins the window unless that is done.
func (f *File) lockClaim(call *lockCall, w *window) error {
	l := &f.locks
	for {
		l.mu.Lock()
		g := f.cur.Load()
		if g == closedGeneration {
			l.mu.Unlock()
			return f.fail(call.op, fs.ErrClosed)
		}
		if w.hi > int64(g.mem.delta+len(g.data)) {
			l.mu.Unlock()
			return f.within(call.op, g, call.off, call.n)
		}
		pass, ok := g.mem.calls.Enter()
		if !ok {
			l.mu.Unlock()
			if _, err := f.current(call.op); err != nil { // waits for the Resize
				return err
			}
			continue
		}
		hi := w.hi
		if !w.pinned {
			w.pinned = true
			call.pins = append(call.pins, l.set.Pin(w.lo, hi, call.level))
		}
		if hi > call.reached {
			// On fault: what is there before its window is not promised to anybody.
			if hi = f.emptyUpTo(g, hi, w.run.hi); hi > w.hi {
				call.pins = append(call.pins, l.set.Pin(w.hi, hi, lockset.OnFault))
			}
			call.reached = hi
		}
		missing := l.set.Missing(w.claim.missing[:0], w.lo, hi, call.level)
		var err error
		if sys.LocksOnFault() {
			err = f.lockRuns(call, g, missing)
			if hi > w.hi {
				missing = l.set.Missing(missing[:0], w.lo, w.hi, call.level)
			}
		}
		apart := l.apart
		l.mu.Unlock()
		if err != nil {
			pass.Leave()
			return err
		}
		w.claim = claim{g: g, pass: pass, missing: missing, apart: apart}
		return nil
	}
}

// reachFrom is from how much on it is worth a look whether windows to come can be
// locked with this one. A variable for tests.
var reachFrom int64 = pace.Large

// reachMost is how far that look goes. Where pages have left, the kernel looks
// through page tables with nothing in them: 0.7 ms for so much.
const reachMost = 1 << 30

// emptyUpTo returns how far a lock may reach that is to reach to hi at least and to
// end at most. Windows keep a lock from holding up the rest of the process, but to
// lock where nothing is mapped in takes next to no time.
func (f *File) emptyUpTo(g *generation, hi, end int64) int64 {
	end = min(end, hi+reachMost, int64(g.mem.delta+len(g.data)))
	if !sys.LocksOnFault() || end-hi < reachFrom {
		return hi
	}
	m := g.mem
	at, err := m.space.FirstPresent(m.base+int(hi), int(end-hi))
	switch {
	case err != nil:
		return hi
	case at < 0:
		return end
	}
	if end = f.edge(hi, int64(at-m.base)-hi); end-hi < reachFrom {
		return hi
	}
	return end
}

// claim pins a range and makes the kernel hold it, in one window. There may be a pin
// after an error, too.
func (f *File) claim(call *lockCall, lo, hi int64) (pin lockset.Pin, err error) {
	w := &window{lo: lo, hi: hi, run: f.windowsOf(context.Background(), call.op, lo, hi)}
	if err = f.lockBegin(call, w); err == nil {
		err = f.lockWork(call, w)
	}
	if len(call.pins) > 0 {
		pin = call.pins[0]
	}
	return pin, err
}

// settleTries is how often a window whose pages leave RAM again is brought in
// anew.
const settleTries = 10

// lockWork makes the kernel hold a window that was begun.
func (f *File) lockWork(call *lockCall, w *window) error {
	for {
		held, err := f.hold(call, w)
		if held || err != nil {
			return err
		}
		// All anew: the mapping has changed meanwhile.
		if err := f.lockClaim(call, w); err != nil {
			return err
		}
	}
}

// hold brings in what is missing in a window, and leaves its claim. It is done
// when held; else the mapping has moved, or what was brought in has left it.
//
// Where locks are on fault, the call that brings pages in is also the proof that
// they are held: it does not succeed before all are mapped, and what is mapped
// where the lock is already does not leave.
func (f *File) hold(call *lockCall, w *window) (held bool, err error) {
	defer w.claim.leave()
	l := &f.locks
	g, m, missing := w.claim.g, w.claim.g.mem, w.claim.missing
	onFault := sys.LocksOnFault()
	if call.level == lockset.Now && len(missing) > 0 {
		if run, err := w.populate(g, missing); err != nil {
			if !w.halted && f.cur.Load().mem != m {
				return false, nil // a shrink does not wait for who is in an older mapping
			}
			return false, w.lockError(call, g, run, err)
		}
	}
	if err := failpoint("hold"); err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.cur.Load().mem != m {
		return false, nil
	}
	missing = l.set.Missing(missing[:0], w.lo, w.hi, call.level)
	if !onFault {
		return true, f.lockRuns(call, g, missing)
	}
	if l.apart != w.claim.apart && g.mem.absentBytes(missing) > 0 {
		return false, nil
	}
	for _, run := range missing {
		if run.Level == lockset.OnFault {
			l.set.Hold(run.Lo, run.Hi, lockset.Now)
		}
	}
	return true, nil
}

// lockError is the error of a window whose run could not be brought in.
func (w *window) lockError(call *lockCall, g *generation, run lockset.Run, err error) error {
	if w.halted {
		return err
	}
	return w.run.f.lockError(call, g, run.Lo, run.Hi, err)
}

// lockRuns locks runs, all or none, and has them held. The caller holds locks.mu.
func (f *File) lockRuns(call *lockCall, g *generation, missing []lockset.Run) error {
	err := f.kernelLock(call, g, missing)
	if err == nil {
		// What has to be in RAM as well is looked for later.
		level := call.level
		if sys.LocksOnFault() {
			level = lockset.OnFault
		}
		f.holdRuns(call, g, missing, level)
	}
	return err
}

// kernelLock locks runs, all or none. The caller holds locks.mu, and has what is
// locked held.
func (f *File) kernelLock(call *lockCall, g *generation, missing []lockset.Run) error {
	l := &f.locks
	m := g.mem
	if len(missing) > 0 && call.level == lockset.Now && f.anonymous() && !m.touched.Swap(true) {
		// The mappings that a lock cuts memory of its own into become one again
		// only if they have been stored to while they were one.
		f.populate(g, missing[0].Lo, missing[0].Lo+1) //nolint:errcheck // if it fails it will again
	}
	for i, run := range missing {
		if run.Level != lockset.None {
			continue // locked on fault: it has the kernel's flag
		}
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
				l.set.Hold(run.Lo, run.Hi, lockset.OnFault)
				l.stuck = true // as in letGo
				f.amend(g, run.Lo, run.Hi)
			}
		}
		return f.lockErrorHeld(call, g, run.Lo, run.Hi, err, f.toLock(call))
	}
	return nil
}

// holdRuns puts into the books what kernelLock has locked.
func (f *File) holdRuns(call *lockCall, g *generation, missing []lockset.Run, level lockset.Level) {
	f.hasLocked()
	for _, run := range missing {
		if run.Level == lockset.None {
			call.locked += run.Hi - run.Lo
		}
		f.locks.set.Hold(run.Lo, run.Hi, max(level, run.Level))
	}
	f.recount(g)
}
