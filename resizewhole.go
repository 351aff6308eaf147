package mmapio

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

// What is different where a mapping comes and goes whole, and a file cannot be
// cut while it is mapped, by this process or any other (Windows).

var (
	errLost error = &sentinel{"the file could not be mapped again and is closed", fs.ErrClosed}
	// errMapped is ErrBusy for a reason that lies outside of the File.
	errMapped error = &sentinel{"the file is mapped by another File or process", ErrBusy}
	// errAdded is why a growth is not taken back.
	errAdded = errors.New("others have added to it since")
)

// setAside takes address space for the File's next mapping of its file, of at
// least size bytes, before anything is done that would have to be undone
// without it. freeRoom ends it.
func (f *File) setAside(size int64) (err error) {
	if !sys.CanReserve && size > 0 && !f.anonymous() {
		f.room, err = sys.SetAside(int(f.src.off%int64(sys.Granularity()) + size))
	}
	return err
}

func (f *File) freeRoom() { f.room.Free() }

// shrinkUnmapped is shrink here. Nobody is inside of g. If it is the File's
// generation still, nothing was done.
func (f *File) shrinkUnmapped(op string, g *generation, size int64, cut func() error) error {
	if f.src.mode == CopyOnWrite {
		// What was stored is in the old mapping only. No file is cut.
		err := f.replace(op, g, size, nil, func(from, to *generation) error { return f.copyPrivate(op, from, to) }, cut)
		if err == nil {
			f.locks.mu.Lock()
			f.letGo(f.cur.Load(), 0, maxInt64) // the page that was cut in the middle
			f.locks.mu.Unlock()
		}
		return err
	}
	if err := f.setAside(max(size, int64(len(g.data)))); err != nil {
		return f.fail(op, err)
	}
	defer f.freeRoom()
	return f.shrinkWhole(op, g, size, cut)
}

// shrinkWhole unmaps the file, cuts it, and maps size bytes of it. If it cannot
// be cut it is mapped as it was.
func (f *File) shrinkWhole(op string, g *generation, size int64, cut func() error) error {
	for _, e := range f.old {
		e.vanish() // a call that is in there still may want locks.mu
	}
	l := &f.locks
	l.mu.Lock()
	defer l.mu.Unlock()
	g.mem.retire()
	g.mem.vanish()
	err := cut()
	if errors.Is(err, sys.ErrInUse) {
		err = errMapped
	}
	if err != nil {
		err = f.fail(op, err)
		size = int64(len(g.data))
	}
	mapErr := failpoint("remap")
	var next *generation
	if mapErr == nil {
		next, mapErr = f.mapNew(op, size, size)
	}
	if mapErr == nil {
		l.set.Truncate(int64(next.mem.delta) + size)
		for _, run := range l.set.Excess(nil, 0, maxInt64) {
			l.set.Hold(run.Lo, run.Hi, run.Level) // wanted by what was cut off only
		}
		if was := int64(len(g.data)); size > was && f.opts.Lock != LockNone {
			delta := int64(next.mem.delta)
			l.set.Raise(delta+was, delta+size, lockset.Now)
			lo, hi, _ := page.Outward(delta+was, delta+size, int64(sys.PageSize()))
			l.set.Hold(lo, hi, lockset.Now)
		}
		if mapErr = f.lockAgain(op, next); mapErr != nil {
			next.mem.retire()
		}
	}
	if mapErr != nil {
		f.cur.Store(closedGeneration)
		f.noLonger()
		l.init()
		splits.Add(-f.src.extra.Swap(0))
		f.src.file.Close() //nolint:errcheck // the first error counts
		return errors.Join(f.fail(op, errLost), mapErr, err)
	}
	f.cur.Store(next)
	f.recount(next)
	return err
}

// vanish waits until retired memory that nobody holds is taken away: whoever
// met its shut gates may not have left them yet.
func (e *extent) vanish() {
	for {
		e.holders.Wait()
		e.calls.Wait()
		e.copiers.Wait()
		e.settle()
		e.mu.Lock()
		gone := e.gone
		e.mu.Unlock()
		if gone {
			return
		}
	}
}

// takeBack gives the file back the length that it had before a growth that
// failed with cause.
func (f *File) takeBack(op string, g *generation, before, after int64, cause error) error {
	by := func() int64 {
		info, err := f.src.file.Stat()
		if after <= before || err != nil {
			return 0
		}
		return info.Size() - before
	}
	if by() <= 0 {
		return cause
	}
	cut := func() error { return cutBack(f.src.file, before, after) }
	err := cut()
	if errors.Is(err, sys.ErrInUse) && before >= f.src.off+int64(len(g.data)) {
		// Unmapped for as long as it takes, if nobody holds it.
		var readmit func()
		if readmit, err = f.exclude(op, g); err == nil {
			f.freeRoom()
			if err = f.shrinkUnmapped(op, g, int64(len(g.data)), cut); f.cur.Load() == g {
				readmit()
			}
		}
	}
	switch {
	case errors.Is(err, errLost):
		return errors.Join(cause, err)
	case by() > 0:
		if err == nil {
			err = errAdded
		}
		return longer(op, f.src.name, cause, by(), err)
	}
	return cause
}

// longer adds to an error that the file could not be made as short again as it
// was.
func longer(op, path string, cause error, by int64, why error) error {
	more := fmt.Sprintf("; the file stays %d bytes longer than it was: %v", by, underlying(why))
	if le := (*LockError)(nil); errors.As(cause, &le) {
		if le.fact == "" {
			le.fact = le.Cause.String()
			if le.Err != nil {
				le.fact += ": " + le.Err.Error()
			}
		}
		le.fact += more
		return le
	}
	return &fs.PathError{Op: op, Path: path, Err: &alsoError{underlying(cause), more}}
}

// An alsoError is an error and what else went wrong because of it.
type alsoError struct {
	err  error
	also string
}

func (e *alsoError) Error() string { return e.err.Error() + e.also }
func (e *alsoError) Unwrap() error { return e.err }
