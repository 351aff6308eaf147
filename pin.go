package mmapio

import (
	"context"

	"github.com/mmapio/mmapio/internal/lockset"
)

// A Pin keeps the pages of a range in RAM until it is released. Pins are
// counted: each keeps its pages whatever happens to other pins, and whatever
// Lock and Unlock do.
type Pin struct {
	f    *File
	in   *lockset.Set // the books that it stands in, nil once released; Close opens new ones
	mark lockset.Pin
}

// Pin brings the pages that hold [off, off+n) into RAM and keeps them there
// until Release or Close. To pin what is locked or pinned already makes no
// system call. Errors are as with Lock. A Pin that is never released ends with
// its File; what a shrink cuts off is no longer pinned.
func (f *File) Pin(off, n int64) (*Pin, error) {
	const op = "pin"
	p := &Pin{f: f}
	if f.lockBeside(off, n, p) {
		return p, nil
	}
	l := &f.locks
	l.mu.Lock()
	g, lo, hi, err := f.lockRange(op, off, n)
	if err == nil && n == 0 {
		err = f.within(op, g, off, n)
	}
	held := err == nil && l.set.Covered(lo, hi, lockset.Now)
	if held {
		l.want(lo, hi, p)
	} else if err == nil {
		p.mark, held, err = f.lockFew(&lockCall{op: op, off: off, n: n, level: lockset.Now}, g, lo, hi)
		p.in = l.set
	}
	l.mu.Unlock()
	if held {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	call := lockCall{op: op, off: off, n: n, level: lockset.Now}
	err = f.lockWindows(context.Background(), &call, func(lo, hi int64) { l.want(lo, hi, p) })
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Release lets the pages go, unless something else keeps them. It may be called
// more than once, from any goroutine, after Resize and after Close; the error
// is nil.
func (p *Pin) Release() error {
	l := &p.f.locks
	l.mu.LockBeside()
	if l.set != p.in {
		l.mu.Unlock()
		return nil // released already, or the File was closed and the lock went with it
	}
	p.in = nil
	lo, hi := p.mark.Range()
	l.set.Unpin(p.mark)
	p.f.letGoBeside(lo, hi)
	return nil
}
