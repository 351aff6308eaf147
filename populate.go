package mmapio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/mmapio/mmapio/internal/fault"
	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/pace"
	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

// Populate brings every page that holds a byte of [off, off+n) into RAM and
// returns once all are there, or with an error that says why not. Nothing keeps
// them there afterwards: see [File.Lock]. It waits in system calls, so other
// goroutines keep running; where the disk takes long to answer it asks for many
// parts at a time.
//
// Pages are brought in to be read: in a CopyOnWrite File nothing is copied. Those
// of Anonymous memory are given memory of their own.
//
// A page that cannot be read is a [FaultError], that of the lowest offset. When
// ctx ends, what is under way is finished, and the error wraps the cause.
//
// madvise(2) with MADV_POPULATE_READ (Linux 5.14), before that process_vm_readv(2)
// of a byte of each page; pread(2) elsewhere, which leaves the pages in the page
// cache but not in the mapping. Where there is nothing to read by either (Anonymous,
// DropFD; on Windows, after Map, a file that cannot be opened anew, and bytes that
// somebody has locked by LockFileEx), page after page is touched there, and other
// goroutines may have to wait.
func (f *File) Populate(ctx context.Context, off, n int64) error {
	const op = "populate"
	g, err := f.now(op, 0)
	if err == nil {
		err = f.within(op, g, off, n)
	}
	if err != nil || n == 0 {
		return err
	}
	return f.bringIn(ctx, op, off, n)
}

// bringIn is Populate of a range that is right.
func (f *File) bringIn(ctx context.Context, op string, off, n int64) error {
	delta := f.src.off % int64(sys.PageSize())
	r := f.windowsOf(ctx, op, page.Down(off+delta, int64(sys.PageSize())), off+n+delta)
	r.begin = func(*window) error { return nil }
	r.work = func(w *window) error {
		for {
			g := f.cur.Load()
			pass, ok := g.mem.calls.Enter()
			if !ok {
				if _, err := f.current(op); err != nil { // waits for the Resize
					return err
				}
				continue
			}
			err := f.within(op, g, off, n)
			if err != nil {
				pass.Leave()
				return err
			}
			if f.cur.Load().mem == g.mem {
				var room [1]lockset.Run
				var run lockset.Run
				run, err = w.populate(g, append(room[:0], lockset.Run{Lo: w.lo, Hi: w.hi}))
				if err == nil {
					g.mem.resident.Add(int(w.lo>>pageShift), int((w.hi-1)>>pageShift))
				} else if !w.halted {
					err = f.cannotPopulate(op, g, run.Lo, run.Hi, err)
				}
			}
			pass.Leave()
			runtime.KeepAlive(g)
			if w.halted || f.cur.Load().mem == g.mem {
				return err
			}
			// The mapping has moved meanwhile, and the file may have been cut since:
			// a shrink does not wait for who is in an older mapping.
		}
	}
	return r.run()
}

// cannotPopulate is the error for a range of which a page cannot be had.
func (f *File) cannotPopulate(op string, g *generation, lo, hi int64, err error) error {
	poisoned := errors.Is(err, sys.ErrPoisoned)
	if !poisoned && !errors.Is(err, sys.ErrUnreadable) {
		return f.fail(op, err)
	}
	fe := g.mem.faultAt(op, g.mem.firstAbsent(lo, hi)-int64(g.mem.delta), false)
	if poisoned && unexplained(fe.Err) {
		fe.Err = fmt.Errorf("%w: %w", errBroken, err) // nothing is wrong with the file
	}
	return fe
}

// errBroken says what the kernel's EHWPOISON, for which there may be no text, means.
var errBroken = errors.New("the hardware has found the memory of this page to be broken")

// firstAbsent returns the first page of [lo, hi) that is not there after it was to
// be brought in, or lo where that is not to be found.
func (e *extent) firstAbsent(lo, hi int64) int64 {
	at, n := e.base+int(lo), int(hi-lo)
	if !e.src.readable() && !sys.CanPopulate() {
		return lo + int64(max(fault.Touch(e.space.Bytes(at, n), sys.PageSize(), false), 0))
	}
	switch bad, err := e.space.Absent(at, n); {
	case err == nil && bad >= 0:
		return int64(bad - e.base)
	case err == nil, !sys.CanPopulate(), e.src.info == nil:
		return lo
	}
	// The kernel does not tell: half by half, the one before is there.
	for ps := sys.PageSize(); n > ps; {
		half := n / ps / 2 * ps
		if e.space.Populate(at, half, false) != nil {
			n = half
			continue
		}
		at, n = at+half, n-half
	}
	return int64(at - e.base)
}

// populate brings pages in, by one system call where there is one. Offsets are
// the set's.
func (f *File) populate(g *generation, lo, hi int64) error {
	// Memory with no file behind it must be stored to, or the page of zeroes
	// would be there instead. A private page of a file must not, or it would be
	// copied.
	at, n, store := g.mem.base+int(lo), int(hi-lo), f.anonymous()
	if sys.CanPopulate() {
		return g.mem.space.Populate(at, n, store)
	}
	return f.readOrTouch(g, lo, hi, store)
}

// readOrTouch brings pages in where no system call does it through the mapping: by
// reading the file, and where that may not be read, by touching them.
func (f *File) readOrTouch(g *generation, lo, hi int64, store bool) error {
	err := sys.ErrUnsupported
	if f.src.readable() {
		delta := int64(g.mem.delta)
		err = f.readThrough(lo-delta, hi-delta, int64(len(g.data)))
	}
	if errors.Is(err, sys.ErrUnsupported) {
		err = g.mem.mapIn(g.mem.base+int(lo), int(hi-lo), store)
	}
	return err
}

// mapIn brings pages in by touching them, where there is neither a call that does
// it nor a descriptor to read them by.
func (e *extent) mapIn(at, n int, store bool) error {
	if fault.Touch(e.space.Bytes(at, n), sys.PageSize(), store) >= 0 {
		return sys.ErrUnreadable
	}
	return nil
}

// populate brings the runs of a window in, and measures it. With an error it returns
// the run that it is about.
func (w *window) populate(g *generation, runs []lockset.Run) (lockset.Run, error) {
	r := w.run
	if w.plan.Ahead || r.f.src.random.Load() && !r.f.cached(g, runs) {
		w.ask(g, runs)
	}
	m := meter{on: r.hi-r.lo > pace.Small} // else there is nothing to adapt
	// The kernel's word for a whole window costs less than a first piece to try.
	m.cached = w.plan.Size == pace.Large && r.quick.Load() &&
		(w.hi <= r.cached || r.cachedFrom(w.lo) || r.f.cached(g, runs))
	m.begin(r)
	defer m.end(r, w)
	for i, run := range runs {
		for at := run.Lo; at < run.Hi; {
			if err := w.stopped(); err != nil {
				w.halted = true
				return run, err
			}
			end := min(run.Hi, at+m.piece())
			err := failpoint("populate")
			if err == nil {
				err = r.f.populate(g, at, end)
			}
			if err != nil {
				return lockset.Run{Lo: at, Hi: end}, err
			}
			waited := m.waited(end - at)
			at = end
			if waited && !w.waited {
				w.waited = true
				if w.plan.Size > pace.Stream {
					// So large because it was thought to be in memory.
					w.ask(g, append([]lockset.Run{{Lo: at, Hi: run.Hi}}, runs[i+1:]...))
				}
			}
		}
	}
	return lockset.Run{}, nil
}

// fromMemory reports whether n bytes came faster than from any disk, so that the
// kernel need not be asked whether a page was waited for.
func fromMemory(n int64, took time.Duration) bool {
	return took < 50*time.Microsecond || n/100 > int64(took) // 100 GB/s
}

// A meter measures a window while it is brought in.
type meter struct {
	on     bool
	cached bool      // all of it is known to be in memory
	began  time.Time // all
	last   time.Time // the last piece
	quick  bool      // so far everything was there at once
	before int64     // pages waited for; -1: not asked yet
}

func (m *meter) begin(r *windows) {
	if !m.on {
		return
	}
	runtime.LockOSThread()
	m.began = time.Now()
	m.last, m.before = m.began, -1
	if m.quick = true; !r.quick.Load() {
		m.before = sys.Waits()
	}
}

func (m *meter) end(r *windows, w *window) {
	if m.on {
		runtime.UnlockOSThread()
		w.took = m.last.Sub(m.began)
		r.quick.Store(m.quick)
	}
}

// piece is how much to bring in by the next call.
func (m *meter) piece() int64 {
	if m.quick && (m.cached || m.last != m.began) { // by now something was
		return pace.Large
	}
	return pace.Stream
}

// waited tells, after each piece of n bytes, whether the disk was waited for.
func (m *meter) waited(n int64) bool {
	if !m.on {
		return false
	}
	now := time.Now()
	took := now.Sub(m.last)
	m.last = now
	if fromMemory(n, took) {
		return false
	}
	m.quick = false
	waits := sys.Waits()
	waited := m.before >= 0 && waits > m.before
	m.before = waits
	return waited
}

// ask has the kernel begin to read all of some runs at once. To populate alone
// reads as much as the kernel reads ahead, then waits, and one page at a time
// where the File was advised to be read at random.
func (w *window) ask(g *generation, runs []lockset.Run) {
	step := w.run.ahead()
	for _, run := range runs {
		for at := run.Lo; at < run.Hi && w.stopped() == nil; at += step {
			n := int(min(step, run.Hi-at))
			if g.mem.space.Advise(g.mem.base+int(at), n, sys.WillNeed) != nil {
				return // it is only a hint
			}
		}
	}
}

// cached reports whether some runs are known to be in the page cache.
func (f *File) cached(g *generation, runs []lockset.Run) bool {
	if f.src.file == nil {
		return false
	}
	for _, run := range runs {
		c, err := sys.Cached(f.src.file, f.src.off-int64(g.mem.delta)+run.Lo, run.Hi-run.Lo)
		if err != nil || c.Resident*int64(sys.PageSize()) < run.Hi-run.Lo {
			return false
		}
	}
	return true
}

// cachedStep is how much of a file is asked about at a time: one call for each
// window takes longer. A variable for tests.
var cachedStep int64 = 1 << 30

// cachedFrom reports whether what follows on an offset, as far as r.cached says
// then, is known to be in the page cache. After it was not, it no longer asks.
func (r *windows) cachedFrom(lo int64) bool {
	if r.cached < 0 {
		return false
	}
	end := min(r.hi, lo+cachedStep)
	if !r.f.cached(r.f.cur.Load(), []lockset.Run{{Lo: lo, Hi: end}}) {
		r.cached = -1
		return false
	}
	r.cached = end
	return true
}

// readThrough reads a part of the file to have it in the page cache, where
// pages cannot be brought in through the mapping. ErrUnsupported says that it may
// not be read, though it can be loaded.
func (f *File) readThrough(off, end, size int64) error {
	end = min(end, size)
	buf := make([]byte, min(max(end-off, 0), 256<<10))
	for off = max(off, 0); off < end; {
		n, err := 0, failpoint("read")
		if err == nil {
			n, err = sys.ReadAt(f.src.file, buf[:min(int64(len(buf)), end-off)], f.src.off+off)
		}
		off += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			// The page in which the file ends is there as a whole.
			if there, _ := page.Up(f.src.off+off, int64(sys.PageSize())); there < f.src.off+end {
				return sys.ErrUnreadable
			}
			return nil
		case err != nil:
			return underlying(err)
		}
	}
	return nil
}

func isNoMemory(err error) bool { return errors.Is(err, sys.ErrNoMemory) }
