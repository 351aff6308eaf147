package mmapio

import "time"

// MayStall turns bringing in by system calls off until restore is called.
func MayStall() (restore func()) {
	old := mayStall
	mayStall = true
	return func() { mayStall = old }
}

// KnownFor changes how long pages of Files opened from now on are known.
func KnownFor(resident, writable time.Duration) (restore func()) {
	r, w := residentFor, writableFor
	residentFor, writableFor = resident, writable
	return func() { residentFor, writableFor = r, w }
}

// WhenFound has do called when pages were found in memory, right before they are
// known, until restore is called.
func WhenFound(do func()) (restore func()) {
	old := whenFound
	whenFound = do
	return func() { whenFound = old }
}

// Expire is what the timers do.
func (f *File) Expire() {
	m := f.cur.Load().mem
	m.resident.Expire()
	m.writable.Expire()
}

// Known says whether n bytes may be loaded, and stored to, without a system
// call, as far as f knows.
func (f *File) Known(off int64, n int) (load, store bool) {
	m := f.cur.Load().mem
	return m.loadable(off, n) || n > 0 && m.locked(m.pageRange(off, n)), m.storable(off, n)
}
