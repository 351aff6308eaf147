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
//
// The calls are those of Lock. On Linux preadv2(2) with RWF_NOWAIT tells of a page or
// two whether they are in the page cache, so that a load is enough.
func (f *File) Pin(off, n int64) (*Pin, error) {
	const op = "pin"
	p, unseen := f.pinBeside(off, n, false)
	if unseen && f.inCache(off, n) {
		p, _ = f.pinBeside(off, n, true)
	}
	if p != nil {
		return p, nil
	}
	l := &f.locks
	l.mu.Lock()
	g, lo, hi, err := f.lockRange(op, off, n)
	if err == nil && n == 0 {
		err = f.within(op, g, off, n)
	}
	held := err == nil && l.set.Covered(lo, hi, lockset.Now)
	var mark lockset.Pin
	if held {
		mark = l.set.Pin(lo, hi, lockset.Now)
	} else if err == nil {
		mark, held, err = f.lockFew(&lockCall{op: op, off: off, n: n, level: lockset.Now}, g, lo, hi)
	}
	set := l.set
	l.mu.Unlock()
	if held {
		return &Pin{f: f, in: set, mark: mark}, nil
	}
	if err != nil {
		return nil, err
	}
	p = &Pin{f: f}
	call := lockCall{op: op, off: off, n: n, level: lockset.Now}
	err = f.lockWindows(context.Background(), &call, func(lo, hi int64) {
		p.in, p.mark = l.set, l.set.Pin(lo, hi, lockset.Now)
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Release lets the pages go, unless something else keeps them. It may be called
// more than once, from any goroutine, after Resize and after Close; the error
// is nil.
func (p *Pin) Release() error {
	lo, hi := p.releaseBeside()
	if lo < hi {
		f, l := p.f, &p.f.locks
		l.mu.Lock()
		f.letGo(f.cur.Load(), lo, hi)
		l.mu.Unlock()
	}
	return nil
}
