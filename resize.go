package mmapio

import (
	"errors"
	"io/fs"

	"github.com/mmapio/mmapio/internal/sys"
)

// Resize makes the file Offset+size bytes long and maps size bytes of it. What
// is added is zero and, unless the File is Sparse, has disk blocks reserved;
// what is cut off is gone. Locked bytes stay locked; a lock or pin on what is
// cut off is forgotten.
//
// To grow waits for nobody and leaves held memory where it is: it maps more in
// place inside Options.Reserve, else all anew beside the old. To shrink waits
// for copying calls and for the step that a long system call is at, and is
// ErrBusy while a View, Update or loop runs or a Region, Value or Values is
// held, also for the one that calls it. An Anonymous File that must move to
// grow is copied, and is ErrBusy likewise.
//
// If Resize fails, length, mapping and locks are as they were, and so are blocks,
// but for holes that others had added; what others add meanwhile stays. (On
// Windows a shrink must unmap first; if the file cannot be mapped again after
// it, the File is closed and the error says so. A growth that failed has to
// unmap likewise, if it had made the file longer already; while memory is held,
// or another process has the file mapped, it stays so, and the error says by
// how much. There, to shrink is ErrBusy also for another File or process that
// has the file mapped.) ReadOnly: ErrReadOnly. errors.ErrUnsupported for
// CopyOnWrite, with DropFD, and for a File that was opened with Length.
//
// ftruncate(2), fallocate(2), SetEndOfFile.
func (f *File) Resize(size int64) (err error) {
	const op = "resize"
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.cur.Load()
	switch {
	case g == closedGeneration:
		return f.fail(op, fs.ErrClosed)
	case f.src.mode == ReadOnly:
		return f.fail(op, ErrReadOnly)
	case f.src.mode == CopyOnWrite, f.opts.Length > 0, f.src.file == nil && !f.anonymous():
		return f.fail(op, errors.ErrUnsupported)
	case size < 0 || size > maxInt64-f.src.off:
		return &RangeError{Op: op, Path: f.src.name, Len: size, Size: int64(len(g.data))}
	}
	if err := fits(op, f.src.name, size); err != nil {
		return err
	}
	if f.anonymous() {
		return f.resizeMemory(op, g, size)
	}
	info, err := f.src.file.Stat()
	if err != nil {
		return f.fail(op, err)
	}
	before, after, mapped := info.Size(), f.src.off+size, f.src.off+int64(len(g.data))
	// A growth too may cut a folio: where others had added something, where it
	// began, when it fails, and on XFS where it ends.
	defer func() { cutAt(f.src.info, min(before, after)) }()
	if size < int64(len(g.data)) {
		err := f.shrink(op, g, size, func() error { return f.setLength(before, after) })
		if err == nil && before < after {
			f.mend() // others had cut off what stays
		}
		return err
	}
	if after < before && !sys.CanReserve {
		// Others made it longer, and it cannot be cut while it is mapped.
		return f.shrink(op, g, size, func() error {
			before, err := f.setBlocks(before, after, mapped)
			if err != nil {
				return err
			}
			return f.setLength(before, after)
		})
	}
	if err := f.setAside(size); err != nil {
		return f.fail(op, err)
	}
	defer f.freeRoom()
	if before, err = f.setBlocks(before, after, mapped); err != nil {
		return f.takeBack(op, g, before, after, f.fail(op, err))
	}
	cut := noCut
	if after < before {
		// Others made it longer. What is cut off cannot be put back, so that
		// is the last step.
		cut = func() error { return f.setLength(before, after) }
	}
	if err := f.grow(op, g, size, cut); err != nil {
		return f.takeBack(op, g, before, after, err)
	}
	if before < mapped {
		f.mend()
	}
	return nil
}

// Refresh maps the file as long as it is now, without changing the file, and
// returns the new Size. It is how to follow a file that another process
// appends to, in every mode. Waiting, holders and locks are as with Resize;
// locked pages that left RAM because others have cut the file, and made it
// longer again, are brought back. A CopyOnWrite File keeps what was stored to
// it, and is ErrBusy if it must move while it is held. On overlayfs it does not find
// a copy that others have caused: docs/durability.md. errors.ErrUnsupported
// with DropFD, for Anonymous, and for a File that was opened with Length.
func (f *File) Refresh() (size int64, err error) {
	const op = "refresh"
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.cur.Load()
	switch {
	case g == closedGeneration:
		return 0, f.fail(op, fs.ErrClosed)
	case f.opts.Length > 0, f.src.file == nil:
		return int64(len(g.data)), f.fail(op, errors.ErrUnsupported)
	}
	info, err := f.src.file.Stat()
	if err != nil {
		return int64(len(g.data)), f.fail(op, err)
	}
	size = max(info.Size()-f.src.off, 0)
	err = fits(op, f.src.name, size)
	switch {
	case err != nil:
	case size < int64(len(g.data)):
		err = f.shrink(op, g, size, noCut)
	case size > int64(len(g.data)):
		err = f.grow(op, g, size, noCut)
	}
	if err == nil && f.glance.changed(info) {
		f.mend()
	}
	return f.Size(), err
}

// failpoint lets tests fail the steps of a change one by one.
var failpoint = func(step string) error { return nil }

// setLength cuts a file of length before to length after. If others have cut
// it to less, it becomes longer, with blocks.
func (f *File) setLength(before, after int64) error {
	if err := failpoint("length"); err != nil {
		return err
	}
	if after > before {
		_, err := f.setBlocks(before, after, before)
		return err
	}
	return f.src.file.Truncate(after)
}

// noCut is for changes that cut no file.
func noCut() error { return nil }

// setBlocks makes a file of length before at least after bytes long, with
// blocks for what lies beyond mapped. On error the file has its old length. It
// returns what that was, which is more if others have added to it.
func (f *File) setBlocks(before, after, mapped int64) (was int64, err error) {
	err = failpoint("blocks")
	var stale []byte
	if size, behind, errNow := f.end(); errNow == nil && size >= before {
		before, stale = size, behind
	}
	was = before
	switch {
	case err != nil || after <= before && f.opts.Sparse:
	case f.opts.Sparse:
		was, err = ensureSize(f.src.file, before, after, true)
	default:
		was, err = allocate(f.src.file, before, min(before, mapped), after)
	}
	if err == nil && after > before && stale != nil {
		if err = f.wipeStale(before, stale[:min(int64(len(stale)), after-before)]); err != nil {
			cutBack(f.src.file, was, after) //nolint:errcheck // the first error counts
		}
	}
	if before < after {
		was = min(was, after) // what others have added beyond it stays
	}
	return was, err
}

// exclude keeps everybody out of the File's memory and makes sure that nobody
// holds any. readmit ends it.
func (f *File) exclude(op string, g *generation) (readmit func(), err error) {
	m := g.mem
	m.holders.Shut(nil)
	m.calls.Shut(nil)
	m.copiers.Shut(nil)
	readmit = func() {
		m.holders.Open()
		m.calls.Open()
		m.copiers.Open()
	}
	held := !m.holders.Empty()
	for _, e := range f.old {
		held = held || !e.holders.Empty()
	}
	if held {
		readmit()
		return nil, f.fail(op, ErrBusy)
	}
	m.calls.Wait()
	m.copiers.Wait()
	return readmit, nil
}

// firstBeyond returns where the pages begin that have none of the first size bytes.
func firstBeyond(g *generation, size int64) int64 {
	if size == 0 {
		return 0
	}
	return int64(pageUp(g.mem.delta + int(size)))
}

// shrink maps less. cut makes the file shorter.
func (f *File) shrink(op string, g *generation, size int64, cut func() error) error {
	readmit, err := f.exclude(op, g)
	if err != nil {
		return err
	}
	if !sys.CanReserve {
		err := f.shrinkUnmapped(op, g, size, cut)
		if f.cur.Load() == g {
			readmit()
		}
		if err == nil {
			f.cutAdvised(firstBeyond(f.cur.Load(), size))
		}
		return err
	}
	defer readmit()
	// A copier that is not counted and touches what is cut off faults, waits
	// for mu, and tries again.
	if err := cut(); err != nil {
		return f.fail(op, err)
	}
	m := g.mem
	from, to := int(firstBeyond(g, size)), int(m.mapped.Load())
	l := &f.locks
	l.mu.Lock()
	f.cur.Store(m.generation(int(size)))
	for _, run := range l.set.Held(nil, int64(from), int64(to)) {
		f.kernelUnlock(g, run) //nolint:errcheck // Clear does it too
	}
	l.set.Truncate(int64(m.delta) + size)
	f.letGo(f.cur.Load(), 0, int64(to)) // the page that was cut in the middle
	l.mu.Unlock()
	if from < to {
		switch err := m.space.Clear(m.base+from, to-from); {
		case err == nil:
			m.mapped.Store(int64(from))
		case f.anonymous():
			clear(m.space.Bytes(m.base+from, to-from)) // to grow shows zeroes
		}
		m.shrinks.Add(1) // first: who finds pages looks here after they are known
		m.forget(int64(from), int64(to))
	}
	f.cutAdvised(int64(from))
	f.keepBefore(f.src.off + size)
	return nil
}
