package mmapio

import "github.com/mmapio/mmapio/internal/lockset"

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
	p := &Pin{f: f}
	if err := f.lockBytes("pin", off, n, false, p); err != nil {
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
