package mmapio

import (
	"cmp"
	"io"
	"io/fs"
	"runtime"

	"github.com/mmapio/mmapio/internal/fault"
	"github.com/mmapio/mmapio/internal/gate"
	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

// ReadAt copies len(p) bytes from offset off into p, as io.ReaderAt asks: it
// returns io.EOF with fewer bytes at the end, and for any off >= Size(). A
// negative off is a [RangeError]. A page that cannot be read is a
// [FaultError]; n then counts the bytes before it, which are in p.
//
// A cursor is io.NewSectionReader(f, 0, f.Size()).
func (f *File) ReadAt(p []byte, off int64) (n int, err error) {
	g := f.cur.Load()
	if g.has(off, len(p)) && !g.mem.gated && g.mem.loadable(off, len(p)) && !g.mem.lent(fault.Start(p)) {
		ok := fault.Copy(p, g.data[off:off+int64(len(p))], g.mem.area.Lo, g.mem.area.Hi)
		runtime.KeepAlive(g)
		if ok {
			return len(p), nil
		}
	}
	return f.readAt(p, off)
}

// has reports whether the generation has n > 0 bytes at off.
func (g *generation) has(off int64, n int) bool {
	return n > 0 && off >= 0 && off <= int64(len(g.data)-n)
}

func (f *File) readAt(p []byte, off int64) (int, error) {
	const op = "readat"
	// Without the lock that all who come here would pass on to each other.
	if g := f.cur.Load(); g.has(off, len(p)) && f.readCold(g, p, off) {
		return len(p), nil
	}
	for try := 0; ; try++ {
		g, err := f.now(op, try)
		if err != nil {
			return 0, err
		}
		size := int64(len(g.data))
		if off < 0 {
			return 0, &RangeError{Op: op, Path: f.src.name, Off: off, Len: int64(len(p)), Size: size}
		}
		if off >= size {
			return 0, io.EOF
		}
		want := p[:min(int64(len(p)), size-off)]
		n, err := f.copyOver(op, g, want, g.data[off:off+int64(len(want))], off)
		switch {
		case err == errMoved: //nolint:errorlint // never wrapped
			continue
		case err == nil && n < len(p):
			err = io.EOF
		}
		return n, err
	}
}

// WriteAt copies p to offset off, as io.WriterAt asks. It never makes the file
// longer: if not all of p fits it is a [RangeError] and nothing is written, but
// what n counts if the File was made smaller meanwhile. A page that cannot be
// stored to is a [FaultError]; n then counts the bytes before it, which are
// written. ReadOnly: ErrReadOnly.
func (f *File) WriteAt(p []byte, off int64) (n int, err error) {
	g := f.cur.Load()
	if f.src.mode != ReadOnly && g.has(off, len(p)) && !g.mem.gated && g.mem.storable(off, len(p)) && !g.mem.lent(fault.Start(p)) {
		ok := fault.Copy(g.data[off:off+int64(len(p))], p, g.mem.area.Lo, g.mem.area.Hi)
		runtime.KeepAlive(g)
		if ok && f.policy != nil {
			return len(p), f.wrote("writeat", int64(len(p)), 1)
		}
		if ok {
			return len(p), nil
		}
	}
	return f.writeAt(p, off)
}

func (f *File) writeAt(p []byte, off int64) (int, error) {
	const op = "writeat"
	n := 0 // also of tries that a change has broken off
	for try := 0; ; try++ {
		g, err := f.now(op, try)
		if err == nil {
			err = f.writable(op)
		}
		if err == nil {
			if err = f.within(op, g, off, int64(len(p))); err != nil {
				n = int(min(int64(n), max(int64(len(g.data))-off, 0))) // the rest was cut off
			}
		}
		if err == nil {
			var now int
			now, err = f.copyOver(op, g, g.data[off:off+int64(len(p))], p, off)
			if err == errMoved { //nolint:errorlint // never wrapped
				n = max(n, now)
				continue
			}
			n = now
		}
		if n > 0 {
			err = f.also(err, op, int64(n), 1)
		}
		return n, err
	}
}

// errMoved asks for another try: the generation is no longer the File's.
var errMoved error = &sentinel{"the mapping has moved", fs.ErrClosed}

// copyOver copies between the caller's bytes and the generation's at off. The
// caller's may be the File's, too, lent by View, Update or Region.
func (f *File) copyOver(op string, g *generation, dst, src []byte, off int64) (n int, err error) {
	defer runtime.KeepAlive(g)
	if g.mem.gated {
		pass, ok := f.inside(g, &g.mem.copiers)
		if !ok {
			return 0, errMoved
		}
		defer pass.Leave()
	}
	store, theirs := op == "writeat", &dst
	if store {
		theirs = &src
	}
	if first := fault.Start(*theirs); g.mem.lent(first) && !g.mem.contains(first) {
		if same := g.sameBytes(*theirs); same != nil {
			// They keep the extent that they are from, but not this one.
			pass, ok := f.inside(g, &g.mem.holders)
			if !ok {
				return 0, errMoved
			}
			defer pass.Leave()
			*theirs = same
		}
	}
	if g.mem.contains(fault.Start(*theirs)) && overlap(dst, src) {
		return f.copyWithin(op, g, dst, src)
	}
	return f.copySteps(op, g, dst, src, off, store, g.mem.gated)
}

// inside enters a gate of a generation, if that is still the File's.
func (f *File) inside(g *generation, in *gate.Gate) (pass gate.Pass, ok bool) {
	if pass, ok = in.Enter(); ok && f.cur.Load() != g {
		pass.Leave()
		ok = false
	}
	return pass, ok
}

// sameBytes returns those of the generation that b shows, which an earlier one has
// lent; nil if none has.
func (g *generation) sameBytes(b []byte) []byte {
	a := fault.Find(fault.Start(b))
	if a == nil {
		return nil
	}
	e := a.Owner.(*extent)
	off := e.offset(fault.Start(b))
	if e.src != g.mem.src || !g.has(off, len(b)) {
		return nil
	}
	return g.data[off : off+int64(len(b))]
}

// overlap reports whether two slices of the same length have a byte in common.
func overlap(a, b []byte) bool {
	x, y := fault.Start(a), fault.Start(b)
	return x-y < uintptr(len(b)) || y-x < uintptr(len(a))
}

// asideStep is how much at once copyWithin puts aside.
const asideStep = 256 << 10

// copyWithin copies where the caller's bytes are the generation's and overlap the
// others. What is stored is what all of them were before, as with the built-in
// copy, so it goes from the end if the bytes are moved towards it. Each step puts
// them aside first: one that was broken off half-way can be repeated then.
func (f *File) copyWithin(op string, g *generation, dst, src []byte) (n int, err error) {
	to, from := g.mem.offset(fault.Start(dst)), g.mem.offset(fault.Start(src))
	aside := make([]byte, min(len(dst), asideStep))
	step := func(lo, hi int) (int, error) {
		b := aside[:hi-lo]
		n, bad := f.copySteps(op, g, b, src[lo:hi], from+int64(lo), false, true)
		n, err := f.copySteps(op, g, dst[lo:lo+n], b[:n], to+int64(lo), true, true)
		return n, cmp.Or(err, bad)
	}
	if to < from {
		for n < len(dst) && err == nil {
			var k int
			k, err = step(n, min(len(dst), n+len(aside)))
			n += k
		}
		return n, err
	}
	// The first error is the last to be found.
	n = len(dst)
	for hi := len(dst); hi > 0; {
		lo := max(0, hi-len(aside))
		if k, bad := step(lo, hi); bad != nil {
			n, err = lo+k, bad
		}
		hi = lo
	}
	return n, err
}

// copySteps copies step by step, and page by page once something is wrong, so that
// n says how far it got. The generation's bytes, at off, are dst if store is set.
// held says that they are not taken away meanwhile.
func (f *File) copySteps(op string, g *generation, dst, src []byte, off int64, store, held bool) (n int, err error) {
	end, careful := off+int64(len(dst)), off // up to careful it goes by pages
	for n < len(dst) {
		if n > 0 && !held && f.cur.Load() == closedGeneration {
			return n, f.fail(op, fs.ErrClosed) // somebody holds the memory, so no fault tells
		}
		at := off + int64(n)
		step := g.mem.step(at, end, bringStep)
		if at < careful {
			step = g.mem.pageStep(at, end)
		}
		bad := f.ready(g, at, step, toCopy(store))
		if bad == nil && fault.Copy(dst[n:n+step], src[n:n+step], g.mem.area.Lo, g.mem.area.Hi) {
			n += step
			continue
		}
		if !held {
			if err := f.stillThere(op, g); err != nil {
				return n, err
			}
		}
		if at >= careful {
			careful = at + int64(step)
			continue
		}
		if !store && f.readPast(g, dst[n:n+step], at) {
			n += step
			continue
		}
		if bad != nil {
			return n, g.mem.faultOf(op, at, bad, store)
		}
		return n, g.mem.faultBetween(op, at, dst[n:n+step], src[n:n+step], store)
	}
	return n, nil
}

// faultBetween makes the error for a copy to or from off that has faulted. The
// caller's side may be memory of this File too, lent by View or Update, and
// then that may be what is bad.
func (e *extent) faultBetween(op string, off int64, dst, src []byte, store bool) *FaultError {
	theirs := dst
	if store {
		theirs = src
	}
	at, bad := fault.Bad(src, sys.PageSize())
	if !bad {
		at = fault.Start(dst) // so it was the store that failed
	}
	if first := fault.Start(theirs); bad == store && e.contains(first) {
		return e.faultAt(op, e.offset(at), !bad)
	}
	return e.faultAt(op, off, store)
}

// stillThere is asked after a fault. Whoever took the memory away has it done
// by the time that current answers, and then nothing is wrong with the file.
// From a copier that has entered a gate, or that copies memory which somebody
// holds, nothing is taken away, and it must not wait for those who wait for it.
func (f *File) stillThere(op string, g *generation) error {
	now, err := f.current(op)
	if err == nil && now != g {
		err = errMoved
	}
	return err
}

func (f *File) writable(op string) error {
	if f.src.mode == ReadOnly {
		return f.fail(op, ErrReadOnly)
	}
	return nil
}

// within checks a range against the generation's bytes.
func (f *File) within(op string, g *generation, off, n int64) error {
	if page.InBounds(off, n, int64(len(g.data))) {
		return nil
	}
	return &RangeError{Op: op, Path: f.src.name, Off: off, Len: n, Size: int64(len(g.data))}
}
