package mmapio

import (
	"bytes"
	"errors"
	"io"

	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/sys"
)

// resizeMemory is Resize for memory with no file behind it.
func (f *File) resizeMemory(op string, g *generation, size int64) error {
	switch {
	case size == int64(len(g.data)):
		return nil
	case size > int64(len(g.data)) && f.growsInPlace(g, size):
		return f.growInPlace(op, g, size, noCut)
	case size < int64(len(g.data)) && sys.CanReserve:
		return f.shrink(op, g, size, func() error { f.wipe(g, size); return nil })
	}
	readmit, err := f.exclude(op, g)
	if err != nil {
		return err
	}
	err = f.replace(op, g, size, func(from, to *generation) error { return f.copyMemory(op, from, to) }, noCut)
	if err != nil {
		readmit()
	}
	return err
}

// copyMemory copies what was ever touched. To read a page that was not would
// give it memory.
func (f *File) copyMemory(op string, from, to *generation) error {
	err := f.copyPrivateRuns(op, from, to)
	if errors.Is(err, errors.ErrUnsupported) {
		copy(to.data, from.data)
		return nil
	}
	return err
}

// wipe zeroes what a shrink cuts off of the last page that stays.
func (f *File) wipe(g *generation, size int64) {
	end := min(int64(pageUp(int(size))), int64(len(g.data)))
	clear(g.data[size:end])
}

// growPrivate moves a CopyOnWrite File. Pages that were stored to exist in the
// old mapping only. Nobody may store there once they are copied: holders are
// refused, and a copier that is not counted meets read-only memory, faults,
// and tries again.
func (f *File) growPrivate(op string, g *generation, size int64) error {
	readmit, err := f.exclude(op, g)
	if err != nil {
		return err
	}
	err = f.replace(op, g, size, func(from, to *generation) error { return f.copyPrivate(op, from, to) }, noCut)
	if err != nil {
		if mapped := int(g.mem.mapped.Load()); sys.CanReserve && mapped > 0 {
			g.mem.space.Protect(g.mem.base, mapped, sys.Private) //nolint:errcheck // the first error counts
		}
		readmit()
	}
	return err
}

// refill reads what the file has between the old end of a CopyOnWrite File and
// the end of its page. Where that page is a copy, it has the bytes of then.
func (f *File) refill(g *generation, size int64) error {
	m, n := g.mem, int64(len(g.data))
	end := min(size, m.mapped.Load()-int64(m.delta))
	if n >= end {
		return nil
	}
	b := make([]byte, end-n)
	got, err := f.src.file.ReadAt(b, f.src.off+n)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	Guard(func() error { //nolint:errcheck // cut by others meanwhile: a fault for whoever reads there
		// A page that is not a copy shows the same already, and stays none.
		if at := m.space.Bytes(m.base+m.delta+int(n), got); !bytes.Equal(at, b[:got]) {
			copy(at, b)
		}
		return nil
	})
	return nil
}

// copyPrivate copies the pages that were stored to.
func (f *File) copyPrivate(op string, from, to *generation) error {
	m := from.mem
	if len(from.data) == 0 {
		return nil
	}
	mapped := int(m.mapped.Load())
	if sys.CanReserve {
		if err := m.space.Protect(m.base, mapped, sys.Read); err != nil {
			return f.fail(op, err)
		}
	}
	err := f.copyPrivateRuns(op, from, to)
	if errors.Is(err, errors.ErrUnsupported) {
		return copyChanged(op, from, to)
	}
	return err
}

// copyPrivateRuns copies the pages that the kernel says are copies of the old
// mapping alone.
func (f *File) copyPrivateRuns(op string, from, to *generation) error {
	m, mapped := from.mem, int(from.mem.mapped.Load())
	for at := 0; at < mapped; {
		lo, hi, err := m.space.Private(m.base+at, mapped-at)
		if err != nil {
			return err
		}
		if lo < 0 {
			break
		}
		if err := copyPages(op, from, to, lo-m.base, hi-m.base); err != nil {
			return err
		}
		at = hi - m.base
	}
	return nil
}

// copyPages copies whole pages of one generation to the other.
func copyPages(op string, from, to *generation, lo, hi int) error {
	lo, hi = max(lo-from.mem.delta, 0), min(hi-from.mem.delta, len(from.data), len(to.data))
	if lo >= hi {
		return nil
	}
	err := Guard(func() error {
		copy(to.data[lo:hi], from.data[lo:hi])
		return nil
	})
	var fe *FaultError
	if errors.As(err, &fe) {
		fe.Op = op
	}
	return err
}

// copyChanged is copyPrivate where the kernel does not tell which pages are
// private: those that differ.
func copyChanged(op string, from, to *generation) error {
	ps, end := sys.PageSize(), min(len(from.data), len(to.data))
	for lo := 0; lo < end; lo += ps {
		hi := min(lo+ps, end)
		same := false
		err := Guard(func() error {
			same = bytes.Equal(from.data[lo:hi], to.data[lo:hi])
			return nil
		})
		if err == nil && !same {
			err = copyPages(op, from, to, lo+from.mem.delta, hi+from.mem.delta)
		}
		if err != nil && !errors.Is(err, errEOF) {
			return err
		}
	}
	return nil
}

// handOver locks in the new generation what is locked in the old, window by
// window: both map the same pages, so none is ever free to leave, and no more
// than a window is charged twice. The caller holds locks.mu.
// cut is the last step; if it fails, the locks go back.
func (f *File) handOver(op string, from, to *generation, cut func() error) error {
	l := &f.locks
	var done []lockset.Run
	for _, run := range l.set.Held(nil, 0, min(from.mem.mapped.Load(), to.mem.mapped.Load())) {
		run.Hi = min(run.Hi, to.mem.mapped.Load())
		window := int64(lockWindow)
		for lo := run.Lo; lo < run.Hi; {
			part := lockset.Run{Lo: lo, Hi: min(run.Hi, lo+window), Level: run.Level}
			err := failpoint("lock")
			if err == nil {
				err = f.lockNew(to, part)
			}
			if isNoMemory(err) && part.Hi-part.Lo > int64(sys.PageSize()) {
				// There may be room for less.
				window = max(window/2, int64(sys.PageSize()))
				continue
			}
			if isNoMemory(err) {
				// There is room for nothing, so this page moves by being free
				// for a moment.
				f.kernelUnlock(from, part) //nolint:errcheck // it is locked again below
				if err = f.lockNew(to, part); err != nil {
					f.lockNew(from, part) //nolint:errcheck // what was locked a moment ago fits again
				}
			}
			if err != nil {
				f.kernelUnlock(to, part) //nolint:errcheck // what is locked of it
				f.handBack(from, to, done)
				call := &lockCall{op: op, off: max(run.Lo-int64(to.mem.delta), 0), n: run.Hi - run.Lo}
				return f.lockErrorHeld(call, to, part.Lo, part.Hi, err, part.Hi-part.Lo)
			}
			f.kernelUnlock(from, part) //nolint:errcheck // the old mapping goes anyway
			done = append(done, part)
			lo = part.Hi
		}
	}
	if err := cut(); err != nil {
		f.handBack(from, to, done)
		return f.fail(op, err)
	}
	l.set.Truncate(int64(to.mem.delta + len(to.data)))
	return nil
}

// lockNew locks a run in a generation that nobody knows yet.
func (f *File) lockNew(g *generation, run lockset.Run) error {
	lock := func() error { return g.mem.space.Lock(g.mem.base+int(run.Lo), int(run.Hi-run.Lo)) }
	if run.Level != lockset.Now {
		return lock()
	}
	// A lock that begins or ends inside of a huge page takes all of that out
	// of the mapping. So the pages come in after it, where that can be.
	if sys.LocksOnFault() {
		if err := lock(); err != nil {
			return err
		}
	}
	if err := f.populate(g, run.Lo, run.Hi); err != nil && !errors.Is(err, sys.ErrUnreadable) {
		return err
	}
	if sys.LocksOnFault() {
		return nil
	}
	return lock()
}

// keepIn brings the locked pages of [lo, hi) in again, after something that may
// have taken them out of the mapping: what is not mapped is not locked. That
// is a lock or unlock of a part of a huge page, and a cut of the file inside
// of a folio (the kernel keeps files in folios of up to 2048 pages, and splits
// the one that is cut). The caller holds locks.mu.
func (f *File) keepIn(g *generation, lo, hi int64) {
	if !sys.LocksOnFault() {
		return
	}
	for _, run := range f.locks.set.Held(nil, lo, hi) {
		if run.Level == lockset.Now {
			lo, hi := max(run.Lo, lo), min(run.Hi, hi)
			if at, err := g.mem.space.Absent(g.mem.base+int(lo), int(hi-lo)); err == nil && at < 0 {
				continue
			}
			// Whatever stands in the way, VerifyLocked tells.
			f.populate(g, lo, hi) //nolint:errcheck // as above
		}
	}
}

// folio is how many pages away a cut can reach, see keepIn.
const folio = 2048

// edges looks, before a run is locked or unlocked, which of its two ends lie
// inside of a huge page. Then what it returns brings in again what the change
// has taken out of the mapping beside them.
func (f *File) edges(g *generation, run lockset.Run) (mend func()) {
	if !sys.LocksOnFault() {
		return func() {}
	}
	m, huge := g.mem, int64(sys.HugePage())
	start := int64(m.space.Addr()) + int64(m.base)
	inside := func(at int64) bool {
		return (start+at)%huge != 0 && at > 0 && at < m.mapped.Load() && m.space.Huge(m.base+int(at))
	}
	low, high := inside(run.Lo), inside(run.Hi)
	return func() {
		if low {
			f.keepIn(g, max(run.Lo-(start+run.Lo)%huge, 0), run.Lo)
		}
		if high {
			f.keepIn(g, run.Hi, min(run.Hi+huge-(start+run.Hi)%huge, m.mapped.Load()))
		}
	}
}

// handBack undoes a part of handOver.
func (f *File) handBack(from, to *generation, done []lockset.Run) {
	for i := len(done) - 1; i >= 0; i-- {
		f.kernelUnlock(to, done[i]) //nolint:errcheck // the new mapping goes anyway
		// What was locked a moment ago fits again.
		from.mem.space.Lock(from.mem.base+int(done[i].Lo), int(done[i].Hi-done[i].Lo)) //nolint:errcheck // as above
	}
	f.keepIn(from, 0, from.mem.mapped.Load())
}

// lockAgain locks in a generation all that the books say. The caller holds
// locks.mu.
func (f *File) lockAgain(op string, g *generation) error {
	for _, run := range f.locks.set.Held(nil, 0, g.mem.mapped.Load()) {
		if err := f.lockNew(g, run); err != nil {
			call := &lockCall{op: op, off: max(run.Lo-int64(g.mem.delta), 0), n: run.Hi - run.Lo}
			return f.lockErrorHeld(call, g, run.Lo, run.Hi, err, run.Hi-run.Lo)
		}
	}
	return nil
}
