package mmapio_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// A call is any method of a File. It checks the bytes it sees: all of them are
// mark, whatever else is mapped since.
type closeCall struct {
	name   string
	stores bool // needs ReadWrite
	resize bool // changes Size
	do     func(f *mmapio.File, mark byte) error
}

var errForeign = errors.New("bytes of something else")

// ours fails unless all bytes are mark.
func ours(b []byte, mark byte) error {
	for _, c := range b {
		if c != mark {
			return fmt.Errorf("%w: %#x", errForeign, c)
		}
	}
	return nil
}

const closeSize = 3 << 12

var closeCalls = []closeCall{
	{name: "ReadAt", do: func(f *mmapio.File, mark byte) error {
		b := make([]byte, 100)
		n, err := f.ReadAt(b, 4000)
		return errors.Join(err, ours(b[:n], mark))
	}},
	{name: "WriteAt", stores: true, do: func(f *mmapio.File, mark byte) error {
		_, err := f.WriteAt([]byte{mark, mark}, 4095)
		return err
	}},
	{name: "View", do: func(f *mmapio.File, mark byte) error {
		return f.View(0, closeSize, func(b []byte) error { runtime.Gosched(); return ours(b, mark) })
	}},
	{name: "Update", stores: true, do: func(f *mmapio.File, mark byte) error {
		return f.Update(1, 5000, func(b []byte) error { b[4999] = mark; return ours(b, mark) })
	}},
	{name: "UpdateChunks", stores: true, do: func(f *mmapio.File, mark byte) error {
		return f.UpdateChunks(0, closeSize, 1000, func(c mmapio.Chunk) error { c.Data[0] = mark; return ours(c.Data, mark) })
	}},
	{name: "Chunks", do: func(f *mmapio.File, mark byte) (err error) {
		for c, e := range f.Chunks(0, closeSize, 5000) {
			err = errors.Join(err, e, ours(c.Data, mark))
		}
		return err
	}},
	{name: "Pages", do: func(f *mmapio.File, mark byte) (err error) {
		for c, e := range f.Pages(7, closeSize-7) {
			err = errors.Join(err, e, ours(c.Data, mark))
		}
		return err
	}},
	{name: "Region", do: func(f *mmapio.File, mark byte) error {
		r, err := f.Region(0, closeSize)
		if err != nil {
			return err
		}
		defer r.Release()
		runtime.Gosched()
		return ours(r.Bytes(), mark)
	}},
	{name: "ValueAt", do: func(f *mmapio.File, mark byte) error {
		v, err := mmapio.ValueAt[[64]uint8](f, 64)
		if err != nil {
			return err
		}
		defer v.Release()
		runtime.Gosched()
		return ours(v.Ptr()[:], mark)
	}},
	{name: "ValuesAt", do: func(f *mmapio.File, mark byte) error {
		v, err := mmapio.ValuesAt[uint8](f, 5000, 5000)
		if err != nil {
			return err
		}
		defer v.Release()
		return ours(v.Slice(), mark)
	}},
	{name: "LoadAt", do: func(f *mmapio.File, mark byte) error {
		v, err := mmapio.LoadAt[[8]byte](f, 8192)
		if err != nil {
			return err
		}
		return ours(v[:], mark)
	}},
	{name: "StoreAt", stores: true, do: func(f *mmapio.File, mark byte) error { return mmapio.StoreAt(f, 8200, mark) }},
	{name: "Section", do: func(f *mmapio.File, mark byte) error {
		s, err := f.Section(10, 100)
		if err != nil {
			return err
		}
		b := make([]byte, 50)
		n, err := s.ReadAt(b, 50)
		return errors.Join(err, ours(b[:n], mark))
	}},
	{name: "Lock", do: func(f *mmapio.File, _ byte) error { return f.Lock(0, 5000) }},
	{name: "Unlock", do: func(f *mmapio.File, _ byte) error { return f.Unlock(0, 5000) }},
	{name: "LockAll", do: func(f *mmapio.File, _ byte) error { return errors.Join(f.LockAll(), f.UnlockAll()) }},
	{name: "LockContext", do: func(f *mmapio.File, _ byte) error {
		return f.LockContext(context.Background(), 1, closeSize-1, nil)
	}},
	{name: "Pin", do: func(f *mmapio.File, _ byte) error {
		p, err := f.Pin(5, 9000)
		if err != nil {
			return err
		}
		f.LockedRanges()
		return p.Release()
	}},
	{name: "VerifyLocked", do: func(f *mmapio.File, _ byte) error {
		var le *mmapio.LockError
		if err := f.VerifyLocked(0, 100); errors.Is(err, errors.ErrUnsupported) {
			return nil // the system does not tell
		} else if !errors.As(err, &le) {
			return err
		}
		return nil
	}},
	{name: "Sync", do: func(f *mmapio.File, _ byte) error { return f.Sync() }},
	{name: "SyncRange", do: func(f *mmapio.File, _ byte) error { return f.SyncRange(10, closeSize-20) }},
	{name: "StartSync", do: func(f *mmapio.File, _ byte) error { return f.StartSync(10, closeSize-20) }},
	{name: "Stat", do: func(f *mmapio.File, _ byte) error { _, err := f.Stat(); return err }},
	{name: "SyscallConn", do: func(f *mmapio.File, _ byte) error { _, err := f.SyscallConn(); return err }},
	{name: "Refresh", do: func(f *mmapio.File, _ byte) error { _, err := f.Refresh(); return err }},
	{name: "Resize", stores: true, resize: true, do: func(f *mmapio.File, _ byte) error {
		if err := f.Resize(9 * closeSize); err != nil {
			return err
		}
		return f.Resize(closeSize)
	}},
}

// expected says of an error from a call that runs beside Close and others of
// its kind whether it ends the caller, and whether it may be.
func expected(err error) (end bool, wrong error) {
	var le *mmapio.LockError
	switch {
	case err == nil, errors.Is(err, mmapio.ErrBusy):
		return false, nil
	case errors.Is(err, errForeign):
		return true, err
	case errors.Is(err, fs.ErrClosed):
		return true, nil
	case errors.Is(err, errors.ErrUnsupported), errors.As(err, &le) && le.Cause == mmapio.CauseLimit:
		return true, nil // nothing is locked on this system, or for this user
	}
	return true, err
}

// TestCloseAgainst closes a File while two goroutines make one kind of call on
// it, and maps another file at once, to land in the same place. All callers
// end, with fs.ErrClosed, and none ever sees a byte of another file.
func TestCloseAgainst(t *testing.T) {
	needMaps(t)
	prove.LeakCheck(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	rounds := 6
	if prove.E2E() {
		rounds = 300
	}
	paths := make([]string, 3)
	for i := range paths {
		paths[i] = tempDir(t) + "/file"
		b := make([]byte, closeSize)
		for j := range b {
			b[j] = byte(i + 1)
		}
		if err := os.WriteFile(paths[i], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range closeCalls {
		c := &closeCalls[i]
		t.Run(c.name, func(t *testing.T) {
			for round := range rounds {
				which := round % len(paths)
				o := &mmapio.Options{}
				if c.stores || round%2 == 0 {
					o.Mode = mmapio.ReadWrite
				}
				if reserves && round%4 < 2 {
					o.Reserve = 5 * closeSize
				}
				closeAgainst(t, c, paths[which], byte(which+1), paths[(which+1)%len(paths)], o)
			}
		})
	}
}

func closeAgainst(t *testing.T, c *closeCall, path string, mark byte, other string, o *mmapio.Options) {
	t.Helper()
	f, err := mmapio.OpenFile(path, o)
	if err != nil {
		t.Fatal(err)
	}
	var (
		wg     sync.WaitGroup
		calls  atomic.Int64
		closed atomic.Int64
	)
	for range 2 {
		wg.Go(func() {
			for {
				end, wrong := expected(c.do(f, mark))
				if wrong != nil {
					t.Errorf("%s: %T %v", c.name, wrong, wrong)
				}
				if end {
					return
				}
				calls.Add(1)
			}
		})
	}
	for calls.Load() < 10 && !t.Failed() {
		time.Sleep(10 * time.Microsecond)
	}
	for range 2 { // one of them is the first
		wg.Go(func() {
			switch err := f.Close(); {
			case err == nil:
				closed.Add(1)
			case !errors.Is(err, fs.ErrClosed):
				t.Errorf("Close: %v", err)
			}
		})
	}
	g, err := mmapio.OpenFile(other, &mmapio.Options{Populate: true})
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if closed.Load() != 1 {
		t.Errorf("%d of two Closes succeeded", closed.Load())
	}
	mustClose(t, g)
	if end, wrong := expected(c.do(f, mark)); !end || wrong != nil {
		t.Errorf("%s after Close: %v", c.name, wrong)
	}
	if c.resize {
		if err := os.Truncate(path, closeSize); err != nil { // Close came between the two
			t.Fatal(err)
		}
	}
}

// TestCloseInside: Close does not wait for the one that calls it, nor does it
// take memory from anyone who still has it.
func TestCloseInside(t *testing.T) {
	needMaps(t)
	for _, h := range holders {
		t.Run(h.name, func(t *testing.T) {
			path, content := patternFile(t, 2*pageSize)
			f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
			r := mustRegion(t, f, 0, f.Size())
			if err := h.hold(f, func() {
				mustClose(t, f)
				if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
					t.Errorf("second Close: %v", err)
				}
				if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, fs.ErrClosed) {
					t.Errorf("ReadAt after Close: %v", err)
				}
				if err := f.Resize(5); !errors.Is(err, fs.ErrClosed) {
					t.Errorf("Resize after Close: %v", err)
				}
			}); err != nil {
				t.Fatal(err)
			}
			same(t, "a region of a closed File", r.Bytes(), content)
			r.Release()
		})
	}
	path, content := patternFile(t, 2*pageSize+3)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	if err := f.Update(0, f.Size(), func(b []byte) error {
		mustClose(t, f)
		for range 3 {
			runtime.GC() // nothing but this call holds the memory now
		}
		same(t, "after Close inside of Update", b, content)
		b[5], content[5] = 'x', 'x'
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	same(t, "the file", onDisk(t, path), content)
}

// TestResizeConcurrently: Resizes come one after the other, and in the end the
// file is as long as the File says, with the bytes that nobody cut.
func TestResizeConcurrently(t *testing.T) {
	needMaps(t)
	for _, reserve := range []int64{0, 30 * pageSize} {
		if reserve > 0 && !reserves {
			continue
		}
		path, content := patternFile(t, 2*pageSize)
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Reserve: reserve})
		var wg sync.WaitGroup
		for i := range int64(4) {
			wg.Go(func() {
				for j := range int64(40) {
					if err := f.Resize(2*pageSize + (i*7919+j*4243)%(20*pageSize)); err != nil && !errors.Is(err, mmapio.ErrBusy) {
						t.Errorf("Resize: %v", err)
					}
					b := make([]byte, 2*pageSize)
					if _, err := f.ReadAt(b, 0); err != nil || differ(b, content) >= 0 {
						t.Errorf("ReadAt beside Resize: %v, differs at %d", err, differ(b, content))
					}
				}
			})
		}
		wg.Go(func() {
			for range 100 {
				if err := f.View(0, 2*pageSize, func(b []byte) error {
					if differ(b, content) >= 0 {
						t.Error("View beside Resize differs")
					}
					return nil
				}); err != nil {
					t.Errorf("View: %v", err)
				}
				time.Sleep(20 * time.Microsecond)
			}
		})
		wg.Wait()
		if f.Size() != sizeOnDisk(t, path) {
			t.Errorf("Size() = %d, %d bytes on disk", f.Size(), sizeOnDisk(t, path))
		}
	}
}

// BenchmarkReadAt64 is to be run with -cpu 1,2: from one to two cores the time
// per read must change as it does for the bare copy, which shares nothing.
func BenchmarkReadAt64(b *testing.B) {
	path, content := patternFile(b, 64*pageSize)
	f := mustOpen(b, path, nil)
	size := f.Size()
	bench := func(name string, read func(p []byte, off int64) (int, error)) {
		b.Run(name, func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				p, off := make([]byte, 64), int64(0)
				for pb.Next() {
					if _, err := read(p, off); err != nil && err != io.EOF { //nolint:errorlint // itself
						b.Error(err)
					}
					if off += 4160; off > size-64 {
						off -= size - 64
					}
				}
			})
		})
	}
	bench("copy", func(p []byte, off int64) (int, error) { return copy(p, content[off:off+64]), nil })
	bench("file", f.ReadAt)
	bench("view", func(_ []byte, off int64) (int, error) {
		return 0, f.View(off, 64, func([]byte) error { return nil })
	})
}
