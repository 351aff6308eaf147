package mmapio

import (
	"runtime"
	"runtime/debug"

	"github.com/mmapio/mmapio/internal/fault"
	"github.com/mmapio/mmapio/internal/gate"
	"github.com/mmapio/mmapio/internal/page"
)

// View calls fn with n bytes of the mapping, from offset off, without copying
// them. b is valid until fn returns and must not be kept; cap(b) == len(b). With
// n == 0, fn gets an empty slice. The error of fn comes back as it is.
//
// A range of up to Options.Prefault bytes is brought into memory before fn is
// called, by a system call that no other goroutine waits for. A page that cannot
// be had is then a [FaultError], and fn is not called, unless the page was in
// memory within the last second: then fn meets the fault.
//
// A fault on this File's memory inside fn ends fn and is returned as a
// [FaultError]; see [Guard] for what no guard can catch. Other panics go on.
// The memory stays mapped while fn runs, whatever Close and Resize do: Close
// does not wait for fn, and making the File smaller is ErrBusy. fn may call
// every method of the File. To store through b faults unless the File is
// CopyOnWrite or ReadWrite, where Update should be used.
func (f *File) View(off, n int64, fn func(b []byte) error) error {
	return f.lend("view", off, n, fn, nil)
}

// Update is View for storing: fn may change b. The range is brought in for
// loading only, so what fn does not store to takes no disk block and need not be
// written. (Holes of a file on a tmpfs take memory, where they cannot be told: with
// DropFD, below an overlay, before Linux 6.5.) ReadOnly: ErrReadOnly.
func (f *File) Update(off, n int64, fn func(b []byte) error) error {
	if f.src.mode == ReadOnly {
		if _, err := f.now("update", 0); err != nil {
			return err
		}
		return f.fail("update", ErrReadOnly)
	}
	if f.policy != nil {
		return f.update(off, n, fn)
	}
	return f.lend("update", off, n, fn, nil)
}

// lend calls fn, or pieces, which sees to it by itself that pages are there.
func (f *File) lend(op string, off, n int64, fn func(b []byte) error, pieces func(g *generation, b []byte) error) (err error) {
	g := f.cur.Load()
	pass, ok := g.mem.holders.Enter()
	// After a shrink in place the same gate is open again, but the generation
	// may be one of before.
	if !ok || f.cur.Load() != g || !page.InBounds(off, n, int64(len(g.data))) {
		if ok {
			pass.Leave()
		}
		if g, pass, err = f.enter(op, off, n); err != nil {
			return err
		}
	}
	if pieces == nil {
		if err := f.prefault(op, g, off, n); err != nil {
			pass.Leave()
			return err
		}
	}
	old, done := debug.SetPanicOnFault(true), false
	defer func() {
		debug.SetPanicOnFault(old)
		if done {
			pass.Leave()
		} else {
			err = g.mem.broken(recover(), op, off, pass)
			runtime.KeepAlive(g)
		}
	}()
	if b := g.data[off : off+n : off+n]; pieces == nil {
		err = fn(b)
	} else {
		err = pieces(g, b)
	}
	done = true
	runtime.KeepAlive(g)
	return err
}

// broken ends a call whose function did not return: because of a fault, of
// another panic, which goes on, or of runtime.Goexit, for which recover has
// nothing.
func (e *extent) broken(r any, op string, off int64, pass gate.Pass) error {
	defer pass.Leave()
	if r == nil {
		return nil
	}
	return e.caught(r, op, off)
}

// enter makes the caller a holder of the present generation. It waits for a
// change only where that keeps holders out.
func (f *File) enter(op string, off, n int64) (*generation, gate.Pass, error) {
	for try := 0; ; try++ {
		g, err := f.now(op, try)
		if err != nil {
			return nil, gate.Pass{}, err
		}
		pass, ok := f.inside(g, &g.mem.holders)
		if !ok {
			continue
		}
		err = f.within(op, g, off, n)
		if err != nil {
			pass.Leave()
		}
		return g, pass, err
	}
}

// Guard calls fn and turns a fault inside it on memory of any File (through a
// Region, a Value, a loop over Chunks) into a [FaultError]. Other panics go on, and
// an error of fn is returned as it is.
//
// A guard works for the goroutine that called it. Beyond it are goroutines that
// fn starts, C code, and the runtime's own accesses, such as sending a value
// from mapped memory on a channel or printing it with println: a fault there
// ends the program. So does one in an operation of sync/atomic, in a build with
// the race detector only, which does those in C. A system call that is given
// bad memory returns EFAULT.
//
// What fn defers runs before the guard hears of a fault. If it lets the memory go
// (Release, Close), the error says where the fault was, but hardly why.
func Guard(fn func() error) (err error) {
	defer fault.Unguarded(fault.Guarded())
	old, done := debug.SetPanicOnFault(true), false
	defer func() {
		debug.SetPanicOnFault(old)
		if done {
			return
		}
		r := recover()
		if r == nil {
			return
		}
		if x, ok := r.(explained); ok {
			err = x.err
			return
		}
		if addr, ok := fault.Addr(r); ok {
			if a := fault.Find(addr); a != nil {
				err = a.Owner.(*extent).faultNear("guard", addr, -1)
				return
			}
		}
		panic(r)
	}()
	err = fn()
	done = true
	return err
}
