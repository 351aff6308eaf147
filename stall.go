package mmapio

import (
	"cmp"
	"errors"
	"os"
	"runtime"
	"strings"

	"github.com/mmapio/mmapio/internal/sys"
)

// A page fault in Go code holds the processor that the goroutine runs on until
// the disk has answered: no other goroutine runs there, no timer, and the
// collector cannot stop the world. A system call does not. So what is about to
// be touched and is not known to be in memory is brought in by a system call
// first; see docs/scheduler.md.

// prefaultDefault is the Prefault of Options that say nothing.
const prefaultDefault = 1 << 20

// bringStep bounds what one system call brings in for a call that then touches
// it: so much should still be there by then.
const bringStep = 1 << 20

// mayStall turns the whole mechanism off, so that tests and benchmarks can show
// what it is for. It is always set where nothing faults.
var mayStall = !sys.Faults || debugWord("nopopulate")

// debugWord reports whether MMAPIO_DEBUG, a list of words, has the word.
func debugWord(word string) bool {
	for _, w := range strings.Split(os.Getenv("MMAPIO_DEBUG"), ",") {
		if w == word {
			return true
		}
	}
	return false
}

// A purpose is what is about to be done to memory.
type purpose int8

const (
	toLoad  purpose = iota // all of it
	toStore                // to all of it
	toLend                 // whatever somebody else likes
)

func toCopy(store bool) purpose {
	if store {
		return toStore
	}
	return toLoad
}

// ready brings in what is not known to be there of n bytes at off. The caller has
// made sure that the memory is not taken away, or asks stillThere after an error.
// The error is bare, and about any of the pages.
func (f *File) ready(g *generation, off int64, n int, why purpose) error {
	e := g.mem.extent
	if n == 0 || mayStall {
		return nil
	}
	set, store := &e.resident, why == toStore
	if store {
		set = &e.writable
	}
	lo, last := e.pageRange(off, n)
	if lo, last = set.Missing(lo, last); lo > last {
		return nil
	}
	if !store && e.stillIn(lo, last) {
		return nil
	}
	ps, before := sys.PageSize(), e.shrinks.Load()
	err := sys.ErrUnsupported
	at, size := e.base+lo*ps, (last-lo+1)*ps
	switch {
	case f.anonymous() && !store:
		err = e.swapIn(at, size)
	case why == toLend && e.src.file != nil && e.src.readsOf() == sys.ReadsMemory:
		if err = e.bringStored(lo, last, before); err == nil {
			return nil
		}
	case store:
		f.awaitWriteBack(g, lo, last)
	}
	if errors.Is(err, sys.ErrUnsupported) {
		e.readExactly(lo, last)
		err = e.populateWaiting(lo, last, store)
	}
	if errors.Is(err, sys.ErrUnsupported) {
		if f.anonymous() {
			err = nil // to be touched is all that can be done for it
		} else {
			err = f.readOrTouch(g, int64(lo*ps), int64((last+1)*ps), false)
		}
		if errors.Is(err, os.ErrClosed) {
			err = nil // whoever touches the memory finds out
		}
	}
	if err != nil {
		return err
	}
	e.found(&e.resident, lo, last, before)
	if store {
		e.found(&e.writable, lo, last, before)
	}
	return nil
}

// awaitWriteBack waits for pages on their way to the disk, where a store to them
// would have to, without the lock of the address space that populating holds.
func (f *File) awaitWriteBack(g *generation, lo, last int) {
	if f.syncer == nil || f.src.file == nil {
		return
	}
	ps := sys.PageSize()
	at := f.src.off + int64(lo*ps-g.mem.delta)
	// An error would have been told to the next Sync, which now has it from here.
	f.syncer.aside.RLock()
	defer f.syncer.aside.RUnlock()
	f.syncer.remember(false, sys.AwaitFlush(f.src.file, at, int64((last-lo+1)*ps))) //nolint:errcheck // as said
}

// bringStored brings in pages of a file that is kept in memory, but for holes:
// those have no disk to wait for, and a load would give them memory, if there is
// any. So they are not known to be there either.
func (e *extent) bringStored(lo, last int, shrinks int64) error {
	if e.src.mode == CopyOnWrite {
		if err := e.swapIn(e.base+lo<<pageShift, (last-lo+1)<<pageShift); err != nil {
			return err
		}
	}
	start := e.src.off - int64(e.delta)
	from, n := start+int64(lo)<<pageShift, int64(last-lo+1)<<pageShift
	var first error
	sum := int64(0)
	err := sys.StoredRuns(e.src.file, from, n, func(lo, hi int64) {
		sum += hi - lo
		if first == nil {
			first = e.space.Populate(e.base+int(lo-start), int(hi-lo), false)
		}
		if first == nil {
			e.found(&e.resident, int((lo-start)>>pageShift), int((hi-start)>>pageShift)-1, shrinks)
		}
	})
	if err = cmp.Or(err, first); err == nil && sum < n {
		// What was cut off is no hole.
		if length, known := e.src.size(); known && from+n-int64(sys.PageSize()) >= length {
			err = sys.ErrUnreadable
		}
	}
	return err
}

// swapIn brings in what is in swap of memory with no file behind it. The rest
// has no disk to wait for, and to load it would give it memory where the kernel
// has no page of zeroes.
func (e *extent) swapIn(at, n int) error {
	var first error
	err := e.space.Copies(at, n, func(lo, hi int, present bool) {
		if !present && first == nil {
			first = e.space.Populate(lo, hi-lo, false)
		}
	})
	if errors.Is(err, sys.ErrUnsupported) {
		err = e.space.Populate(at, n, false)
	}
	return cmp.Or(err, first)
}

// aheadRequest is what one request to read ahead is about. The kernel reads no
// more at once than the read-ahead of the device, 128 KiB where nobody changed
// it.
const aheadRequest = 128 << 10

// readExactly asks the kernel to read pages that are about to be waited for.
// For a page that is missing at that time it would read a whole neighbourhood,
// and wait for that, which is right only where one page after the other is
// missed, and nothing was advised to be read at random: then it would read page by
// page. A wide range it would read piece by piece, each time waiting for the last.
func (e *extent) readExactly(lo, last int) {
	if next := e.missed.Swap(int64(last) + 1); e.src.info == nil || next == int64(lo) && !e.src.random.Load() {
		return
	}
	ps := sys.PageSize()
	for step := aheadRequest / ps; lo <= last; {
		end := min(last, lo/step*step+step-1)
		e.space.Advise(e.base+lo*ps, (end-lo+1)*ps, sys.WillNeed) //nolint:errcheck // a hint
		lo = end + 1
	}
}

// readyAll is ready for a call that has the memory held and names the first bad
// page. It takes steps, so that no call keeps the kernel for long.
func (f *File) readyAll(op string, g *generation, off, n int64, why purpose) error {
	from := off
	for end := off + n; off < end; {
		step := g.mem.step(off, end, bringStep)
		if err := f.ready(g, off, step, why); err != nil {
			return f.firstBad(op, g, from, off, step, why)
		}
		off += int64(step)
	}
	return nil
}

// step cuts a range at multiples of most, a power of two.
func (e *extent) step(off, end, most int64) int {
	at := off + int64(e.delta)
	return int(min(end-off, at&^(most-1)+most-at))
}

// firstBad finds the page that cannot be had, by asking for one after the
// other, in a call that began at from.
func (f *File) firstBad(op string, g *generation, from, off int64, n int, why purpose) error {
	for end := off + int64(n); off < end; {
		step := g.mem.pageStep(off, end)
		if err := f.ready(g, off, step, why); err != nil {
			return g.mem.faultOf(op, g.mem.earlier(from, off), err, false)
		}
		off += int64(step)
	}
	return nil // it can be had by now
}

// pageStep cuts a range at the edges of pages.
func (e *extent) pageStep(off, end int64) int {
	ps := int64(sys.PageSize())
	at := off + int64(e.delta)
	return int(min(end-off, at&^(ps-1)+ps-at))
}

// faultOf makes the error for a page that a system call could not bring in: the
// same as for a fault on it.
func (e *extent) faultOf(op string, off int64, err error, store bool) *FaultError {
	fe := e.faultAt(op, off, store)
	if !errors.Is(err, sys.ErrUnreadable) && unexplained(fe.Err) {
		fe.Err = err
	}
	return fe
}

// prefault is ready for a range that a holder is about to lend, if it is not
// too wide for that.
func (f *File) prefault(op string, g *generation, off, n int64) error {
	if n == 0 || n > f.wide || g.mem.loadable(off, int(n)) {
		return nil
	}
	err := f.readyAll(op, g, off, n, toLend)
	runtime.KeepAlive(g)
	return err
}
