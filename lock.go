package mmapio

import (
	"context"
	"errors"
	"io/fs"
	"strconv"
	"sync/atomic"

	"github.com/mmapio/mmapio/internal/beside"
	"github.com/mmapio/mmapio/internal/limits"
	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/sys"
)

// Lock brings the pages that hold [off, off+n) into RAM and keeps them there
// until Unlock or Close. These are not file locks: nobody is kept out.
//
// Locking is not counted: once unlocked is unlocked, however often it was
// locked. It is kept to the byte, though the kernel locks pages: a page stays
// in RAM as long as any byte on it is locked, or any [Pin] covers one. The
// range needs no alignment. With n == 0 nothing is done, at any offset.
//
// To lock what is locked makes no system call. So it brings nothing back that
// left because another process cut the file: what was cut off and came again,
// and on Linux perhaps up to 8 MiB before the cut. What is no longer there
// VerifyLocked finds, and after it Lock brings it back. Refresh does both.
//
// In a CopyOnWrite File locking copies nothing; a page that is stored to later
// is copied, and the copy is locked. (On Darwin and the BSDs it copies every
// page, which no longer follows the file.) Locks belong to this process and this
// File: children do not inherit them, and other Files over the same disk file
// have their own.
//
// An error is a [LockError] that says what stood in the way and what to do
// about it. The kernel then holds for this File just what it held before.
//
// mlock2(2) with MLOCK_ONFAULT, then madvise(2) with MADV_POPULATE_READ, or a load of
// a few pages that are in RAM: they were seen there within the last second, or
// preadv2(2) with RWF_NOWAIT finds them in the page cache. Elsewhere mlock(2),
// VirtualLock.
func (f *File) Lock(off, n int64) error { return f.lock("lock", off, n) }

// LockMode says how firmly pages are kept in RAM.
type LockMode int

const (
	// LockNone leaves it to the system what stays in RAM.
	LockNone LockMode = iota
	// LockNow brings pages in and keeps them.
	LockNow
	// LockOnFault keeps pages from the time on that they are first touched.
	LockOnFault
)

func (m LockMode) String() string {
	switch m {
	case LockNone:
		return "LockNone"
	case LockNow:
		return "LockNow"
	case LockOnFault:
		return "LockOnFault"
	}
	return "LockMode(" + strconv.Itoa(int(m)) + ")"
}

func (m LockMode) level() lockset.Level {
	switch m {
	case LockNow:
		return lockset.Now
	case LockOnFault:
		return lockset.OnFault
	}
	return lockset.None
}

// LockOptions says how LockContext locks. The zero value is what Lock does.
type LockOptions struct {
	// OnFault leaves what is not in RAM on the disk: a page is locked when it
	// is first touched. errors.ErrUnsupported where the kernel cannot do it
	// (all but Linux).
	OnFault bool
	// Progress is called after each step with the bytes that are locked by
	// then and those that are to be. It may call methods of the File.
	Progress func(done, total int64)
}

// LockContext is Lock in steps of some MiB. It stops between two of them when
// ctx ends, lets go of what it has locked itself, and returns an error that
// wraps the cause. nil options mean the zero value.
//
// mlock2(2) with MLOCK_ONFAULT.
func (f *File) LockContext(ctx context.Context, off, n int64, opts *LockOptions) error {
	const op = "lockcontext"
	call := &lockCall{op: op, off: off, n: n, level: lockset.Now}
	if opts != nil {
		call.progress = opts.Progress
		if opts.OnFault {
			call.level = lockset.OnFault
		}
	}
	l := &f.locks
	l.mu.Lock()
	_, _, _, err := f.lockRange(op, off, n)
	l.mu.Unlock()
	switch {
	case err != nil || n == 0:
		return err
	case call.level == lockset.OnFault && !sys.LocksOnFault():
		return f.fail(op, errors.ErrUnsupported)
	}
	return f.raise(ctx, call)
}

// Unlock lets the pages that hold [off, off+n) leave RAM, where no locked byte
// and no [Pin] remains on them. To unlock what is not locked succeeds. With
// n == 0 nothing is done, at any offset.
//
// munlock(2), VirtualUnlock.
func (f *File) Unlock(off, n int64) error { return f.unlock("unlock", off, n) }

// LockAll is Lock(0, Size()).
func (f *File) LockAll() error { return f.lockBytes("lockall", 0, 0, true, nil) }

// UnlockAll is Unlock(0, Size()). Pins stay.
func (f *File) UnlockAll() error { return f.unlockBytes("unlockall", 0, 0, true) }

// A Range is a stretch of a File: Len bytes from offset Off.
type Range struct{ Off, Len int64 }

// LockedRanges returns what is kept in RAM for this File, by locks and pins:
// whole pages, but nothing outside of [0, Size()), in order and apart from
// each other. It is empty after Close.
func (f *File) LockedRanges() []Range {
	l := &f.locks
	l.mu.Lock()
	defer l.mu.Unlock()
	g := f.cur.Load()
	var ranges []Range
	for _, run := range l.set.Held(nil, 0, maxInt64) {
		lo := max(run.Lo-int64(g.mem.delta), 0)
		hi := min(run.Hi-int64(g.mem.delta), int64(len(g.data)))
		if n := len(ranges); n > 0 && ranges[n-1].Off+ranges[n-1].Len == lo {
			ranges[n-1].Len = hi - ranges[n-1].Off
		} else if lo < hi {
			ranges = append(ranges, Range{lo, hi - lo})
		}
	}
	return ranges
}

// LockedBytes returns the sum of what LockedRanges returns.
func (f *File) LockedBytes() int64 {
	var sum int64
	for _, r := range f.LockedRanges() {
		sum += r.Len
	}
	return sum
}

// VerifyLocked asks the kernel whether it really holds the pages of
// [off, off+n) in RAM. If not, it returns a [LockError] that names the first
// page that is not locked or, where it was locked by more than LockOnFault,
// not in RAM: another process may have cut the file. From then on the File
// knows what is missing, so that the next Lock or Pin there brings it in
// again. VerifyLocked needs no privilege. errors.ErrUnsupported where the
// kernel does not tell (all but Linux and Windows, and on Linux a process that may
// neither open its /proc/self/pagemap, as after setuid(2), nor call move_pages(2));
// where it cannot be asked at the moment, for want of descriptors or memory, the
// error says that.
func (f *File) VerifyLocked(off, n int64) error { return f.verify("verifylocked", off, n) }

// LockLimits says how much memory this process may lock, in bytes.
type LockLimits struct {
	Soft, Hard int64 // RLIMIT_MEMLOCK; on Windows the minimum working set; -1: no limit
	InUse      int64 // locked by this process now, as the kernel charges it; -1: not known
	Unlimited  bool  // the limits do not count: the process has CAP_IPC_LOCK or the like
}

// ReadLockLimits returns the limits of now. On Windows there is no limit to
// speak of: quotas grow on demand, and all processes are Unlimited.
//
// getrlimit(2), VmLck in proc_pid_status(5), CAP_IPC_LOCK in capabilities(7).
func ReadLockLimits() (LockLimits, error) {
	if m, err := limits.ReadMemlock(); err == nil {
		return LockLimits(m), nil
	}
	soft, hard, exempt, err := sys.MemlockLimits()
	if err != nil {
		return LockLimits{}, &fs.PathError{Op: "readlocklimits", Path: "RLIMIT_MEMLOCK", Err: err}
	}
	return LockLimits{Soft: soft, Hard: hard, InUse: -1, Unlimited: exempt}, nil
}

// RaiseLockLimit raises the soft limit of this process to the hard limit, which
// needs no privilege, and returns the limits as they are then. Processes
// started later inherit it. On Windows there is nothing to raise.
//
// setrlimit(2).
func RaiseLockLimit() (LockLimits, error) {
	if err := sys.RaiseMemlock(); err != nil {
		return LockLimits{}, &fs.PathError{Op: "raiselocklimit", Path: "RLIMIT_MEMLOCK", Err: err}
	}
	return ReadLockLimits()
}

// A locker keeps the books of a File's locks and pins. Offsets in its set
// count from the page that holds the first mapped byte.
type locker struct {
	mu    beside.Lock // held while the kernel's locks change; taken after File.mu
	set   *lockset.Set
	stuck bool // pages are held that nothing wants, see letGo
	apart int  // how often pages beside a change may have left, see keepIn

	onFault atomic.Bool // something was ever locked on fault
}

func (l *locker) init() { l.set = lockset.New(int64(sys.PageSize())) }

// endLocks lets everything go at the moment that the File closes: the memory may
// live on below a holder.
func (f *File) endLocks(g *generation) {
	l := &f.locks
	l.mu.Lock()
	defer l.mu.Unlock()
	f.cur.Store(closedGeneration)
	f.noLonger()
	for _, run := range l.set.Held(nil, 0, maxInt64) {
		if !g.mem.secret {
			f.kernelUnlock(g, run) //nolint:errcheck // then the lock ends with the mapping
		}
	}
	l.init()
	splits.Add(-f.src.extra.Swap(0))
}

func (f *File) lock(op string, off, n int64) error { return f.lockBytes(op, off, n, false, nil) }

// lockBytes locks [off, off+n), or all that is mapped at the moment, or fills in a pin.
func (f *File) lockBytes(op string, off, n int64, all bool, p *Pin) error {
	if !all && f.lockBeside(off, n, p) {
		return nil
	}
	l := &f.locks
	l.mu.Lock()
	if all {
		off, n = 0, f.Size()
	}
	g, lo, hi, err := f.lockRange(op, off, n)
	if err == nil && n == 0 && p != nil {
		err = f.within(op, g, off, n)
	}
	held := err == nil && l.set.Covered(lo, hi, lockset.Now)
	if held {
		l.want(lo, hi, p)
	} else if err == nil {
		var mark lockset.Pin
		mark, held, err = f.lockFew(&lockCall{op: op, off: off, n: n, level: lockset.Now}, g, lo, hi)
		if held {
			l.want(lo, hi, p)
			l.set.Unpin(mark)
		}
	}
	l.mu.Unlock()
	if held || err != nil {
		return err
	}
	call := lockCall{op: op, off: off, n: n, level: lockset.Now}
	return f.lockWindows(context.Background(), &call, func(lo, hi int64) { l.want(lo, hi, p) })
}

// raise locks bytes at the level of the call.
func (f *File) raise(ctx context.Context, call *lockCall) error {
	if call.level == lockset.OnFault {
		f.locks.onFault.Store(true)
	}
	return f.lockWindows(ctx, call, func(lo, hi int64) { f.locks.set.Raise(lo, hi, call.level) })
}

func (f *File) unlock(op string, off, n int64) error { return f.unlockBytes(op, off, n, false) }

func (f *File) unlockBytes(op string, off, n int64, all bool) error {
	l := &f.locks
	l.mu.LockBeside()
	if all {
		off, n = 0, f.Size()
	}
	_, lo, hi, err := f.lockRange(op, off, n)
	if err != nil {
		l.mu.Unlock()
		return err
	}
	l.set.Assign(lo, hi, lockset.None)
	f.letGoBeside(lo, hi)
	return nil
}

// lockRange checks the arguments of a lock call and turns them into offsets of
// the set. The caller holds locks.mu.
func (f *File) lockRange(op string, off, n int64) (g *generation, lo, hi int64, err error) {
	g = f.cur.Load()
	switch {
	case g == closedGeneration:
		return g, 0, 0, f.fail(op, fs.ErrClosed)
	case n == 0:
		return g, 0, 0, nil
	default:
		if err := f.within(op, g, off, n); err != nil {
			return g, 0, 0, err
		}
	}
	lo = off + int64(g.mem.delta)
	return g, lo, lo + n, nil
}

// letGo unlocks the pages of [lo, hi) that nothing wants any more. Where that
// would cut a mapping in two and there are too many, the pages stay locked, and
// in the books as held, until a later change makes room.
func (f *File) letGo(g *generation, lo, hi int64) {
	l := &f.locks
	if l.stuck {
		lo, hi = 0, maxInt64
	}
	l.stuck = false
	var room [4]lockset.Run
	for _, run := range l.set.Excess(room[:0], lo, hi) {
		if run.Level != lockset.None {
			l.set.Hold(run.Lo, run.Hi, run.Level)
			continue
		}
		low, high := f.edges(g, run)
		// Once refused is enough, since to ask takes a while.
		if l.cuts(run) && (l.stuck || l.mapRoom(1) != nil) || f.kernelUnlock(g, run) != nil {
			l.stuck = true
			continue
		}
		l.set.Hold(run.Lo, run.Hi, lockset.None)
		f.recount(g)
		f.keepIn(g, low, run.Lo)
		f.keepIn(g, run.Hi, high)
	}
}

func (f *File) kernelUnlock(g *generation, run lockset.Run) error {
	defer g.mem.mayLeave(run.Lo, run.Hi)
	return g.mem.space.Unlock(g.mem.base+int(run.Lo), int(run.Hi-run.Lo))
}
