package mmapio

import (
	"errors"
	"fmt"
	"os"

	"github.com/mmapio/mmapio/internal/limits"
	"github.com/mmapio/mmapio/internal/sys"
)

// mapNew maps size bytes of the File's file, or of fresh memory, in address
// space of its own with room for at least reserve bytes.
func (f *File) mapNew(op string, size, reserve int64) (*generation, error) {
	if err := fits(op, f.src.name, max(size, reserve)); err != nil {
		return nil, err
	}
	e := &extent{src: f.src, gated: !sys.CanReserve || f.anonymous(), secret: f.anonymous() && f.opts.secret()}
	e.delta = int(f.src.off % int64(sys.PageSize()))
	e.base = int(f.src.off%int64(max(sys.Granularity(), f.src.huge))) - e.delta
	if size == 0 && reserve == 0 {
		return newMemory(e, 0).generation(0), nil
	}
	if err := idle.spare(func() error { return f.mapSpace(e, int(size), int(reserve)) }); err != nil {
		return nil, f.fail(op, noAddresses(err, max(size, reserve), f.src.fewHuge()))
	}
	return newMemory(e, int(size)).generation(int(size)), nil
}

// fit reports whether n bytes are an int, with room for what lies around them.
func fit(n int64) bool { return n <= int64(maxInt)-int64(4*sys.Granularity()) }

// fits refuses what is larger.
func fits(op, name string, n int64) error {
	if fit(n) {
		return nil
	}
	reason := tooLarge(n)
	if op != opAnonymous && op != "resize" {
		reason += "; map a part of the file with Offset and Length"
	}
	return &OptionError{Op: op, Path: name, Field: "Length", Reason: reason, Err: errors.ErrUnsupported}
}

// reservable looks whether the address space that the options ask for is to be
// had, before anything else is done.
func (o *Options) reservable(op, name string) error {
	if o.Reserve == 0 {
		return nil
	}
	err := idle.spare(func() error {
		s, err := sys.Reserve(int(o.Reserve))
		if err == nil {
			err = s.Free()
		}
		return err
	})
	if err != nil {
		return pathError(op, name, noAddresses(err, o.Reserve, ""))
	}
	return nil
}

// An addressError is why so many bytes could not be mapped.
type addressError struct {
	n   int64
	why string
	err error
}

func (e *addressError) Error() string {
	return fmt.Sprintf("%v: %d bytes of address space were asked for%s", e.err, e.n, e.why)
}

func (e *addressError) Unwrap() error { return e.err }

// fewHuge is what is likely where memory lacks for a file on hugetlbfs; "" for others.
func (s *source) fewHuge() string {
	if s.huge == 0 {
		return ""
	}
	return fmt.Sprintf(" in huge pages of %d bytes, of which too few may be set aside (vm.nr_hugepages)", s.huge)
}

// noAddresses has the errno say what was asked for, and which limit is in the way, if
// one is; otherwise is what to say if none is.
func noAddresses(err error, n int64, otherwise string) error {
	if !isNoMemory(err) {
		return err
	}
	e := &addressError{n: n, why: otherwise, err: err}
	if inUse, limit, err := limits.MapCount(); err == nil && inUse > limit-8 {
		e.why = fmt.Sprintf(", and the process has %d of the %d mappings that vm.max_map_count allows", min(inUse, limit), limit)
	} else if limit, err := limits.AddressSpace(); err == nil && limit != limits.None {
		e.why = fmt.Sprintf(", and RLIMIT_AS (ulimit -v) is %d", limit)
	}
	return e
}

func (f *File) anonymous() bool { return f.src.info == nil }

// mapSpace gives e its space and maps n bytes into it.
func (f *File) mapSpace(e *extent, n, reserve int) (err error) {
	lead := e.base + e.delta
	room := f.hugeRoom(max(n, reserve))
	switch {
	case f.anonymous():
		// A page that cannot be touched lies on both sides, but for the heap.
		guard := sys.PageSize() + room
		e.space, err = sys.Reserve(guard + pageUp(e.delta+max(n, reserve)) + guard)
		if errors.Is(err, errors.ErrUnsupported) {
			e.space, err = sys.MapAnon(n)
			break
		}
		if err == nil {
			e.base = sys.PageSize()
			e.base += toHuge(e.space.Addr()+uintptr(e.base), 0, room)
			if n > 0 {
				err = e.space.PlaceAnon(e.base, e.delta+n)
			}
		}
	case reserve > n || room > 0:
		if f.src.huge > 0 {
			room = f.src.huge // it cannot begin elsewhere
		}
		if e.space, err = sys.Reserve(f.src.whole(lead+max(n, reserve)) + room); err == nil {
			start := f.src.off - int64(lead)
			at := toHuge(e.space.Addr(), start, room)
			e.base += at
			if n > 0 {
				err = e.space.Place(f.src.file, start, at, f.src.whole(lead+n), f.src.mode.access())
			}
		}
	default:
		e.space, err = sys.MapFileIn(&f.room, f.src.file, f.src.off-int64(lead), f.src.whole(lead+n), f.src.mode.access())
	}
	if err == nil && n > 0 {
		at, length := e.base, e.delta+n
		if f.src.huge > 0 { // there is no advice for less than a page
			at, length = at+e.delta-lead, f.src.whole(lead+n)
		}
		err = f.adviseNew(e, at, length)
	}
	if err != nil && e.space != nil {
		e.space.Free() //nolint:errcheck // the first error counts
		e.space = nil
	}
	return err
}

// whole rounds a length up to whole pages of a file that has only huge ones: so
// much the kernel maps, and less cannot be unmapped.
func (s *source) whole(n int) int {
	if s.huge > 0 {
		n = (n + s.huge - 1) &^ (s.huge - 1)
	}
	return n
}

// hugeRoom is how much more address space a mapping of n bytes needs in order to
// begin where huge pages can map it.
func (f *File) hugeRoom(n int) int {
	if !f.opts.HugePages || !sys.CanReserve || n < sys.HugePage() {
		return 0
	}
	return sys.HugePage()
}

// toHuge returns how far behind an address a mapping from start on has to begin:
// the address and the offset in the file must be alike within a huge page. room
// is the size of that, or 0.
func toHuge(addr uintptr, start int64, room int) int {
	if room == 0 {
		return 0
	}
	return int((uint64(start) - uint64(addr)) & uint64(room-1))
}

// adviseNew applies what the options say about pages to ones just mapped.
func (f *File) adviseNew(e *extent, at, n int) error {
	if f.opts.NoDump {
		if err := e.space.Advise(at, n, sys.NoDump); err != nil {
			return err
		}
	}
	if f.opts.NoFork {
		if err := e.space.Advise(at, n, sys.NoFork); err != nil {
			return err
		}
	}
	f.readvise(e, at-e.base, n)
	return nil
}

// ensureSize makes a file at least size bytes long and, unless sparse, sees to
// it that each of them has a disk block. On error the file has its old size. It
// returns how long the file was right before it became longer, see sys.Allocate.
func ensureSize(file *os.File, before, size int64, sparse bool) (was int64, err error) {
	if !sparse {
		return allocate(file, before, 0, size)
	}
	info, err := file.Stat()
	if err != nil {
		return before, err
	}
	if was = info.Size(); was >= size {
		return was, nil
	}
	sys.AllowHoles(file)
	return was, cannotGrow(file.Truncate(size), was, size, true)
}

// writeZeroes is how much is written where blocks cannot be reserved.
const writeZeroes = 64 << 20

// allocate gives the bytes [from, size) blocks. before is the present length. It
// returns what ensureSize does.
func allocate(file *os.File, before, from, size int64) (was int64, err error) {
	if from >= size {
		return before, nil
	}
	was, err = sys.Allocate(file, from, size-from)
	if errors.Is(err, errors.ErrUnsupported) && from < before && before < size {
		was, err = sys.Allocate(file, before, size-before) // it may be old holes alone that cannot be filled
	}
	if errors.Is(err, errors.ErrUnsupported) {
		switch {
		case size <= before:
			return before, nil // old holes stay: there is no way to fill them
		case size-before > writeZeroes:
			was, err = before, errNoReserve
		default:
			was, err = zeroFill(file, before, size)
		}
	}
	if err != nil {
		was = before
	}
	return was, cannotGrow(err, before, size, false)
}

// cannotGrow has an error of the system say what was asked of it.
func cannotGrow(err error, before, after int64, sparse bool) error {
	if err == nil || errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return &growError{before, after, sparse, underlying(err)}
}

// A growError is why a file cannot have some length, or blocks for it.
type growError struct {
	before, after int64
	sparse        bool
	err           error
}

func (e *growError) Error() string {
	s := fmt.Sprintf("%v: the file has %d bytes and was to have %d", e.err, e.before, e.after)
	if e.after <= e.before {
		s = fmt.Sprintf("%v: each of %d bytes was to have a block", e.err, e.after)
	}
	if errors.Is(e.err, sys.ErrNoSpace) && !e.sparse {
		s += "; free as much, or set Options.Sparse, which takes blocks when bytes are stored"
	}
	return s
}

func (e *growError) Unwrap() error { return e.err }

var errNoReserve error = &sentinel{
	"the file system cannot reserve disk blocks, so a full disk would be a fault; set Options.Sparse to accept that",
	errors.ErrUnsupported,
}

// zeroFill makes a file of length before that of to by zeroes at its end, and never
// goes over what others add meanwhile. On error the file has its old length, unless
// they did. It returns where they have come to, or before.
func zeroFill(file *os.File, before, to int64) (was int64, err error) {
	buf := make([]byte, min(to-before, 1<<20))
	was = before
	for size := before; ; {
		info, err := file.Stat()
		if err != nil {
			return was, err
		}
		now := info.Size()
		if now != size {
			was = now
		}
		if now >= to {
			return was, nil
		}
		n, err := sys.Append(file, buf[:min(int64(len(buf)), to-now)], now)
		if size = now + int64(n); err != nil {
			cutBack(file, was, size) //nolint:errcheck // the first error counts
			return was, err
		}
	}
}
