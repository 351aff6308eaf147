package mmapio

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

// Sync returns when everything that was stored to the file, in whatever way,
// and the file's size are on stable storage, and, if the File made the file,
// the entry in its directory. It is never skipped because nothing seems to
// have changed. Calls that wait for each other may share a system call.
//
// An error stays: after one, from this or any other method that syncs, every
// Sync, SyncRange and StartSync of the File fails, since the system may have
// dropped what it could not write and reports that once. The way out is to open
// the file again, and to write again what may be lost.
//
// It is fdatasync(2) on Linux, which also writes what was stored through
// mappings, F_FULLFSYNC on Apple systems, msync(2) and fsync(2) on others,
// FlushViewOfFile and FlushFileBuffers on Windows. For ReadOnly, CopyOnWrite
// and Anonymous Files there is nothing to do and Sync succeeds.
func (f *File) Sync() error {
	const op = "sync"
	s, err := f.toSync(op)
	if s == nil {
		return err
	}
	return f.syncFailed(op, s.all(f.flushAll))
}

// SyncRange is Sync of n bytes from offset off, which need no alignment: the
// pages that they lie on. The size and a new entry in the directory are
// included, but with n == 0 nothing is synced. Where the system can sync no less
// than a file it does that.
//
// On Linux it is one msync(2) with MS_SYNC if the range is one mapping of the
// kernel's, which it is unless pages of it are locked and others are not; else
// it is one fdatasync(2). A range of more than 1 MiB is written out before, by
// sync_file_range(2). On Windows and other systems it is as Sync, with less
// to flush.
func (f *File) SyncRange(off, n int64) error { return f.syncRange("syncrange", off, n) }

func (f *File) syncRange(op string, off, n int64) error {
	s, err := f.toSync(op)
	if err != nil {
		return err
	}
	if err := f.checkRange(op, off, n); s == nil || err != nil {
		return err
	}
	if n == 0 {
		return f.syncFailed(op, s.earlier())
	}
	return f.syncFailed(op, s.part(func() error {
		if sys.FlushBeforeSync {
			if err := f.flush(op, off, n); err != nil {
				return err
			}
			return sys.SyncFile(f.src.file)
		}
		if n > bringStep {
			// Now, and not where a Resize, and all who wait for that, would have to
			// wait for it.
			err := failpoint("write out")
			if err == nil {
				err = sys.WriteOut(f.src.file, f.src.off+off, n)
			}
			if err != nil {
				return err
			}
		}
		whole := false
		err := f.mapped(op, func(g *generation) error {
			if err := f.within(op, g, off, n); err != nil {
				return err
			}
			lo, hi := g.pages(off, n)
			if whole = !f.inOneMapping(g, lo, hi); whole {
				return nil // nor this here
			}
			return g.mem.space.Flush(g.mem.base+lo, hi-lo)
		})
		if whole && err == nil {
			err = sys.SyncFile(f.src.file)
		}
		return err
	}))
}

// StartSync has the system begin to write out n bytes from offset off, and does
// not wait for the disk, but where the queue of its requests is full. It makes
// nothing durable; a Sync that follows has less to do.
//
// It is sync_file_range(2) with SYNC_FILE_RANGE_WRITE on Linux, msync(2) with
// MS_ASYNC on Darwin and the BSDs, nothing elsewhere. Errors stay as those of
// Sync do.
func (f *File) StartSync(off, n int64) error {
	const op = "startsync"
	s, err := f.toSync(op)
	if err != nil {
		return err
	}
	if err := f.checkRange(op, off, n); s == nil || err != nil {
		return err
	}
	if err := s.earlier(); n == 0 || err != nil {
		return f.syncFailed(op, err)
	}
	defer f.src.writingBack()()
	return f.syncFailed(op, s.remember(true, f.mapped(op, func(g *generation) error {
		if err := f.within(op, g, off, n); err != nil {
			return err
		}
		lo, hi := g.pages(off, n)
		return g.mem.space.StartFlush(f.src.file, f.src.off-int64(g.mem.delta-lo), g.mem.base+lo, hi-lo)
	})))
}

// toSync returns what syncs the File, or nil if nothing has to.
func (f *File) toSync(op string) (*syncer, error) {
	switch {
	case f.cur.Load() == closedGeneration:
		return nil, f.fail(op, fs.ErrClosed)
	case f.syncer == nil:
		return nil, nil
	case f.src.file == nil:
		return nil, f.fail(op, errors.ErrUnsupported)
	}
	return f.syncer, nil
}

// syncFailed gives an error of a sync the form that it has for callers.
func (f *File) syncFailed(op string, err error) error {
	var re *RangeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &re):
		return re
	case isClosed(err):
		err = fs.ErrClosed // it was Close that took the descriptor away
	}
	return f.fail(op, underlying(err))
}

func isClosed(err error) bool { return errors.Is(err, fs.ErrClosed) }

func (f *File) checkRange(op string, off, n int64) error {
	g, err := f.now(op, 0)
	if err == nil {
		err = f.within(op, g, off, n)
	}
	return err
}

// pages returns the pages of n bytes at off, as distances from base.
func (g *generation) pages(off, n int64) (lo, hi int) {
	at := int(off) + g.mem.delta
	return int(page.Down(int64(at), int64(sys.PageSize()))), pageUp(at + int(n))
}

// inOneMapping reports whether the kernel has a range of pages in one mapping:
// msync(2) flushes once for each.
func (f *File) inOneMapping(g *generation, lo, hi int) bool {
	one, err := g.mem.space.OneMapping(g.mem.base+lo, hi-lo)
	if err == nil {
		return one
	}
	// By the books: locked pages are mappings of their own.
	l := &f.locks
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.set.Held(nil, int64(lo), int64(hi))
	return len(held) == 0 || len(held) == 1 && held[0].Lo <= int64(lo) && held[0].Hi >= int64(hi)
}

// mapped calls do with the present generation, which a shrink leaves as it is
// meanwhile. Like enter, it waits only for what keeps calls out.
func (f *File) mapped(op string, do func(g *generation) error) error {
	for try := 0; ; try++ {
		g, err := f.now(op, try)
		if err != nil {
			return err
		}
		pass, ok := g.mem.calls.Enter()
		if !ok {
			continue
		}
		if f.cur.Load() != g {
			pass.Leave()
			continue
		}
		err = do(g)
		pass.Leave()
		runtime.KeepAlive(g)
		return err
	}
}

func (f *File) flushAll() error { return f.flush("sync", 0, -1) }

// flush hands the stores to n bytes at off, or to all if n is negative, to the
// file, and all those made through older generations, which is what systems
// need that do not do it as they sync a file.
func (f *File) flush(op string, off, n int64) error {
	err := f.mapped(op, func(g *generation) error {
		if n >= 0 {
			if err := f.within(op, g, off, n); err != nil {
				return err
			}
		} else if n = int64(len(g.data)); n == 0 {
			return nil
		}
		lo, hi := g.pages(off, n)
		return g.mem.space.Flush(g.mem.base+lo, hi-lo)
	})
	f.mu.Lock()
	old := append([]*extent(nil), f.old...)
	f.mu.Unlock()
	for _, e := range old {
		e.mu.Lock()
		if size := int(e.mapped.Load()); !e.gone && size > 0 && err == nil {
			err = e.space.Flush(e.base, size)
		}
		e.mu.Unlock()
	}
	return err
}

// A syncer syncs a file and remembers what came of it. It knows neither the
// File nor its memory.
type syncer struct {
	src *source
	dir string // of a file that the File made: it has a new entry

	policy *policy // nil: none

	failed atomic.Pointer[failure]
	asked  atomic.Uint64 // calls of all

	// One call at a time: the system tells an error once, to whoever asks
	// first, and the others must not take its silence for success.
	mu      sync.Mutex
	covered uint64 // calls of all that need nothing more
	entered bool   // the directory entry is durable

	// aside is held by those who may be told an error in the place of a sync, until
	// they have taken note of it.
	aside sync.RWMutex
}

// A failure is the first error, the only one that counts.
type failure struct {
	err  error
	told atomic.Bool
}

// An oldFailure is a failure that was told before.
type oldFailure struct{ err error }

func (e *oldFailure) Error() string { return "writing to the disk failed before: " + e.err.Error() }
func (e *oldFailure) Unwrap() error { return e.err }

// earlier returns the failure that there was.
func (s *syncer) earlier() error {
	f := s.failed.Load()
	switch {
	case f == nil:
		return nil
	case f.told.Swap(true):
		return &oldFailure{f.err}
	}
	return f.err
}

// remember takes note of an error and returns it; told says to the caller.
func (s *syncer) remember(told bool, err error) error {
	var re *RangeError
	if err == nil || errors.As(err, &re) || isClosed(err) {
		return err // says nothing about the disk
	}
	f := &failure{err: underlying(err)}
	f.told.Store(told)
	s.failed.CompareAndSwap(nil, f)
	return err
}

// all makes the whole file durable. flush is called first where the system
// needs it.
func (s *syncer) all(flush func() error) error { return s.whole(true, flush) }

// quietly is all for one who tells nobody what comes of it.
func (s *syncer) quietly(flush func() error) error { return s.whole(false, flush) }

// part makes durable what do does.
func (s *syncer) part(do func() error) error { return s.locked(true, do) }

func (s *syncer) whole(told bool, flush func() error) error {
	ticket := s.asked.Add(1)
	return s.locked(told, func() error {
		if s.covered >= ticket {
			return nil // by a call that began after this one
		}
		covered := s.asked.Load()
		if p := s.policy; p != nil {
			p.bytes.Store(0)
			p.writes.Store(0)
		}
		if sys.FlushBeforeSync && flush != nil {
			if err := flush(); err != nil {
				return err
			}
		}
		if err := sys.SyncFile(s.src.file); err != nil {
			return err
		}
		s.covered = covered
		return nil
	})
}

// before returns the failure that there was, to one who tells it or not.
func (s *syncer) before(told bool) error {
	f := s.failed.Load()
	switch {
	case f == nil:
		return nil
	case told:
		return s.earlier()
	}
	return f.err
}

// locked calls do, unless that is in vain, and makes the entry in the directory
// durable.
func (s *syncer) locked(told bool, do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.before(told); err != nil {
		return err
	}
	defer s.src.writingBack()()
	if err := s.remember(told, do()); err != nil {
		return err
	}
	s.aside.Lock()
	s.aside.Unlock() //nolint:staticcheck // to have waited is enough
	if err := s.before(told); err != nil {
		return err
	}
	if s.dir == "" || s.entered {
		return nil
	}
	if lasting, err := s.syncDir(); err != nil {
		if lasting || !told { // or nobody would hear of it
			s.remember(told, err) //nolint:errcheck // it is returned
		}
		return err
	}
	s.entered = true
	return nil
}

// syncDir makes the entry of a file that the File made durable, in the
// directory where it is by now, if the system can tell.
func (s *syncer) syncDir() (lasting bool, err error) {
	dir := s.dir
	if path, err := sys.PathOf(s.src.file); err == nil {
		if path == "" {
			return false, nil // it was removed: there is no entry
		}
		dir = filepath.Dir(path)
	}
	lasting, err = sys.SyncDir(dir, s.src.file)
	if err != nil {
		err = fmt.Errorf("the directory %s: %w", dir, err)
	}
	return lasting, err
}
