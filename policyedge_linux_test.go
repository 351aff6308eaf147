package mmapio_test

import (
	"errors"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// TestPolicyWithoutWrites: a call that stores nothing, or that is refused, is no write:
// it syncs nothing, has nothing synced later, and tells of no sync that failed.
func TestPolicyWithoutWrites(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	nothing := func([]byte) error { return nil }
	for _, p := range []mmapio.SyncPolicy{{Writes: 1}, {Bytes: 1}, {Interval: time.Hour}} {
		f := synced(t, disk, p)
		_, err := f.WriteAt(nil, 0)
		noError(t, "WriteAt of nothing", err)
		noError(t, "Update of nothing", f.Update(0, 0, nothing))
		noError(t, "UpdateChunks of nothing", f.UpdateChunks(0, 0, 1, func(mmapio.Chunk) error { return nil }))
		if f.Update(f.Size(), 1, nothing) == nil || f.UpdateChunks(f.Size(), 1, 1, func(mmapio.Chunk) error { return nil }) == nil ||
			mmapio.StoreAt(f, f.Size(), byte(1)) == nil {
			t.Error("a write behind the end")
		}
		wantSyncs(t, disk, "what is no write", 0, 0)
		if mmapio.Armed(f) {
			t.Errorf("%+v: there is a sync to come though nothing was written", p)
		}
		store(t, f, 0, "x")
		if p.Interval > 0 && !mmapio.Armed(f) {
			t.Error("no sync is to come though something was written")
		}
		mustClose(t, f)
	}
}

// TestPolicySaysWhose: an error of a sync that nobody called for says what that was,
// and names the file once.
func TestPolicySaysWhose(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	path := disk.Path("f")
	says := func(err error, op string) {
		t.Helper()
		wantPathError(t, err, op, path, unix.EIO)
		if want := op + " " + path + ": the sync that Options.Sync asks for: "; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v does not begin with %q", err, want)
		}
	}
	f := synced(t, disk, mmapio.SyncPolicy{Writes: 1})
	disk.FailFsync(unix.EIO, 1)
	says(writeByte(f, 0), "writeat")
	says(writeByte(f, 0), "writeat")
	says(f.Close(), "close")
	f = synced(t, disk, mmapio.SyncPolicy{Bytes: 1 << 40})
	disk.FailFsync(unix.EIO, 1)
	store(t, f, 0, "x")
	says(f.Close(), "close")
}

// TestPolicyClosedMeanwhile: a write whose File is closed before its sync says that it
// is closed, and nothing about the disk.
func TestPolicyClosedMeanwhile(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	f := synced(t, disk, mmapio.SyncPolicy{Writes: 1})
	err := f.Update(0, 1, func(b []byte) error {
		b[0] = 'x'
		return f.Close()
	})
	wantPathError(t, err, "update", disk.Path("f"), fs.ErrClosed)
	if err != nil && strings.Contains(err.Error(), "Options.Sync") {
		t.Errorf("%v: it is not the sync that failed", err)
	}
}

// TestPolicyEnds: after a sync in the background has failed, and after Close, no other
// is to come, though memory is held.
func TestPolicyEnds(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	f := synced(t, disk, mmapio.SyncPolicy{Interval: time.Millisecond})
	disk.FailFsync(unix.EIO, 1)
	r := mustRegion(t, f, 0, 1)
	until(t, "failed", func() bool { return mmapio.SyncFailed(f) })
	until(t, "quiet", func() bool { return mmapio.Quiet(f) })
	r.Release()
	if err := f.Close(); !errors.Is(err, unix.EIO) {
		t.Errorf("Close: %v", err)
	}

	f = synced(t, disk, mmapio.SyncPolicy{Interval: time.Hour})
	r = mustRegion(t, f, 0, 1)
	mustClose(t, f)
	n := mmapio.Asked(f)
	mmapio.Tick(f)
	r.Release()
	mmapio.Tick(f)
	if got := mmapio.Asked(f); got != n {
		t.Errorf("%d syncs after Close", got-n)
	}
}

// TestPolicyClosedWhileHeld: Close waits for no write where memory is held, so one that
// comes too late for the last sync says that the File is closed, though none was due.
func TestPolicyClosedWhileHeld(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	for _, p := range []mmapio.SyncPolicy{{Writes: 2}, {Bytes: 1 << 40}, {Interval: time.Hour}} {
		for name, write := range map[string]func(f *mmapio.File) error{
			"WriteAt": func(f *mmapio.File) error { _, err := f.WriteAt([]byte("late"), 0); return err },
			"StoreAt": func(f *mmapio.File) error { return mmapio.StoreAt(f, 0, [4]byte{'l', 'a', 't', 'e'}) },
		} {
			f := synced(t, disk, p)
			r := mustRegion(t, f, 0, 1)
			var once sync.Once
			restore := mmapio.WhenFound(func() { once.Do(func() { mustClose(t, f) }) })
			err := write(f)
			restore()
			r.Release()
			if f.Size() != 0 {
				t.Fatal("it is open still: this proves nothing")
			}
			var got [4]byte
			if disk.DurableAt("f", got[:], 0); err == nil && string(got[:]) != "late" {
				t.Errorf("%+v: %s succeeds, and %q is durable after Close", p, name, got)
			}
			if err != nil {
				wantPathError(t, err, strings.ToLower(name), disk.Path("f"), fs.ErrClosed)
			}
		}
	}
}
