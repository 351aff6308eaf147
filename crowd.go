package mmapio

import (
	"errors"
	"runtime"
	"sync/atomic"

	"github.com/mmapio/mmapio/internal/sys"
)

// waiting is how many reads of the process may be waiting for a disk.
var waiting atomic.Int64

// readWaiting reads from the file what is not known to be in memory.
//
// A system call that waits keeps its processor until the runtime's monitor sees
// that, after 20 µs or more. Where more reads wait than there are processors, that
// is what the others wait for. So there the kernel is asked to begin, which does not
// wait, and the others have their turn before this one waits: by then the pages may
// have come.
func (s *source) readWaiting(p []byte, at int64, reads sys.Reads) (int, error) {
	n := waiting.Add(1)
	defer waiting.Add(-1)
	if reads == sys.ReadsPages && s.crowd(n) {
		if n, _ := s.begin(p, at); n == len(p) {
			return n, nil
		}
	}
	return s.file.ReadAt(p, at)
}

// populateWaiting brings pages in that are not known to be in memory, given by their
// numbers in the extent. Of few pages each is asked for as by readWaiting: more are
// worth the wait.
func (e *extent) populateWaiting(lo, last int, store bool) error {
	n := waiting.Add(1)
	defer waiting.Add(-1)
	s, ps := e.src, sys.PageSize()
	if last-lo < 2 && s.file != nil && s.readsOf() == sys.ReadsPages && s.crowd(n) {
		var b [1]byte
		for p := lo; p <= last; p++ {
			if _, ok := s.begin(b[:], s.off-int64(e.delta)+int64(p*ps)); !ok {
				break
			}
		}
	}
	return e.space.Populate(e.base+lo*ps, (last-lo+1)*ps, store)
}

// crowd reports whether the processors are taken by n reads.
func (s *source) crowd(n int64) bool {
	return n > 1 && !s.waits.Load() && n > int64(runtime.GOMAXPROCS(0))
}

// begin has the kernel begin to read what of p is not in memory, and the others run.
// ok is false if that is not to be had.
func (s *source) begin(p []byte, at int64) (n int, ok bool) {
	failpoint("crowd") //nolint:errcheck // tests count
	n, ok = s.readAtOnce(p, at)
	if ok && n < len(p) {
		runtime.Gosched()
	}
	return n, ok
}

// readAtOnce reads what of p is in memory, and has the kernel begin to read the rest.
// ok is false if that is not to be had, now and later.
func (s *source) readAtOnce(p []byte, at int64) (n int, ok bool) {
	n, err := sys.ReadAtOnce(s.file, p, at)
	if errors.Is(err, errors.ErrUnsupported) {
		s.waits.Store(true)
		return 0, false
	}
	return n, true
}
