package mmapio

import (
	"errors"
	"io/fs"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/mmapio/mmapio/internal/sys"
)

// syncer keeps what a File must remember about syncing.
type syncer struct {
	mu     sync.Mutex
	failed error // the first failure; the kernel tells it once
	dir    bool  // the directory entry is durable
}

// Sync returns when everything that was stored to the file, in whatever way,
// and the file's size are on stable storage, and, if the File made the file,
// the entry in its directory. It is never skipped because nothing seems to
// have changed.
//
// An error stays: after one, every Sync of the File fails, since the system
// may have dropped what it could not write and reports that once. The way out
// is to open the file again, and to write again what may be lost.
//
// It is fdatasync(2) on Linux, which also writes what was stored through
// mappings, F_FULLFSYNC on Apple systems, msync(2) and fsync(2) on others,
// FlushViewOfFile and FlushFileBuffers on Windows. For ReadOnly, CopyOnWrite
// and Anonymous Files there is nothing to do and Sync succeeds.
func (f *File) Sync() error {
	const op = "sync"
	g := f.cur.Load()
	if g == closedGeneration {
		return f.fail(op, fs.ErrClosed)
	}
	if f.src.mode != ReadWrite || f.anonymous() {
		return nil
	}
	if f.src.file == nil {
		return f.fail(op, errors.ErrUnsupported)
	}
	f.syncer.mu.Lock()
	defer f.syncer.mu.Unlock()
	if f.syncer.failed != nil {
		return f.fail(op, f.syncer.failed)
	}
	if err := f.sync(op); err != nil {
		if f.cur.Load() == closedGeneration {
			return f.fail(op, fs.ErrClosed) // it was Close that took the descriptor away
		}
		f.syncer.failed = underlying(err)
		return f.fail(op, f.syncer.failed)
	}
	if f.dir != "" && !f.syncer.dir {
		if err := f.syncDir(); err != nil {
			return f.fail(op, err) // not for ever: nothing was dropped
		}
		f.syncer.dir = true
	}
	return nil
}

// syncDir makes the entry of a file that this File made durable, in the
// directory where it is by now, if the system can tell.
func (f *File) syncDir() error {
	path, err := sys.PathOf(f.src.file)
	if err != nil {
		return sys.SyncDir(f.dir)
	}
	if path == "" {
		return nil // it was removed: there is no entry
	}
	return sys.SyncDir(filepath.Dir(path))
}

func (f *File) sync(op string) error {
	if sys.FlushBeforeSync {
		if err := f.flush(op); err != nil {
			return err
		}
	}
	if err := sys.SyncFile(f.src.file); err != nil {
		return err
	}
	return nil
}

// flush hands the stores of the present generation to the file.
func (f *File) flush(op string) error {
	for {
		g, err := f.current(op)
		if err != nil {
			return err
		}
		if len(g.data) == 0 {
			return nil
		}
		pass, ok := g.mem.calls.Enter()
		if !ok {
			continue
		}
		moved := f.cur.Load() != g
		if !moved {
			err = g.mem.space.Flush(g.mem.base, g.mem.delta+len(g.data))
		}
		pass.Leave()
		runtime.KeepAlive(g)
		if !moved {
			return err
		}
	}
}
