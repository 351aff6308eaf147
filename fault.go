package mmapio

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/mmapio/mmapio/internal/fault"
	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

// caught turns what was recovered in a call on [off, …) into an error if it is
// a fault on the File's memory, and panics on with it if not.
func (e *extent) caught(r any, op string, off int64) error {
	if addr, ok := fault.Addr(r); ok {
		if e.contains(addr) {
			return e.faultNear(op, addr, off)
		}
		// Memory of another generation of the same File.
		if a := fault.Find(addr); a != nil && a.Owner.(*extent).src == e.src {
			return a.Owner.(*extent).faultNear(op, addr, -1)
		}
	}
	panic(r)
}

// An explained fault is the panic of one in the body of a loop, with the error that
// Guard makes of it. When Guard catches it the loop has let go of the memory, which
// may be gone by then, if the body has closed the File.
type explained struct {
	fault.Fault
	err *FaultError
}

// explained returns what a loop panics on with.
func (e *extent) explained(r any) any {
	if m, ok := r.(fault.Fault); ok && e.contains(m.Addr()) {
		if _, ok := r.(explained); !ok {
			return explained{m, e.faultNear("guard", m.Addr(), -1)}
		}
	}
	return r
}

// probes bounds how many pages are tried to find the first bad one.
const probes = 1 << 16

// faultNear makes the error for a fault at addr. The address alone does not
// say which page was bad first: copying may start from the end. from is where
// the call's range starts, -1 if that is not known.
func (e *extent) faultNear(op string, addr uintptr, from int64) *FaultError {
	ps := int64(sys.PageSize())
	// In pages of the file: delta bytes before the first mapped byte.
	bad := page.Down(e.offset(addr)+int64(e.delta), ps)
	e.mu.Lock()
	gone := e.gone
	e.mu.Unlock()
	if gone {
		// It was let go, before it was touched or as the panic passed: all pages look
		// bad, and that the file can be read there says nothing.
		fe := e.faultAt(op, bad-int64(e.delta), false)
		if unexplained(fe.Err) {
			fe.Err = errLetGo
		}
		return fe
	}
	if size, known := e.src.size(); known {
		end, _ := page.Up(max(0, size-e.src.off+int64(e.delta)), ps)
		if bad >= end {
			// All pages from the end of the file on are bad; those before it
			// that the call covers can only be so for another reason. (What
			// faulted may lie before the call's range, in that of an outer one.)
			if from >= 0 {
				end = max(end, min(bad, page.Down(from+int64(e.delta), ps)))
			}
			return e.faultAt(op, end-int64(e.delta), false)
		}
	}
	store := e.loads(bad)
	switch {
	case store:
		// It can be loaded, so it was a store that failed: this one.
	case from >= 0:
		bad = e.firstUnloadable(max(page.Down(from+int64(e.delta), ps), bad-probes*ps), bad)
	default:
		for p := bad - ps; p >= max(0, bad-probes*ps) && !e.loads(p); p -= ps {
			bad = p
		}
	}
	return e.faultAt(op, bad-int64(e.delta), store)
}

// firstUnloadable returns the first page of [lo, hi) that cannot be loaded, or hi.
// Few of them need be in memory, so that many may have to be read.
func (e *extent) firstUnloadable(lo, hi int64) int64 {
	for lo < hi {
		end := min(hi, lo&^(bringStep-1)+bringStep)
		if !mayStall {
			e.readExactly(int(lo>>pageShift), int(end>>pageShift)-1)
			if e.space.Populate(e.base+int(lo), int(end-lo), false) == nil {
				lo = end
				continue
			}
		}
		for ; lo < end; lo += int64(sys.PageSize()) {
			if !e.loads(lo) {
				return lo
			}
		}
	}
	return hi
}

// earlier returns the first bad byte from from on, where a page of off is bad. What
// had been seen in memory a moment ago was not asked for, and may be gone as well.
func (e *extent) earlier(from, off int64) int64 {
	ps, delta := int64(sys.PageSize()), int64(e.delta)
	bad := page.Down(off+delta, ps)
	for p := max(page.Down(from+delta, ps), bad-probes*ps); p < bad; p += ps {
		at := int(p >> pageShift)
		seen := e.resident.Has(at, at)
		if !seen {
			_, seen = e.resident.Were(at)
		}
		if seen && !e.loads(p) {
			return max(from, p-delta)
		}
	}
	return off
}

// loads tries a page, given by its distance from base: by a system call, since a
// disk may take long to fail, and itself where that does not tell.
func (e *extent) loads(at int64) bool {
	if !mayStall {
		switch err := e.space.Populate(e.base+int(at), sys.PageSize(), false); {
		case err == nil:
			return true
		case errors.Is(err, sys.ErrUnreadable), errors.Is(err, sys.ErrPoisoned):
			return false
		}
	}
	return fault.Loads(&e.space.Bytes(e.base+int(at), 1)[0])
}

// faultIn makes the error for an access to n bytes at off that faulted: the
// first page that cannot be loaded, or, if it was a store that failed, the
// first.
func (e *extent) faultIn(op string, off, n int64, store bool) *FaultError {
	ps := int64(sys.PageSize())
	for p := page.Down(off+int64(e.delta), ps); p < off+int64(e.delta)+n; p += ps {
		if !e.loads(p) {
			return e.faultAt(op, p-int64(e.delta), store)
		}
	}
	return e.faultAt(op, off, store)
}

// faultAt makes the error for a page that is known to be bad, finding the
// reason by looking. off is a byte in it; store says that loading works.
func (e *extent) faultAt(op string, off int64, store bool) *FaultError {
	ps := int64(sys.PageSize())
	first := max(page.Down(off+int64(e.delta), ps)-int64(e.delta), 0)
	fe := &FaultError{Op: op, Path: e.src.name, Off: first}
	if at := off + int64(e.delta); at < 0 || at >= e.mapped.Load() {
		fe.Off = off
		fe.Err = errOutside
	} else {
		fe.Err = e.src.why(first, store)
	}
	fe.FileOff = fe.Off
	if e.src.info != nil {
		fe.FileOff += e.src.off
	}
	return fe
}

var (
	errUnknownFault = errors.New("the page cannot be had, and without a descriptor of the file the reason cannot be found")
	errEOF          = io.ErrUnexpectedEOF
	errOutside      = errors.New("the address is outside of the mapped bytes")
	errLetGo        = errors.New("the memory was let go of before the reason could be found")
	errNoReason     = errors.New("the page cannot be had, though the file can be read there")
)

// unexplained reports whether why found nothing.
func unexplained(why error) bool {
	return errors.Is(why, errNoReason) || errors.Is(why, errUnknownFault)
}

// size asks for the present size of the file, by name once its descriptor is
// closed.
func (s *source) size() (size int64, known bool) {
	if s.info == nil {
		return 0, false
	}
	if s.file != nil {
		if info, err := s.file.Stat(); err == nil {
			return info.Size(), true
		}
	}
	if info, err := os.Stat(s.name); err == nil && s.same(info) {
		return info.Size(), true
	}
	return 0, false
}

// why finds the reason that the page of a byte is bad.
func (s *source) why(off int64, store bool) error {
	at := s.off + off
	at -= at % int64(sys.PageSize())
	if size, known := s.size(); known && at >= size {
		return io.ErrUnexpectedEOF
	}
	if s.mode == ReadOnly && store {
		return ErrReadOnly
	}
	return s.look(func(f *os.File) error {
		var b [1]byte
		if _, err := sys.ReadAt(f, b[:], at); errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		} else if err != nil && !errors.Is(err, sys.ErrUnsupported) {
			return underlying(err)
		}
		left, limited := sys.MemoryLeft(f)
		switch {
		case limited && left == 0:
			return sys.ErrNoSpace
		case s.mode != ReadWrite:
		case f == s.file:
			// Asks for a block for this page; the size stays. If there is one by
			// now, it was still for want of it that a store failed, on a full disk.
			lacking, err := sys.Probe(f, at, int64(sys.PageSize()))
			if err != nil {
				return err
			}
			if store && lacking {
				return sys.ErrNoSpace
			}
		case store:
			return errUnknownFault // without a right to write there is no asking
		}
		return errNoReason
	})
}

// look calls fn with the file: by name and to be read only once the descriptor
// is closed, or where it is not to be read by. errUnknownFault says that the file
// is not to be found so.
func (s *source) look(fn func(f *os.File) error) error {
	if s.readable() {
		if err := fn(s.file); !errors.Is(err, os.ErrClosed) {
			return err
		}
	}
	// What has the name now may be a device, which must not be opened.
	info, err := os.Stat(s.name)
	if err != nil || !s.same(info) {
		return errUnknownFault
	}
	f, err := os.OpenFile(s.name, os.O_RDONLY|sys.OpenFlags, 0)
	if err != nil {
		return errUnknownFault
	}
	defer f.Close() //nolint:errcheck // only read from
	if info, err = f.Stat(); err != nil || !s.same(info) {
		return errUnknownFault
	}
	return fn(f)
}

// same reports whether it is the file that was mapped.
func (s *source) same(info fs.FileInfo) bool { return s.info != nil && os.SameFile(info, s.info) }

// underlying takes the name and the call off an error: the caller adds its own.
func underlying(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	var se *os.SyscallError
	if errors.As(err, &se) {
		err = se.Err
	}
	return err
}
