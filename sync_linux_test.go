package mmapio_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// wantSyncs checks how many requests to sync reached the disk since the last
// look.
func wantSyncs(t testing.TB, disk *slowfs.FS, what string, files, dirs int) {
	t.Helper()
	got := disk.Stats().Count
	if got[slowfs.OpFsync] != files || got[slowfs.OpFsyncDir] != dirs {
		t.Errorf("%s: %d FSYNC, %d FSYNCDIR, want %d, %d", what, got[slowfs.OpFsync], got[slowfs.OpFsyncDir], files, dirs)
	}
	for _, e := range disk.Log(slowfs.OpFsync) {
		if !e.Datasync {
			t.Errorf("%s: fsync, not fdatasync", what)
		}
	}
	disk.ResetLog()
}

func noError(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// until waits for what another goroutine does.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: ", what)
		}
	}
}

// TestSyncRequests counts what reaches the file system for each call.
func TestSyncRequests(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	const pages = 2002
	f := opened(t)(mmapio.Create(disk.Path("f"), pages*pageSize))
	noError(t, "Sync", f.Sync())
	wantSyncs(t, disk, "Sync after Create", 1, 1)
	noError(t, "Sync", f.Sync())
	wantSyncs(t, disk, "Sync with nothing to do", 1, 0)

	noError(t, "SyncRange", f.SyncRange(100, 5*pageSize))
	wantSyncs(t, disk, "SyncRange", 1, 0)
	noError(t, "SyncRange", f.SyncRange(0, 0))
	wantSyncs(t, disk, "SyncRange of nothing", 0, 0)
	s, err := f.Section(5000, 100)
	noError(t, "Section", err)
	noError(t, "Section.Sync", s.Sync())
	wantSyncs(t, disk, "Section.Sync", 1, 0)
	r, err := f.Region(7000, 9000)
	noError(t, "Region", err)
	noError(t, "Region.Sync", r.Sync())
	wantSyncs(t, disk, "Region.Sync", 1, 0)

	var pins []*mmapio.Pin
	for i := int64(0); i < 1000; i++ {
		p, err := f.Pin((2*i+1)*pageSize, 1)
		if err != nil {
			t.Fatal(err)
		}
		pins = append(pins, p)
	}
	disk.ResetLog()
	noError(t, "SyncRange", f.SyncRange(0, f.Size()))
	wantSyncs(t, disk, "SyncRange over 2,001 mappings", 1, 0)
	noError(t, "SyncRange", f.SyncRange(10*pageSize, 100*pageSize))
	wantSyncs(t, disk, "SyncRange over 100 mappings", 1, 0)
	noError(t, "Sync", f.Sync())
	wantSyncs(t, disk, "Sync with 2,001 mappings", 1, 0)
	for _, p := range pins {
		p.Release()
	}

	// The Region is of an older generation from here on.
	noError(t, "Resize", f.Resize(2*pages*pageSize))
	disk.ResetLog()
	copy(r.Bytes(), "old generation")
	noError(t, "Region.Sync", r.Sync())
	wantSyncs(t, disk, "Region.Sync after Resize", 1, 0)
	var got [14]byte
	disk.DurableAt("f", got[:], 7000)
	if string(got[:]) != "old generation" {
		t.Errorf("%q is durable", got)
	}
	r.Release()

	for _, mode := range []mmapio.Mode{mmapio.ReadOnly, mmapio.CopyOnWrite} {
		g := mustOpen(t, disk.Path("f"), &mmapio.Options{Mode: mode})
		noError(t, "Sync", g.Sync())
		noError(t, "SyncRange", g.SyncRange(0, g.Size()))
		noError(t, "StartSync", g.StartSync(0, g.Size()))
		mustClose(t, g)
		wantSyncs(t, disk, mode.String(), 0, 0)
	}
	mustClose(t, f)
	wantSyncs(t, disk, "Close", 0, 0)
}

// TestStartSync: it has exactly the range written, what was stored through the
// mapping too, and makes nothing durable.
func TestStartSync(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	disk.AddFile("f", 16*pageSize, slowfs.Offsets)
	f := mustOpen(t, disk.Path("f"), &mmapio.Options{Mode: mmapio.ReadWrite, Offset: 100})
	for i := range f.Size() / pageSize {
		store(t, f, i*pageSize, "dirty")
	}
	disk.ResetLog()
	disk.Hold(slowfs.OpWrite, "f")
	noError(t, "StartSync", f.StartSync(4*pageSize, 3*pageSize)) // does not wait
	until(t, "the WRITE comes", func() bool { return disk.Count(slowfs.OpWrite) > 0 })
	var n int64
	for _, e := range disk.Log(slowfs.OpWrite) {
		n += e.Len
		if e.Off < 4*pageSize || e.Off+e.Len > 8*pageSize {
			t.Errorf("writes [%d, %d)", e.Off, e.Off+e.Len)
		}
	}
	if n != 4*pageSize {
		t.Errorf("writes %d bytes, want 4 pages", n)
	}
	disk.RemoveRules()
	wantSyncs(t, disk, "StartSync", 0, 0)
	noError(t, "Sync", f.Sync())
	mustClose(t, f)
}

// TestSyncRangeIsOne: pages beside the range stay dirty, so it is the range that
// was synced, as long as it is one mapping.
func TestSyncRangeIsOne(t *testing.T) {
	prove.LeakCheck(t)
	prove.NeedE2E(t, prove.Ext4, prove.Cachestat, prove.MapQuery)
	f := opened(t)(mmapio.Create(prove.LoopFS(t, "ext4", 16<<20).Dir+"/f", 64*pageSize))
	noError(t, "Sync", f.Sync())
	dirty := func(off, n int64) uint64 {
		var st unix.Cachestat_t
		if err := unix.Cachestat(uint(fdOf(t, f)), &unix.CachestatRange{Off: uint64(off), Len: uint64(n)}, &st, 0); err != nil {
			prove.Unable(t, "cachestat: %v", err)
		}
		return st.Dirty
	}
	store(t, f, 3*pageSize-1, "two pages")
	store(t, f, 40*pageSize, "another")
	if n := dirty(0, f.Size()); n < 3 {
		t.Fatalf("%d pages are dirty, want 3", n)
	}
	noError(t, "SyncRange", f.SyncRange(3*pageSize-1, 9))
	if n := dirty(0, 16*pageSize); n != 0 {
		t.Errorf("%d pages of the range are dirty", n)
	}
	if dirty(40*pageSize, 1) != 1 {
		t.Error("all was synced, not the range")
	}
	// What was stored through the mapping is begun by StartSync, too.
	noError(t, "StartSync", f.StartSync(40*pageSize, 1))
	until(t, "written", func() bool { return dirty(40*pageSize, 1) == 0 })
	mustClose(t, f)
}

// TestSyncFails: the error arrives, names the file, and stays, whichever call
// met it, on whatever generation.
func TestSyncFails(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	for name, meet := range map[string]func(t *testing.T, f *mmapio.File) (op string, err error){
		"Sync":      func(_ *testing.T, f *mmapio.File) (string, error) { return "sync", f.Sync() },
		"SyncRange": func(_ *testing.T, f *mmapio.File) (string, error) { return "syncrange", f.SyncRange(0, 1) },
		"PageOut": func(_ *testing.T, f *mmapio.File) (string, error) {
			return "advise", f.Advise(0, f.Size(), mmapio.AdvicePageOut)
		},
		"old generation": func(t *testing.T, f *mmapio.File) (string, error) {
			r, err := f.Region(0, 100)
			noError(t, "Region", err)
			defer r.Release()
			noError(t, "Resize", f.Resize(50*pageSize))
			return "sync", r.Sync()
		},
		"pinned": func(t *testing.T, f *mmapio.File) (string, error) {
			p, err := f.Pin(0, 1)
			noError(t, "Pin", err)
			defer p.Release()
			return "syncrange", f.SyncRange(0, f.Size())
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := disk.Path(strings.ReplaceAll(name, " ", ""))
			f := opened(t)(mmapio.Create(path, 4*pageSize))
			noError(t, "Sync", f.Sync())
			store(t, f, 0, "lost")
			disk.FailFsync(unix.EIO, 1)
			op, err := meet(t, f)
			wantPathError(t, err, op, path, unix.EIO)
			if strings.Contains(err.Error(), "before") {
				t.Errorf("%v: it is told for the first time", err)
			}
			// The file system itself has forgotten.
			for range 2 {
				wantFailed(t, f, path)
			}
			noError(t, "Close", f.Close())
		})
	}
}

// wantFailed checks that all calls report a failure of before.
func wantFailed(t *testing.T, f *mmapio.File, path string) {
	t.Helper()
	wantPathError(t, f.Sync(), "sync", path, unix.EIO)
	wantPathError(t, f.SyncRange(0, 1), "syncrange", path, unix.EIO)
	wantPathError(t, f.StartSync(0, 1), "startsync", path, unix.EIO)
	wantPathError(t, f.SyncRange(1, 0), "syncrange", path, unix.EIO)
	wantPathError(t, f.StartSync(1, 0), "startsync", path, unix.EIO)
	if err := f.Sync(); !strings.Contains(err.Error(), "before") {
		t.Errorf("%v: does not say that it is old", err)
	}
}

// TestWriteBackFails: an error of the write-back reaches the next Sync, also
// when it was StartSync that had begun it, and when the program has been told
// by its own descriptor.
func TestWriteBackFails(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	for name, meet := range map[string]func(*testing.T, *mmapio.File, *os.File){
		"start": func(t *testing.T, f *mmapio.File, _ *os.File) {
			if err := f.StartSync(0, f.Size()); err != nil {
				t.Logf("StartSync itself: %v", err)
			}
			until(t, "written", func() bool {
				log := disk.Log(slowfs.OpWrite)
				return len(log) > 0 && log[0].Done
			})
		},
		"caller": func(t *testing.T, _ *mmapio.File, own *os.File) {
			if err := own.Sync(); !errors.Is(err, unix.EIO) {
				t.Errorf("the caller's fsync: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			disk.AddData(name, make([]byte, 4*pageSize))
			own, err := os.OpenFile(disk.Path(name), os.O_RDWR, 0)
			noError(t, "open", err)
			defer own.Close()
			f := opened(t)(mmapio.Map(own, &mmapio.Options{Mode: mmapio.ReadWrite}))
			store(t, f, 0, "lost")
			disk.ResetLog()
			remove := disk.FailWrites(name, 0, 0, unix.EIO)
			meet(t, f, own)
			remove()
			wantPathError(t, f.Sync(), "sync", disk.Path(name), unix.EIO)
			wantFailed(t, f, disk.Path(name))
			mustClose(t, f)
		})
	}
}

// TestWriteBackFailsOddly: the error of a write-back that a store to the same
// page has met reaches the next Sync, also one that a refused system call has.
func TestWriteBackFailsOddly(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	for _, errno := range []unix.Errno{unix.EIO, unix.EDQUOT, unix.EPERM, unix.EINVAL, unix.EOPNOTSUPP} {
		name := unix.ErrnoName(errno)
		disk.AddData(name, make([]byte, 4*pageSize))
		f := mustOpen(t, disk.Path(name), &mmapio.Options{Mode: mmapio.ReadWrite})
		store(t, f, 0, "lost")
		disk.ResetLog()
		remove := disk.FailWrites(name, 0, 0, errno)
		if err := f.StartSync(0, f.Size()); err != nil {
			t.Logf("StartSync itself: %v", err)
		}
		until(t, "written", func() bool {
			log := disk.Log(slowfs.OpWrite)
			return len(log) > 0 && log[0].Done
		})
		remove()
		store(t, f, 0, "late")
		wantPathError(t, f.Sync(), "sync", disk.Path(name), errno)
		mustClose(t, f)
	}
}

// refusedChild stores and syncs where sync_file_range(2) is refused.
var refusedChild = prove.Register("refused write-back", func(args []string) int {
	t := prove.T()
	f := mustOpen(t, args[0], &mmapio.Options{Mode: mmapio.ReadWrite})
	store(t, f, 0, "first")
	noError(t, "StartSync", f.StartSync(0, f.Size()))
	noError(t, "Sync", f.Sync())
	store(t, f, 0, "again")
	noError(t, "SyncRange", f.SyncRange(0, f.Size()))
	noError(t, "Close", f.Close())
	return 0
})

// TestWriteBackRefused: a filter that refuses the call which only begins or
// awaits a write-back keeps nothing from becoming durable.
func TestWriteBackRefused(t *testing.T) {
	prove.Need(t, prove.Filters)
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	for _, errno := range []unix.Errno{unix.ENOSYS, unix.EPERM, unix.EACCES, unix.EINVAL, unix.ESPIPE, unix.EOPNOTSUPP} {
		name := unix.ErrnoName(errno)
		disk.AddData(name, make([]byte, 2<<20)) // wide to SyncRange
		disk.ResetLog()
		if res := refusedChild.Run(t, prove.Args(disk.Path(name)), prove.Refuse(sysSyncFileRange, int(errno))); res.Code != 0 {
			t.Errorf("%s: %v", name, res)
		}
		wantSyncs(t, disk, name, 2, 0)
		var got [5]byte
		if disk.DurableAt(name, got[:], 0); string(got[:]) != "again" {
			t.Errorf("%s: %q is durable", name, got)
		}
	}
}

// TestSyncFailsInDirectory: what the kernel has told once of the entry it does not
// tell again.
func TestSyncFailsInDirectory(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	f := opened(t)(mmapio.Create(disk.Path("f"), 100))
	remove := disk.Add(slowfs.Rule{Op: slowfs.OpFsyncDir, Err: unix.EIO})
	err := f.Sync()
	wantPathError(t, err, "sync", disk.Path("f"), unix.EIO)
	if want := "the directory " + filepath.Dir(disk.Path("f")); !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q in it", err, want)
	}
	remove()
	wantPathError(t, f.Sync(), "sync", disk.Path("f"), unix.EIO)
	mustClose(t, f)
}

// TestSyncDirectoryWithoutSync: not every file system has an fsync for directories.
func TestSyncDirectoryWithoutSync(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	f := opened(t)(mmapio.Create(disk.Path("f"), 100))
	disk.Add(slowfs.Rule{Op: slowfs.OpFsyncDir, Err: unix.EINVAL})
	noError(t, "Sync", f.Sync())
	noError(t, "Sync", f.Sync())
	if n := disk.Count(slowfs.OpFsyncDir); n != 1 {
		t.Errorf("tried %d times", n)
	}
	mustClose(t, f)
}

var createAndSync = prove.Register("create and sync", func(args []string) int {
	t := prove.T()
	f, err := mmapio.Create(args[0], 4096)
	check(t, err)
	check(t, f.Sync())
	check(t, f.Close())
	return 0
})

// TestSyncInDirectoryNotListed: files are made there by whoever may not read it.
func TestSyncInDirectoryNotListed(t *testing.T) {
	dir := filepath.Join(prove.PublicDir(t), "box")
	check(t, os.Mkdir(dir, 0o700))
	check(t, os.Chmod(dir, 0o333))
	if r := createAndSync.Run(t, prove.AsNobody(), prove.Args(filepath.Join(dir, "f"))); r.Code != 0 {
		t.Error(r)
	}
}
