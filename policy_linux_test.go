package mmapio_test

import (
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// synced opens a file of ten pages under a policy.
func synced(t testing.TB, disk *slowfs.FS, p mmapio.SyncPolicy) *mmapio.File {
	t.Helper()
	disk.AddFile("f", 10*pageSize, slowfs.Zeros)
	f := mustOpen(t, disk.Path("f"), &mmapio.Options{Mode: mmapio.ReadWrite, Sync: p})
	disk.ResetLog()
	return f
}

// TestPolicyWrites: each write is one, of whatever kind, and what is due is
// durable when the call returns.
func TestPolicyWrites(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	writes := map[string]func(f *mmapio.File) error{
		"WriteAt": func(f *mmapio.File) error { _, err := f.WriteAt([]byte("12345678"), 0); return err },
		"StoreAt": func(f *mmapio.File) error { return mmapio.StoreAt(f, 0, [8]byte{'1', '2'}) },
		"Update":  func(f *mmapio.File) error { return f.Update(0, 8, func(b []byte) error { copy(b, "12"); return nil }) },
		"UpdateChunks": func(f *mmapio.File) error {
			return f.UpdateChunks(0, 8, 2, func(c mmapio.Chunk) error { copy(c.Data, "12"); return nil })
		},
		"Section": func(f *mmapio.File) error {
			s, err := f.Section(0, 9)
			if err == nil {
				_, err = s.WriteAt([]byte("12345678"), 0)
			}
			return err
		},
		"a function that fails": func(f *mmapio.File) error {
			want := errors.New("mine")
			if err := f.Update(0, 8, func(b []byte) error { copy(b, "12"); return want }); err != want {
				return errors.Join(errors.New("not its error"), err)
			}
			return nil
		},
		"a function that panics": func(f *mmapio.File) (err error) {
			defer func() {
				if recover() != "mine" {
					err = errors.New("no panic")
				}
			}()
			return f.Update(0, 8, func(b []byte) error { copy(b, "12"); panic("mine") })
		},
	}
	for name, write := range writes {
		f := synced(t, disk, mmapio.SyncPolicy{Writes: 1})
		for range 3 {
			noError(t, name, write(f))
			wantSyncs(t, disk, name+" with Writes 1", 1, 0)
			var got [2]byte
			if disk.DurableAt("f", got[:], 0); string(got[:]) != "12" {
				t.Errorf("%s: %q is durable", name, got)
			}
		}
		mustClose(t, f)
		wantSyncs(t, disk, "Close", 1, 0)

		for what, p := range map[string]mmapio.SyncPolicy{
			"Writes 3": {Writes: 3}, "Bytes 24": {Bytes: 24}, "Bytes 17": {Bytes: 17}, "both": {Bytes: 1 << 40, Writes: 3},
			"all": {Bytes: 24, Writes: 4, Interval: time.Hour},
		} {
			if what == "Bytes 17" && name == "UpdateChunks" {
				continue // counts in pieces of 2 bytes
			}
			f := synced(t, disk, p)
			for i := range 9 {
				noError(t, name, write(f))
				wantSyncs(t, disk, name+" with "+what, btoi((i+1)%3 == 0), 0)
			}
			noError(t, name, write(f))
			mustClose(t, f)
			wantSyncs(t, disk, "Close", 1, 0)
		}
	}
	// What is no write does not count.
	f := synced(t, disk, mmapio.SyncPolicy{Bytes: 1, Writes: 1})
	_, err := f.WriteAt(nil, 0)
	noError(t, "WriteAt of nothing", err)
	if _, err := f.WriteAt(make([]byte, 2), f.Size()-1); err == nil {
		t.Error("WriteAt past the end")
	}
	noError(t, "View", f.View(0, 1, func([]byte) error { return nil }))
	wantSyncs(t, disk, "what is no write", 0, 0)
	// A Sync in between starts the count anew.
	mustClose(t, f)
	f = synced(t, disk, mmapio.SyncPolicy{Writes: 2})
	store(t, f, 0, "x")
	noError(t, "Sync", f.Sync())
	store(t, f, 0, "x")
	wantSyncs(t, disk, "one write, Sync, one write", 1, 0)
	mustClose(t, f)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestPolicyChunks: the bytes of UpdateChunks count piece by piece.
func TestPolicyChunks(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	f := synced(t, disk, mmapio.SyncPolicy{Bytes: 2 * pageSize})
	var syncs []int
	noError(t, "UpdateChunks", f.UpdateChunks(0, 5*pageSize, pageSize, func(c mmapio.Chunk) error {
		c.Data[0]++
		syncs = append(syncs, disk.Count(slowfs.OpFsync))
		return nil
	}))
	want := []int{0, 0, 1, 1, 2}
	for i := range want {
		if syncs[i] != want[i] {
			t.Fatalf("syncs before each piece: %v, want %v", syncs, want)
		}
	}
	wantSyncs(t, disk, "UpdateChunks", 2, 0)
	mustClose(t, f)
}

// TestPolicyInterval: a write is synced though nobody asks, and if nothing is
// written nothing is synced.
func TestPolicyInterval(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	f := synced(t, disk, mmapio.SyncPolicy{Interval: time.Millisecond})
	for i := range 20 {
		if mmapio.Armed(f) {
			t.Fatal("a tick is to come though nothing is written")
		}
		before := mmapio.Asked(f)
		store(t, f, int64(i), "x")
		until(t, "synced", func() bool { return mmapio.Covered(f) > before })
		until(t, "quiet", func() bool { return mmapio.Quiet(f) })
	}
	r, err := f.Region(0, 1)
	noError(t, "Region", err)
	v, err := mmapio.ValueAt[uint64](f, 64)
	noError(t, "ValueAt", err)
	for i := range byte(10) {
		r.Bytes()[0] = i
		before := mmapio.Asked(f)
		until(t, "synced", func() bool { return mmapio.Covered(f) > before })
		var got [1]byte
		if disk.DurableAt("f", got[:], 0); got[0] != i {
			t.Errorf("%d is durable, %d was stored", got, i)
		}
	}
	r.Release()
	before := mmapio.Covered(f)
	until(t, "synced for the Value", func() bool { return mmapio.Covered(f) > before+3 })
	*v.Ptr() = 77
	v.Release()
	v.Release()
	until(t, "quiet", func() bool { return mmapio.Quiet(f) })
	before = mmapio.Asked(f)
	noError(t, "Close", f.Close())
	if n := mmapio.Asked(f); n != before+1 {
		t.Errorf("%d syncs at Close, want 1", n-before)
	}
	var got [1]byte
	if disk.DurableAt("f", got[:], 64); got[0] != 77 {
		t.Errorf("%d is durable, the last store was 77", got[0])
	}
}

// TestPolicyReleased: what is stored through a Region while a tick is at it, which
// may come too late for that one, has another to come though the Region is gone.
func TestPolicyReleased(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	f := synced(t, disk, mmapio.SyncPolicy{Interval: time.Millisecond})
	goOn := disk.Hold(slowfs.OpFsync, "f")
	r, err := f.Region(0, 1)
	noError(t, "Region", err)
	disk.WaitHeld(1) // the pages are written already
	r.Bytes()[0] = 7
	r.Release()
	goOn()
	until(t, "synced", func() bool {
		var got [1]byte
		disk.DurableAt("f", got[:], 0)
		return got[0] == 7
	})
	mustClose(t, f)
}

// TestPolicyClose: what no sync was due for is synced by Close, the goroutine of
// a tick has ended, and none comes later.
func TestPolicyClose(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	for range 30 {
		f := synced(t, disk, mmapio.SyncPolicy{Bytes: 1 << 40, Interval: 50 * time.Microsecond})
		for i := range int64(10) {
			store(t, f, i*pageSize, "kept")
		}
		mustClose(t, f)
		var got [4]byte
		for i := range int64(10) {
			if disk.DurableAt("f", got[:], i*pageSize); string(got[:]) != "kept" {
				t.Fatalf("%q is durable after Close", got)
			}
		}
		n := mmapio.Asked(f)
		if mmapio.Covered(f) != n {
			t.Fatal("a sync is under way after Close")
		}
	}
	// A tick that is at it is waited for.
	f := synced(t, disk, mmapio.SyncPolicy{Interval: time.Microsecond})
	release := disk.Hold(slowfs.OpFsync, "f")
	store(t, f, 0, "x")
	disk.WaitHeld(1)
	store(t, f, 1, "writers go on")
	done := make(chan error)
	go func() { done <- f.Close() }()
	until(t, "closed", func() bool { return f.Size() == 0 })
	release()
	noError(t, "Close", <-done)
}

// TestPolicyDropped: the timer keeps no File alive, and what it owes is done.
func TestPolicyDropped(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	disk.AddFile("f", pageSize, slowfs.Zeros)
	gone := make(chan bool)
	func() {
		f, err := mmapio.OpenFile(disk.Path("f"), &mmapio.Options{
			Mode: mmapio.ReadWrite, Sync: mmapio.SyncPolicy{Interval: 500 * time.Millisecond},
		})
		noError(t, "OpenFile", err)
		store(t, f, 0, "owed")
		runtime.AddCleanup(f, func(c chan bool) { close(c) }, gone)
	}()
	until(t, "the File is collected", func() bool {
		runtime.GC()
		select {
		case <-gone:
			return true
		default:
			return false
		}
	})
	until(t, "synced", func() bool {
		var got [4]byte
		disk.DurableAt("f", got[:], 0)
		return string(got[:]) == "owed"
	})
	until(t, "the mapping is gone", func() bool {
		runtime.GC()
		return disk.Count(slowfs.OpRelease) > 0
	})
}

// TestPolicyFails: a sync that fails is told by the write that made it, one in
// the background by the next; then it stays.
func TestPolicyFails(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	path := disk.Path("f")
	for name, p := range map[string]mmapio.SyncPolicy{
		"foreground": {Writes: 1}, "background": {Interval: time.Millisecond},
	} {
		for i := range 5 {
			f := synced(t, disk, p)
			disk.FailFsync(unix.EIO, 1)
			n, err := f.WriteAt([]byte("lost"), 0)
			if name == "background" {
				if n != 4 || err != nil {
					t.Fatalf("WriteAt: %d, %v", n, err)
				}
				until(t, "failed", func() bool { return mmapio.SyncFailed(f) })
				switch i { // whoever comes next
				case 0:
					n, err = f.WriteAt([]byte("lost"), 0)
				case 1:
					err = mmapio.StoreAt(f, 0, uint32(1))
				case 2:
					err = f.Update(0, 1, func([]byte) error { return nil })
				case 3:
					err = f.Sync()
				case 4:
					err = f.Close()
				}
			}
			if n != 4 || !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "before") {
				t.Errorf("%s, %d: %d, %v", name, i, n, err)
			}
			if name == "background" && i == 4 {
				continue
			}
			for range 2 {
				n, err = f.WriteAt([]byte("lost"), 0)
				wantPathError(t, err, "writeat", path, unix.EIO)
				if n != 4 || !strings.Contains(err.Error(), "before") {
					t.Errorf("%s: %d, %v", name, n, err)
				}
				wantPathError(t, mmapio.StoreAt(f, 0, uint32(1)), "storeat", path, unix.EIO)
				wantPathError(t, f.Update(0, 1, func([]byte) error { return nil }), "update", path, unix.EIO)
				wantPathError(t, f.UpdateChunks(0, 2, 1, func(mmapio.Chunk) error { return nil }), "updatechunks", path, unix.EIO)
				wantFailed(t, f, path)
			}
			wantPathError(t, f.Close(), "close", path, unix.EIO)
		}
	}
}

// TestPolicyFailsBeside: an error of the write itself is what its caller is told,
// also where the sync after it fails; that is for whoever syncs next.
func TestPolicyFailsBeside(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	f := synced(t, disk, mmapio.SyncPolicy{Writes: 1})
	disk.FailFsync(unix.EIO, 1)
	if err := f.Update(0, 1, func([]byte) error { return errInjected }); !errors.Is(err, errInjected) {
		t.Errorf("Update: %v, want what the function returned", err)
	}
	wantFailed(t, f, disk.Path("f"))
	wantPathError(t, f.Close(), "close", disk.Path("f"), unix.EIO)
}

// TestPolicyPartly: what was stored counts, also if the call has an error of its own,
// which is the one that comes back.
func TestPolicyPartly(t *testing.T) {
	prove.Need(t, prove.BusAddress, prove.FileEnd)
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	f := synced(t, disk, mmapio.SyncPolicy{Bytes: 2 * pageSize})
	mine := errors.New("mine")
	err := f.UpdateChunks(0, 5*pageSize, pageSize, func(c mmapio.Chunk) error {
		c.Data[0]++
		if c.Off == pageSize {
			return mine
		}
		return nil
	})
	if err != mine { //nolint:errorlint // the very same
		t.Errorf("UpdateChunks: %v", err)
	}
	wantSyncs(t, disk, "two pieces, of which the last fails", 1, 0)
	mustClose(t, f)

	f = synced(t, disk, mmapio.SyncPolicy{Writes: 1})
	check(t, os.Truncate(f.Name(), 5*pageSize))
	disk.ResetLog()
	n, err := f.WriteAt(make([]byte, 2*pageSize), 4*pageSize)
	if n != int(pageSize) {
		t.Errorf("WriteAt across the new end: %d bytes", n)
	}
	wantFault(t, err, "writeat", 5*pageSize, 0, io.ErrUnexpectedEOF)
	wantSyncs(t, disk, "half a write", 1, 0)
	mustClose(t, f)
}
