package mmapio

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// A Region is a part of a File's memory that stays mapped until Release,
// whatever Close and Resize do. After the File has grown elsewhere it still
// shows the same bytes of the file.
//
// Its methods may be called concurrently. A Region that is dropped without
// Release is a leak: its slice may live on, so the memory stays mapped for
// ever. With MMAPIO_DEBUG=leaks in the environment the place where it was made
// is then printed on standard error.
type Region struct {
	hold hold
}

// Region holds n bytes from offset off, in every mode. They are brought into
// memory first if they are not more than Options.Prefault; pages that leave it
// later are left to page faults, unless they are locked. To touch what cannot be
// had (see [FaultError]) crashes unless it is done under [Guard]; so does a
// store in a ReadOnly File.
func (f *File) Region(off, n int64) (*Region, error) {
	r := new(Region)
	if err := r.hold.take(f, "region", off, n, r); err != nil {
		return nil, err
	}
	return r, nil
}

// Bytes returns the memory, or nil after Release. The slice must not be used
// after Release.
func (r *Region) Bytes() []byte {
	if h := r.hold.held.Load(); h != nil {
		return h.data
	}
	return nil
}

// Sync is [File.SyncRange] of the Region's bytes: it returns when what was
// stored there is on stable storage, also after the File has grown elsewhere.
// After Release, or Close of the File, it fails with fs.ErrClosed.
func (r *Region) Sync() error {
	h := r.hold.held.Load()
	if h == nil {
		return &fs.PathError{Op: "sync", Path: r.hold.file.Name(), Err: fs.ErrClosed}
	}
	return h.file.syncRange("sync", h.off, int64(len(h.data)))
}

// Release lets go of the memory. It may be called more than once, and from any
// goroutine.
func (r *Region) Release() { r.hold.release() }

// A hold keeps memory mapped until it is released.
type hold struct {
	file *File
	held atomic.Pointer[held]
	leak runtime.Cleanup
}

type held struct {
	file *File
	gen  *generation
	off  int64
	data []byte
}

// take makes owner, of which h is a part, a holder.
func (h *hold) take(f *File, op string, off, n int64, owner any) error {
	g := f.cur.Load()
	for {
		if g.mem.holders.Hold() {
			if f.cur.Load() == g {
				break
			}
			g.mem.holders.Release() // a generation of before the last shrink
		}
		var err error
		if g, err = f.current(op); err != nil {
			return err
		}
	}
	if err := f.within(op, g, off, n); err != nil {
		g.mem.holders.Release()
		return err
	}
	if err := f.prefault(op, g, off, n); err != nil {
		g.mem.holders.Release()
		return err
	}
	h.file = f
	if f.policy != nil {
		f.policy.hold()
	}
	h.held.Store(&held{f, g, off, g.data[off : off+n : off+n]})
	if debugLeaks() {
		h.leak = runtime.AddCleanup(h, reportLeak, fmt.Sprintf("%T of %s [%d, %d) made at\n%s",
			owner, f.src.name, off, off+n, debug.Stack()))
	}
	return nil
}

func (h *hold) release() {
	if was := h.held.Swap(nil); was != nil {
		if p := was.file.policy; p != nil {
			p.release()
		}
		was.gen.mem.holders.Release()
		if debugLeaks() {
			h.leak.Stop()
		}
		runtime.KeepAlive(was.gen)
	}
}

var debugLeaks = sync.OnceValue(func() bool { return debugWord("leaks") })

func reportLeak(what string) {
	fmt.Fprintf(os.Stderr, "mmapio: leaked without Release: %s\n", what)
}
