package mmapio

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/mmapio/mmapio/internal/limits"
	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

// Reasons of a LockError that have no errno of their own.
var (
	errNotLocked  = errors.New("the kernel does not hold the page as locked")
	errNotPresent = errors.New("the page is locked but not in RAM")
	errUnsettled  = errors.New("pages leave RAM as fast as they are brought in")
)

// A mapCountError says that locks would take too many mappings.
type mapCountError struct{ need, limit int64 }

func (e *mapCountError) Error() string {
	return fmt.Sprintf("locks would need %d mappings of %d", e.need, e.limit)
}

// A cgroupError says that pages would not fit into a cgroup.
type cgroupError struct {
	group   limits.Cgroup
	need    int64
	guessed bool // what is in memory already could not be counted
}

func (e *cgroupError) Error() string { return "no room in memory cgroup " + e.group.Path }

// lockError finds out why the run [lo, hi) of a call could not be locked.
// Offsets are the set's.
func (f *File) lockError(call *lockCall, g *generation, lo, hi int64, err error) error {
	f.locks.mu.Lock()
	s := f.standing(call, f.toLock(call))
	f.locks.mu.Unlock()
	return f.explain(call, g, lo, hi, err, s)
}

// lockErrorHeld is lockError for a caller that holds locks.mu, with an error that
// no file has to be read for. need is how much the call still has to lock.
func (f *File) lockErrorHeld(call *lockCall, g *generation, lo, hi int64, err error, need int64) error {
	return f.explain(call, g, lo, hi, err, f.standing(call, need))
}

// A standing is how a call stands to the limits at one moment: other windows of it
// may be under way.
type standing struct {
	need   int64 // bytes, with what the call has locked itself: that is about to be let go
	limits LockLimits
}

// standing is for a caller that holds locks.mu.
func (f *File) standing(call *lockCall, need int64) standing {
	s := standing{need: need + call.locked}
	s.limits, _ = ReadLockLimits() //nolint:errcheck // zeroes where there are none
	s.limits.InUse = max(s.limits.InUse-call.locked, min(s.limits.InUse, 0))
	return s
}

// explain makes the error of a call.
func (f *File) explain(call *lockCall, g *generation, lo, hi int64, err error, s standing) error {
	if errors.Is(err, errors.ErrUnsupported) {
		return f.fail(call.op, errors.ErrUnsupported)
	}
	e := &LockError{Op: call.op, Path: f.src.name, Off: call.off, Len: call.n, Err: err, Limits: s.limits}
	var (
		maps    *mapCountError
		group   *cgroupError
		machine *machineError
	)
	switch {
	case errors.As(err, &maps):
		e.Err = sys.ErrNoMemory
		e.mapCount(maps.need, maps.limit)
	case errors.As(err, &group):
		e.Err = sys.ErrNoMemory
		e.cgroup(group)
	case errors.As(err, &machine):
		e.Err = sys.ErrNoMemory
		e.machine(machine.need, machine.has, "; the kernel would kill processes to make room")
	case errors.Is(err, sys.ErrUnreadable), errors.Is(err, sys.ErrPoisoned):
		f.unreadable(e, g, lo, hi)
	case errors.Is(err, errUnsettled):
		e.Cause, e.fact = CauseMemory, err.Error()
	case errors.Is(err, sys.ErrNoMemory), errors.Is(err, sys.ErrAgain), errors.Is(err, fs.ErrPermission):
		f.refused(e, s.need, hi-lo)
	default:
		e.fact = underlying(err).Error()
	}
	return e
}

// refused explains the errnos that a refusal of the kernel comes with. step is
// the size of the run that was refused, which may be locked already: then it was
// not the limit that refused it.
func (f *File) refused(e *LockError, need, step int64) {
	lim := e.Limits
	inUse := max(lim.InUse, 0) // where it is not known, what the call needs by itself is certain
	limited := !lim.Unlimited && lim.Soft >= 0
	denied := errors.Is(e.Err, fs.ErrPermission)
	switch {
	case limited && lim.Soft == 0:
		e.Cause = CausePermission
		e.fact = fmt.Sprintf("needs %s, and this process may lock nothing: RLIMIT_MEMLOCK is 0 (soft 0, hard %s)",
			size(need), bound(lim.Hard))
		e.remedy = raise(lim, need) + sys.LockHint
		return
	case denied: // no limit but one of 0 is refused like this
		e.Cause = CausePermission
		e.fact = fmt.Sprintf("needs %s: %v%s", size(need), e.Err, sys.LockHint)
		return
	case limited && need > lim.Soft-inUse:
		e.Cause = CauseLimit
		e.fact = fmt.Sprintf("needs %s, ", size(need))
		if lim.InUse >= 0 {
			e.fact += size(lim.InUse) + " locked so far, "
		}
		e.fact += fmt.Sprintf("RLIMIT_MEMLOCK is %s (soft %d, hard %s)", size(lim.Soft), lim.Soft, bound(lim.Hard))
		e.remedy = raise(lim, inUse+need) + sys.LockHint
		return
	}
	if inUse, limit, err := limits.MapCount(); err == nil && inUse > limit-8 {
		e.Cause = CauseMapCount
		e.fact = fmt.Sprintf("needs %s, and the process has %d of the %d mappings that vm.max_map_count allows",
			size(need), min(inUse, limit), limit)
		e.remedy = fmt.Sprintf("map less, or raise it: sysctl vm.max_map_count=%d", 2*limit)
		return
	}
	if m, err := limits.ReadMemory(); err == nil && step > m.Available {
		e.machine(need, m, "")
		return
	}
	e.fact = fmt.Sprintf("needs %s%s: %v%s", size(need), f.src.fewHuge(), e.Err, sys.LockHint)
}

func (e *LockError) mapCount(need, limit int64) {
	e.Cause = CauseMapCount
	e.fact = fmt.Sprintf("locks in separate places need a mapping each: %d would be in use for them, "+
		"half of vm.max_map_count (%d) is allowed", need, limit)
	e.remedy = fmt.Sprintf("lock larger ranges, or raise it: sysctl vm.max_map_count=%d", max(2*limit, 2*need))
}

func (e *LockError) cgroup(c *cgroupError) {
	e.Cause = CauseCgroup
	what, risk := "of memory", "would"
	if c.guessed {
		what, risk = "of memory unless some is there already, which the kernel does not tell", "might"
	}
	e.fact = fmt.Sprintf("needs %s %s, and cgroup %s has room for %s (limit %d, in use %d, of that %d droppable); "+
		"the kernel %s kill the process", size(c.need), what, c.group.Path, size(c.group.Room()),
		c.group.Limit, c.group.Usage, c.group.InactiveFile+c.group.ActiveFile, risk)
	e.remedy = "raise the limit of that cgroup (systemd MemoryMax=, docker --memory, memory.max), or lock less"
}

func (e *LockError) machine(need int64, has limits.Memory, otherwise string) {
	e.Cause = CauseMemory
	e.fact = fmt.Sprintf("needs %s, and there is room for %s in memory and swap (MemAvailable %d, SwapFree %d)%s",
		size(need), size(has.Room()), has.Available, has.SwapFree, otherwise)
	e.remedy = "lock less, or free memory"
}

// unreadable finds why a page could not be brought in.
func (f *File) unreadable(e *LockError, g *generation, lo, hi int64) {
	off := max(g.mem.firstAbsent(lo, hi)-int64(g.mem.delta), 0)
	why := f.src.why(off, false)
	length, known := f.src.size()
	switch {
	case known && f.src.off+off >= length:
		e.Cause = CauseBeyondEOF
		e.fact = fmt.Sprintf("the file is now %d bytes long, and mapped up to %d", length, f.src.off+int64(len(g.data)))
		e.remedy = f.cutRemedy(length)
	case errors.Is(why, errEOF):
		e.Cause = CauseBeyondEOF
		e.fact = fmt.Sprintf("the file ended before offset %d a moment ago", off)
		e.remedy = "try again"
	case errors.Is(why, sys.ErrNoSpace):
		e.Cause, e.Err = CauseMemory, why
		e.fact = fmt.Sprintf("there is no space for the page at offset %d: %v", off, why)
		e.remedy = "make room on the file system"
	case errors.Is(e.Err, sys.ErrPoisoned) && unexplained(why):
		e.fact = fmt.Sprintf("the page at offset %d cannot be brought in: %v: %v", off, errBroken, underlying(e.Err))
		e.remedy = "open the file again for other memory"
	case errors.Is(why, errNoReason):
		// A read that failed once, or a file that was shorter for a moment.
		// Or a mapping that stays with what overlayfs has made a copy of.
		e.fact = fmt.Sprintf("the page at offset %d could not be brought in: %v; by now the file can be read there", off, underlying(e.Err))
		e.remedy = "try again, or open the file again"
	case errors.Is(why, errUnknownFault):
		e.fact = fmt.Sprintf("the page at offset %d cannot be brought in: %v; without a descriptor of the file the reason cannot be found",
			off, underlying(e.Err))
	default:
		e.Err = why
		e.fact = fmt.Sprintf("the page at offset %d cannot be read: %v", off, why)
	}
}

// cutRemedy is what to do about a file that others cut to a length.
func (f *File) cutRemedy(length int64) string {
	remedy := "open it again"
	if f.opts.Length == 0 && f.src.file != nil {
		remedy = "call Refresh"
	}
	if length > f.src.off {
		remedy += ", or lock what is left"
	}
	return remedy
}

// notHeld is the error for the page that starts at off, which may be before the
// first mapped byte.
func (f *File) notHeld(op string, g *generation, off int64, why error) error {
	first, end := max(off, 0), min(off+int64(sys.PageSize()), int64(len(g.data)))
	e := &LockError{Op: op, Path: f.src.name, Off: first, Len: end - first, Err: why, fact: why.Error(), remedy: "call Lock"}
	e.Limits, _ = ReadLockLimits() //nolint:errcheck // zeroes where there are none
	if length, known := f.src.size(); known && f.src.off+first >= length {
		e.Cause = CauseBeyondEOF
		e.fact += fmt.Sprintf(": the file is now %d bytes long", length)
		e.remedy = f.cutRemedy(length)
	}
	return e
}

// toLock returns how many bytes the call still has to lock. The caller holds
// locks.mu.
func (f *File) toLock(call *lockCall) int64 {
	l := &f.locks
	delta := f.src.off % int64(sys.PageSize())
	var sum int64
	for _, run := range l.set.Missing(nil, call.off+delta, call.off+call.n+delta, lockset.OnFault) {
		sum += run.Hi - run.Lo
	}
	return sum
}

// tooMuch asks in advance whether the whole call fits under the limit, so that
// nothing is read from the disk for a lock that cannot be had. The answer is
// the kernel's: it looks at the limit before it does anything.
func (f *File) tooMuch(call *lockCall, lo, hi int64) error {
	// For little it is cheaper to let the lock itself be refused.
	if !sys.LocksOnFault() || hi-lo <= unaskedBytes {
		return nil
	}
	soft, _, exempt, err := sys.MemlockLimits()
	if err != nil || exempt || soft < 0 {
		return nil //nolint:nilerr // then the lock itself will tell
	}
	lim, err := ReadLockLimits()
	f.locks.mu.Lock()
	need := f.toLock(call)
	f.locks.mu.Unlock()
	if err != nil || need == 0 || need <= soft-max(lim.InUse, 0) {
		return nil //nolint:nilerr // as above
	}
	l := &f.locks
	l.mu.Lock()
	g := f.cur.Load()
	lo, hi, _ = page.Outward(lo, hi, int64(sys.PageSize()))
	if g == closedGeneration || hi > g.mem.mapped.Load() {
		l.mu.Unlock()
		return nil
	}
	err = g.mem.space.Lock(g.mem.base+int(lo), int(hi-lo))
	// It fits after all: begin in order. Or it was refused half-way.
	for _, run := range l.set.Missing(nil, lo, hi, lockset.OnFault) {
		f.kernelUnlock(g, run) //nolint:errcheck // a part of one mapping
	}
	l.mu.Unlock()
	if err == nil {
		return nil
	}
	return f.lockError(call, g, lo, hi, err)
}

// size writes a number of bytes for people.
func size(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, units := float64(n)/1024, []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for len(units) > 1 && v >= 1024 {
		v, units = v/1024, units[1:]
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + " " + units[0]
}

func bound(n int64) string {
	if n < 0 {
		return "unlimited"
	}
	return strconv.FormatInt(n, 10)
}

// raise says how to get a limit of at least need bytes.
func raise(lim LockLimits, need int64) string {
	if lim.Hard < 0 || need <= lim.Hard {
		kib := lim.Hard
		if kib > 0 {
			kib /= 1024
		}
		return "the soft limit may be raised by the process itself: call RaiseLockLimit, or ulimit -l " + bound(kib)
	}
	mib := (need + 1<<20 - 1) >> 20
	for p := int64(1); ; p *= 2 {
		if p >= mib {
			mib = p
			break
		}
	}
	if text := sys.RaiseHard(mib); text != "" {
		return text
	}
	return fmt.Sprintf("raise it: systemd LimitMEMLOCK=%dM, docker --ulimit memlock=%d, limits.conf, or grant CAP_IPC_LOCK",
		mib, mib<<20)
}
