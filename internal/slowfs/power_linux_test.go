//go:build !(386 || arm || mips || mipsle)

package slowfs

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func durable(t *testing.T, fs *FS, path, want string) {
	t.Helper()
	got, found := fs.Durable(path)
	if !found || string(got[:min(len(got), len(want))]) != want {
		t.Errorf("durable %s is %q, %v, want %q", path, got[:min(len(got), 16)], found, want)
	}
}

func TestStoreAndSync(t *testing.T) {
	fs := Start(t, Options{})
	fs.AddData("f", make([]byte, 8192))
	f := open(t, fs.Path("f"))
	m := mmap(t, f, 8192)
	copy(m, "first")
	copy(m[4096:], "second")
	durable(t, fs, "f", "\x00\x00\x00\x00\x00")
	ok(t, unix.Fdatasync(int(f.Fd())))
	wantOps(t, fs, "WRITE 0 8192", "FSYNC datasync=true")
	durable(t, fs, "f", "first")

	fs.ResetLog()
	copy(m, "third")
	ok(t, unix.Msync(m[:4096], unix.MS_SYNC))
	copy(m, "fourth")
	ok(t, f.Sync())
	wantOps(t, fs, "WRITE 0 4096", "FSYNC datasync=true", "WRITE 0 4096", "FSYNC datasync=false")

	fs.ResetLog()
	copy(m, "fifth")
	ok(t, unix.Msync(m, unix.MS_ASYNC)) // does nothing on Linux
	wantOps(t, fs)
	fs.Cut()
	durable(t, fs, "f", "fourth")
}

func TestUnmapAndCloseAreNoSync(t *testing.T) {
	for _, o := range []Options{{}, {NoFlush: true}, {WritebackCache: true}} {
		fs := Start(t, o)
		fs.AddData("f", make([]byte, 4096))
		f := open(t, fs.Path("f"))
		m := mmap(t, f, 4096)
		copy(m, "unmapped")
		ok(t, unix.Munmap(m))
		n := fs.Count(OpWrite)
		ok(t, f.Close())
		// FUSE writes at munmap, and waits for it.
		if got := fs.Stats().Count; n != 1 || got[OpFsync] != 0 || (got[OpFlush] != 0) == o.NoFlush {
			t.Errorf("%+v: %d writes at munmap, counts after close %v", o, n, got)
		}
		fs.Cut()
		durable(t, fs, "f", "\x00\x00\x00\x00")
	}
}

func TestPowerCut(t *testing.T) {
	fs := Start(t, Options{})
	fs.AddFile("f", 3*4096, Offsets)
	f := open(t, fs.Path("f"))
	m := mmap(t, f, 3*4096)
	copy(m, "synced")
	ok(t, unix.Fdatasync(int(f.Fd())))
	copy(m[4096:], "written")
	ok(t, unix.SyncFileRange(int(f.Fd()), 0, 3*4096, unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER))
	ok(t, f.Truncate(1<<20)) // drops the whole page cache of the file: also those that grow
	copy(m[2*4096:], "stored")

	fs.Cut()
	if err := unix.Fdatasync(int(f.Fd())); err == nil {
		t.Error("fdatasync succeeded without power")
	}
	if _, err := os.Stat(fs.Path("f")); !errors.Is(err, unix.EIO) {
		t.Errorf("stat without power: %v, want EIO", err)
	}
	want := make([]byte, 3*4096)
	Offsets.Bytes(want, 0)
	copy(want, "synced")
	if got, found := fs.Durable("f"); !found || !bytes.Equal(got, want) {
		t.Errorf("%d bytes left, found %v: not what was synced", len(got), found)
	}

	fs.PowerOn()
	if got, err := os.ReadFile(fs.Path("f")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("after power on: %d bytes, %v", len(got), err)
	}
	// The page that is dirty since before the cut, or a write through the old descriptor, must not reach the new file.
	if _, err := f.WriteAt([]byte("from before"), 0); !errors.Is(err, unix.ESTALE) {
		t.Errorf("write through a descriptor from before the cut: %v, want ESTALE", err)
	}
	if err := unix.Fdatasync(int(f.Fd())); err == nil {
		t.Error("a descriptor from before the cut syncs")
	}
	if got, err := os.ReadFile(fs.Path("f")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what is from before the cut changed the new file: %v", err)
	}
	g := open(t, fs.Path("f"))
	_, err := g.WriteAt([]byte("again"), 0)
	ok(t, err)
	ok(t, g.Sync())
	fs.Cut()
	durable(t, fs, "f", "again")
}

// TestCutDuringFsync: only an answered FSYNC counts, and it keeps what there was when it came.
func TestCutDuringFsync(t *testing.T) {
	fs := Start(t, Options{})
	fs.AddData("f", []byte("old"))
	f := open(t, fs.Path("f"))
	_, err := f.WriteAt([]byte("new"), 0)
	ok(t, err)
	fs.Hold(OpFsync, "")
	done := make(chan error, 1)
	go func() { done <- f.Sync() }()
	fs.WaitHeld(1)
	fs.Cut()
	if err := <-done; !errors.Is(err, unix.EIO) {
		t.Errorf("fsync that met the power cut: %v, want EIO", err)
	}
	durable(t, fs, "f", "old")
	fs.RemoveRules()
	fs.PowerOn()

	f = open(t, fs.Path("f"))
	m := mmap(t, f, 4096)
	copy(m, "new")
	release := fs.Hold(OpFsync, "")
	go func() { done <- f.Sync() }()
	fs.WaitHeld(1)
	copy(m, "too late") // by write(2) it would wait for the fsync: FUSE has one lock for both
	ok(t, unix.SyncFileRange(int(f.Fd()), 0, 4096, unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER))
	if n := fs.Count(OpWrite); n != 3 {
		t.Errorf("%d writes, want one more while the fsync is held", n)
	}
	release()
	ok(t, <-done)
	fs.Cut()
	durable(t, fs, "f", "new")
}

func TestNamesNeedTheirOwnSync(t *testing.T) {
	for _, journal := range []bool{false, true} {
		fs := Start(t, Options{FsyncCommitsNames: journal})
		f := open(t, fs.Path("f"))
		_, err := f.WriteString("data")
		ok(t, err)
		ok(t, f.Sync())
		if _, found := fs.Durable("f"); found != journal {
			t.Errorf("journal %v: after fsync of the file its name is durable: %v", journal, found)
		}
		dir, err := os.Open(fs.Dir())
		ok(t, err)
		ok(t, dir.Sync())
		durable(t, fs, "f", "data")

		// Written anew and renamed over it: one of the two is there, whole.
		g := open(t, fs.Path("f.tmp"))
		_, err = g.WriteString("more")
		ok(t, err)
		ok(t, g.Sync())
		ok(t, os.Rename(fs.Path("f.tmp"), fs.Path("f")))
		durable(t, fs, "f", "data")
		ok(t, dir.Sync())
		ok(t, dir.Close())
		fs.Cut()
		durable(t, fs, "f", "more")
		if _, found := fs.Durable("f.tmp"); found {
			t.Error("the temporary name is still there")
		}
		fs.PowerOn()
		if list, err := os.ReadDir(fs.Dir()); err != nil || len(list) != 1 {
			t.Errorf("after power on: %v, %v", list, err)
		}
	}
}

func TestFsyncErrors(t *testing.T) {
	fs := Start(t, Options{})
	fs.AddData("f", make([]byte, 4096))
	f := open(t, fs.Path("f"))
	m := mmap(t, f, 4096)
	copy(m, "lost")
	fs.FailFsync(unix.EIO, 1)
	if err := f.Sync(); !errors.Is(err, unix.EIO) {
		t.Errorf("fsync: %v, want EIO", err)
	}
	ok(t, f.Sync()) // told once; but what it was about is lost
	durable(t, fs, "f", "\x00\x00\x00\x00")
	if log := fs.Log(OpFsync); len(log) != 2 || log[0].Err() != unix.EIO || log[1].Err() != nil {
		t.Errorf("log %+v", log)
	}

	// An error of the write-back is told once to each open file description.
	g := open(t, fs.Path("f"))
	remove := fs.FailWrites("f", 0, 0, unix.EIO)
	copy(m, "unwritable")
	for _, h := range []*os.File{f, g} {
		if err := h.Sync(); !errors.Is(err, unix.EIO) {
			t.Errorf("fsync after a failed write-back: %v, want EIO", err)
		}
	}
	remove()
	ok(t, f.Sync())
	durable(t, fs, "f", "\x00\x00\x00\x00")
}

func TestDelayedWriteBack(t *testing.T) {
	fs := Start(t, Options{WriteDelay: 30 * time.Millisecond, FsyncDelay: 30 * time.Millisecond})
	fs.AddData("f", make([]byte, 4096))
	f := open(t, fs.Path("f"))
	m := mmap(t, f, 4096)
	m[0] = 1
	start := time.Now()
	ok(t, unix.Fdatasync(int(f.Fd())))
	if took := time.Since(start); took < 60*time.Millisecond {
		t.Errorf("fdatasync took %v", took)
	}
}
