package mmapio_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// TestSyncMeetsClose: a Sync that is under way ends with what comes of it, one
// that waits for it with the news that the File is closed. (Close waits here,
// since package os takes a file for one that can be polled.)
func TestSyncMeetsClose(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	f := opened(t)(mmapio.Create(disk.Path("f"), pageSize))
	noError(t, "Sync", f.Sync())
	release := disk.Hold(slowfs.OpFsync, "f")
	done, closing := make(chan error, 2), make(chan error, 1)
	go func() { done <- f.Sync() }()
	disk.WaitHeld(1)
	go func() { done <- f.Sync() }() // waits for the first
	until(t, "asked", func() bool { return mmapio.Asked(f) == 3 })
	go func() { closing <- f.Close() }()
	until(t, "closed", func() bool { return f.Size() == 0 })
	release()
	noError(t, "Close", <-closing)
	var closed int
	for range 2 {
		if err := <-done; errors.Is(err, fs.ErrClosed) {
			closed++
		} else if err != nil {
			t.Error(err)
		}
	}
	if closed > 1 {
		t.Errorf("%d of 2 found the File closed, want at most the one that had not begun", closed)
	}
}

// TestSyncShared: calls that wait for one that is under way share the next.
func TestSyncShared(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	f := opened(t)(mmapio.Create(disk.Path("f"), pageSize))
	noError(t, "Sync", f.Sync())
	disk.ResetLog()
	release := disk.Hold(slowfs.OpFsync, "f")
	const callers = 20
	done := make(chan error, callers)
	before := mmapio.Asked(f)
	for i := range callers {
		go func() { done <- f.Sync() }()
		if i == 0 {
			disk.WaitHeld(1)
		}
	}
	until(t, "asked", func() bool { return mmapio.Asked(f) == before+callers })
	store(t, f, 0, "before the second")
	release()
	for range callers {
		noError(t, "Sync", <-done)
	}
	wantSyncs(t, disk, "20 callers", 2, 0)
	var got [17]byte
	disk.DurableAt("f", got[:], 0)
	if string(got[:]) != "before the second" {
		t.Errorf("%q is durable", got)
	}
	mustClose(t, f)
}

// TestSyncSyscalls counts the system calls of each call. The FSYNCs of a file
// system tell more, but not what costs nothing there.
func TestSyncSyscalls(t *testing.T) {
	prove.LeakCheck(t)
	prove.NeedE2E(t, prove.Root, prove.TmpfsMount, prove.MapQuery)
	path := prove.NewFile(t, prove.SmallTmpfs(t, 4<<20), "f", 64*pageSize)
	write := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	pinned := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	for i := int64(1); i < 64; i += 2 {
		p, err := pinned.Pin(i*pageSize, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Release()
	}
	read := mustOpen(t, path, nil)
	private := mustOpen(t, path, &mmapio.Options{Mode: mmapio.CopyOnWrite})
	memory := opened(t)(mmapio.Anonymous(64*pageSize, nil))
	all := func(f *mmapio.File) func() error { return func() error { return f.SyncRange(1, f.Size()-1) } }
	start := func(f *mmapio.File) func() error { return func() error { return f.StartSync(1, f.Size()-1) } }
	for what, c := range map[string]struct {
		call func() error
		want int
	}{
		"Sync":                              {write.Sync, 1},                                       // fdatasync
		"SyncRange":                         {all(write), 2},                                       // whether it is one mapping, msync
		"SyncRange of a page":               {func() error { return write.SyncRange(5000, 3) }, 1}, // msync
		"StartSync":                         {start(write), 1},                                     // sync_file_range
		"Sync with pinned pages":            {pinned.Sync, 1},
		"SyncRange over 64 mappings":        {all(pinned), 2}, // whether it is one mapping, fdatasync
		"Sync of a ReadOnly File":           {read.Sync, 0},
		"SyncRange of a ReadOnly File":      {all(read), 0},
		"StartSync of a ReadOnly File":      {start(read), 0},
		"Sync of a CopyOnWrite File":        {private.Sync, 0},
		"SyncRange of a CopyOnWrite File":   {all(private), 0},
		"Sync of an anonymous File":         {memory.Sync, 0},
		"SyncRange of an anonymous File":    {all(memory), 0},
		"StartSync of an anonymous File":    {start(memory), 0},
		"SyncRange of nothing, of any File": {func() error { return write.SyncRange(7, 0) }, 0},
	} {
		noError(t, what, c.call()) // the first may do more
		const calls = 2000
		n := prove.CountSyscalls(t, 0, func() {
			for range calls {
				if err := c.call(); err != nil {
					t.Fatal(err)
				}
			}
		})
		// The runtime makes some of its own.
		if n < c.want*calls || n > c.want*calls+calls/2 {
			t.Errorf("%s: %d system calls in %d, want %d each", what, n, calls, c.want)
		}
	}
	for _, f := range []*mmapio.File{read, private, memory, write} {
		mustClose(t, f)
	}
}

// A wide SyncRange waits for the disk where no Resize has to wait for it, and so
// nobody who waits for that.
func TestSyncRangeGivesWay(t *testing.T) {
	const size = 4 << 20
	f := opened(t)(mmapio.Create(filepath.Join(t.TempDir(), "f"), size))
	store(t, f, 0, "stored")
	wrote := 0
	defer mmapio.SetFailpoint(func(step string) error {
		if step == "write out" {
			wrote++
			mustResize(t, f, size-pageSize)
		}
		return nil
	})()
	noError(t, "SyncRange", f.SyncRange(0, size/2))
	if wrote != 1 {
		t.Errorf("written out %d times", wrote)
	}
	noError(t, "SyncRange of a little", f.SyncRange(0, 1))
	if wrote != 1 {
		t.Error("so little need not be written out first")
	}
}

// TestSyncRangeFailsAtFirst: a wide range is written out before it is synced, and
// that is told what the disk has refused, once: the sync itself may hear nothing.
func TestSyncRangeFailsAtFirst(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	disk.AddData("f", make([]byte, 2<<20))
	f := mustOpen(t, disk.Path("f"), &mmapio.Options{Mode: mmapio.ReadWrite})
	store(t, f, 0, "lost")
	remove := disk.FailWrites("f", 0, 0, unix.EIO)
	err := f.SyncRange(0, f.Size())
	remove()
	wantPathError(t, err, "syncrange", disk.Path("f"), unix.EIO)
	wantFailed(t, f, disk.Path("f"))
	mustClose(t, f)
}
