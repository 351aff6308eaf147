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
	if reads == sys.ReadsPages && n > 1 && !s.waits.Load() && n > int64(runtime.GOMAXPROCS(0)) {
		failpoint("crowd") //nolint:errcheck // tests count
		n, err := sys.ReadAtOnce(s.file, p, at)
		switch {
		case err == nil && n == len(p):
			return n, nil
		case errors.Is(err, errors.ErrUnsupported):
			s.waits.Store(true)
		default:
			runtime.Gosched()
		}
	}
	return s.file.ReadAt(p, at)
}
