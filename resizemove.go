package mmapio

import (
	"bytes"
	"errors"
	"io"

	"github.com/mmapio/mmapio/internal/sys"
)

// resizeMemory is Resize for memory with no file behind it.
func (f *File) resizeMemory(op string, g *generation, size int64) error {
	switch {
	case size == int64(len(g.data)):
		return nil
	case size > int64(len(g.data)):
		return f.grow(op, g, size, noCut)
	case sys.CanReserve:
		return f.shrink(op, g, size, func() error { f.wipe(g, size); return nil })
	}
	return f.moveMemory(op, g, size, nil)
}

// moveMemory moves memory with no file behind it.
func (f *File) moveMemory(op string, g *generation, size int64, t *tail) error {
	readmit, err := f.exclude(op, g)
	if err != nil {
		return err
	}
	err = f.replace(op, g, size, t, func(from, to *generation) error { return f.copyMemory(op, from, to) }, noCut)
	if err != nil {
		readmit()
	}
	return err
}

// copyMemory copies what was ever touched. To read a page that was not would
// give it memory.
func (f *File) copyMemory(op string, from, to *generation) error {
	if from.mem.secret {
		return nil // a secret is copied into locked memory, see moveSecret
	}
	err := f.copyPrivateRuns(op, from, to)
	if errors.Is(err, errors.ErrUnsupported) {
		return f.copyPages(op, from, to, 0, int(from.mem.mapped.Load()))
	}
	return err
}

// wipe zeroes what a shrink cuts off of the last page that stays, or of a
// secret.
func (f *File) wipe(g *generation, size int64) {
	delta := int64(g.mem.delta)
	end := min(int64(pageUp(int(delta+size)))-delta, int64(len(g.data)))
	g.mem.zero(end+delta, g.mem.mapped.Load())
	clear(g.data[size:end])
}

// growPrivate moves a CopyOnWrite File. Pages that were stored to exist in the
// old mapping only. Nobody may store there once they are copied: holders are
// refused, and a copier that is not counted meets read-only memory, faults,
// and tries again.
func (f *File) growPrivate(op string, g *generation, size int64, t *tail) error {
	readmit, err := f.exclude(op, g)
	if err != nil {
		return err
	}
	err = f.replace(op, g, size, t, func(from, to *generation) error { return f.copyPrivate(op, from, to) }, noCut)
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
		return f.copyChanged(op, from, to)
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
		if err := f.copyPages(op, from, to, lo-m.base, hi-m.base); err != nil {
			return err
		}
		at = hi - m.base
	}
	return nil
}

// copyPages copies whole pages of one generation to the other, and makes copies
// of no more pages than those.
func (f *File) copyPages(op string, from, to *generation, lo, hi int) error {
	lo, hi = max(lo-from.mem.delta, 0), min(hi-from.mem.delta, len(from.data), len(to.data))
	err := f.inSteps(from, to, int64(lo), int64(hi), true, func(lo, hi int64) error {
		return Guard(func() error {
			copy(to.data[lo:hi], from.data[lo:hi])
			return nil
		})
	})
	var fe *FaultError
	if errors.As(err, &fe) {
		fe.Op = op
	}
	return err
}

// copyChanged is copyPrivate where the kernel does not tell which pages are
// private: those that differ.
func (f *File) copyChanged(op string, from, to *generation) error {
	end := int64(min(len(from.data), len(to.data)))
	return f.inSteps(from, to, 0, end, false, func(lo, hi int64) error {
		for lo < hi {
			next := lo + int64(from.mem.pageStep(lo, hi))
			same := false
			err := Guard(func() error {
				same = bytes.Equal(from.data[lo:next], to.data[lo:next])
				return nil
			})
			if err == nil && !same {
				err = f.copyPages(op, from, to, int(lo)+from.mem.delta, int(next)+from.mem.delta)
			}
			if err != nil && !errors.Is(err, errEOF) {
				return err
			}
			lo = next
		}
		return nil
	})
}

// inSteps calls do for the parts of [lo, hi), one after the other, that it has
// brought in of both generations: the old pages may be in swap, and below a new
// one the file's must be read first, also to store to it. Where a page cannot be
// had it goes by pages, and leaves that one to do, whose fault tells why.
func (f *File) inSteps(from, to *generation, lo, hi int64, store bool, do func(lo, hi int64) error) error {
	careful := lo // up to there it goes by pages
	for lo < hi {
		step := from.mem.step(lo, hi, bringStep)
		if lo < careful {
			step = from.mem.pageStep(lo, hi)
		}
		if f.readyBoth(from, to, lo, step, store) != nil && lo >= careful {
			careful = lo + int64(step)
			continue
		}
		if err := do(lo, lo+int64(step)); err != nil {
			return err
		}
		lo += int64(step)
	}
	return nil
}

// readyBoth brings in n bytes at off of the old generation for loads, and of the
// new one for loads or for stores.
func (f *File) readyBoth(from, to *generation, off int64, n int, store bool) error {
	if mayStall {
		return nil
	}
	// Not ready: to ask again costs little beside a copy, and what was known to be
	// in memory within the last second may be in swap by now.
	lo, last := from.mem.pageRange(off, n)
	err := from.mem.space.Populate(from.mem.base+lo<<pageShift, (last-lo+1)<<pageShift, false)
	if err != nil && !errors.Is(err, sys.ErrUnsupported) {
		return err
	}
	return f.ready(to, off, n, toCopy(store))
}
