package mmapio

import (
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/mmapio/mmapio/internal/sys"
)

// A File is a file, or a part of one, mapped into memory.
//
// All methods may be called concurrently, also inside of functions given to
// View and Update. Offsets and lengths are in bytes, counted from the first
// mapped byte. A File should be closed; one that is dropped without Close is
// unmapped by the garbage collector.
type File struct {
	src  *source
	opts Options // a copy
	wide int64   // Options.Prefault

	// cur is replaced by Resize, Refresh and Close, which hold mu and never
	// call the user's code while they do.
	mu  sync.Mutex
	cur atomic.Pointer[generation]
	old []*extent // replaced, but perhaps still held

	room    sys.Room    // for the next mapping, see setAside; guarded by mu
	closing atomic.Bool // a growth that reads from the disk gives way
	glance  glance      // guarded by mu
	advised advised     // guarded by mu
	coming  prefetcher

	locks  locker
	syncer *syncer // nil where nothing reaches a file
	policy *policy // nil if nothing is synced without being asked
}

// Open maps the whole of an existing file to be read. A file of zero length
// is fine.
func Open(name string) (*File, error) {
	return OpenFile(name, nil)
}

// Create makes a file of the given size in bytes, emptying it first if it
// exists, and maps it to be read and written. Its bytes are zero and have disk
// blocks reserved. The size may be 0.
func Create(name string, size int64) (*File, error) {
	return OpenFile(name, &Options{Mode: ReadWrite, Create: true, Truncate: true, MinSize: size})
}

// Name returns the name as it was given to Open, or that of the *os.File that
// was given to Map; "anonymous" where there is no file.
func (f *File) Name() string { return f.src.name }

// Mode returns the mode that the File was opened with.
func (f *File) Mode() Mode { return f.src.mode }

// Size returns how many bytes are mapped now, 0 after Close. It changes with
// Resize and Refresh only, whatever happens to the file meanwhile.
func (f *File) Size() int64 { return int64(len(f.cur.Load().data)) }

// PageSize returns the size in bytes of a page of memory, the unit in which
// pages are locked, resident and written. It is the same for all Files.
func (f *File) PageSize() int { return sys.PageSize() }

// Stat describes the file as it is now. It is errors.ErrUnsupported without a
// file or its descriptor (Anonymous, DropFD).
func (f *File) Stat() (fs.FileInfo, error) {
	if err := f.needFile("stat"); err != nil {
		return nil, err
	}
	info, err := f.src.file.Stat()
	if err != nil {
		if f.cur.Load() == closedGeneration {
			err = fs.ErrClosed // whatever the system calls it
		}
		return nil, f.fail("stat", err)
	}
	return info, nil
}

// SyscallConn gives access to the File's own descriptor, for calls that this
// package lacks. It must not be used to change the file's size. It is
// errors.ErrUnsupported where Stat is.
func (f *File) SyscallConn() (syscall.RawConn, error) {
	if err := f.needFile("syscallconn"); err != nil {
		return nil, err
	}
	c, err := f.src.file.SyscallConn()
	if err != nil {
		return nil, f.fail("syscallconn", err)
	}
	return c, nil
}

// Close ends the File: all methods fail with fs.ErrClosed from now on, also a
// second Close. Locks and pins end. Memory that a running View or Update, a
// Region, Value or Values still uses stays mapped until they end; Close does
// not wait for them. It waits for copying calls, but where such memory stays: there
// one that is under way ends by itself, a long one half-way with fs.ErrClosed.
//
// With Options.Sync it makes a last sync and returns its error; else it does not
// write anything: see [File.Sync]. As close(2) does, it drops the process's
// POSIX record locks (fcntl F_SETLK) on the file.
func (f *File) Close() error {
	f.closing.Store(true)
	f.syncBeforeClose()
	if err := f.closeMemory(); err != nil {
		return err
	}
	err := f.syncAtClose()
	if f.src.file != nil {
		if late := f.src.file.Close(); late != nil && err == nil {
			err = f.fail("close", late)
		}
	}
	return err
}

// closeMemory ends everything but the descriptor.
func (f *File) closeMemory() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.cur.Load()
	if g == closedGeneration {
		return f.fail("close", fs.ErrClosed)
	}
	f.endLocks(g)
	g.mem.retire()
	if g.mem.gated {
		g.mem.copiers.Wait()
	}
	return nil
}

// needFile fails when the File is closed or has no descriptor.
func (f *File) needFile(op string) error {
	switch {
	case f.cur.Load() == closedGeneration:
		return f.fail(op, fs.ErrClosed)
	case f.src.file == nil:
		return f.fail(op, errors.ErrUnsupported)
	}
	return nil
}

func (f *File) fail(op string, err error) error { return pathError(op, f.src.name, err) }

// now is current for those who try first: it does not wait for a change, which
// may have to wait for the disk itself.
func (f *File) now(op string, try int) (*generation, error) {
	if try > 0 {
		return f.current(op)
	}
	g := f.cur.Load()
	if g == closedGeneration {
		return nil, f.fail(op, fs.ErrClosed)
	}
	return g, nil
}

// current returns the generation of now. When a change is under way it waits
// for its end.
func (f *File) current(op string) (*generation, error) {
	f.mu.Lock()
	g := f.cur.Load()
	f.mu.Unlock()
	if g == closedGeneration {
		return nil, f.fail(op, fs.ErrClosed)
	}
	return g, nil
}
