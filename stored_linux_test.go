package mmapio_test

import (
	"errors"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// TestOnlyWhatIsStored: WriteAt and StoreAt make ready the pages that they
// store to and no other, Update none, be it by a hole filled, a page dirtied or
// a page copied.
func TestOnlyWhatIsStored(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	prove.Need(t, prove.Advice, prove.Disk, prove.Cachestat)
	t.Run("disk", func(t *testing.T) { onlyWhatIsStored(t, prove.DiskDir(t), true) })
	t.Run("tmpfs", func(t *testing.T) {
		prove.Need(t, prove.TmpfsMount)
		onlyWhatIsStored(t, prove.SmallTmpfs(t, 1<<20), false)
	})
}

func onlyWhatIsStored(t *testing.T, dir string, dirties bool) {
	path := filepath.Join(dir, "sparse")
	o := mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: 64 * pageSize, Sparse: true}
	f := mustOpen(t, path, &o)
	state := func() (blocks, dirty int64) {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		var st unix.Cachestat_t
		if err := unix.Cachestat(uint(file.Fd()), &unix.CachestatRange{}, &st, 0); errors.Is(err, unix.ENOSYS) {
			prove.Unable(t, "no cachestat(2)")
		} else if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Blocks * 512, int64(st.Dirty + st.Writeback)
	}
	look := touchSlice
	if !dirties {
		look = func([]byte) error { return nil } // to load a byte fills the hole
	}
	if err := f.Update(0, f.Size(), look); err != nil {
		t.Fatal(err)
	}
	if err := f.UpdateChunks(0, f.Size(), 100, func(c mmapio.Chunk) error { return look(c.Data) }); err != nil {
		t.Fatal(err)
	}
	if blocks, dirty := state(); blocks != 0 || dirty != 0 {
		t.Errorf("to look at a file of holes gave it %d bytes of blocks, %d dirty pages", blocks, dirty)
	}
	store(t, f, 3*pageSize-1, "ab") // pages 2 and 3
	if err := mmapio.StoreAt[uint64](f, 9*pageSize, 1); err != nil {
		t.Fatal(err)
	}
	if _, dirty := state(); dirty != 3 && dirties {
		t.Errorf("%d dirty pages after stores to 3", dirty)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if blocks, _ := state(); blocks != 3*pageSize {
		t.Errorf("stores to 3 pages gave the file %d bytes of blocks", blocks)
	}
	mustClose(t, f)

	f = mustOpen(t, path, &mmapio.Options{Mode: mmapio.CopyOnWrite})
	if err := f.Update(0, f.Size(), look); err != nil {
		t.Fatal(err)
	}
	store(t, f, 5*pageSize-1, "ab")
	if v := prove.Mapping(t, peek(t, f)); v.Anonymous != 2*pageSize {
		t.Errorf("%d bytes were copied for stores to 2 pages", v.Anonymous)
	}
}

// On a file system that keeps files in memory and has no more, a hole can be read,
// however often, and does not stand in the way of who stores to what is there. To
// look at what lies in between brings in nothing but that.
func TestHolesOfFullTmpfs(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Advice, prove.Cachestat)
	prove.Need(t, prove.TmpfsMount)
	dir := prove.SmallTmpfs(t, 1<<20)
	path := filepath.Join(dir, "sparse")
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: 64 * pageSize, Sparse: true})
	store(t, f, 0, "x")
	store(t, f, 40*pageSize, "y")
	fillDisk(t, dir)
	for range 5 {
		p := []byte("not zero")
		if n, err := f.ReadAt(p, 9*pageSize); n != len(p) || err != nil || string(p) != string(make([]byte, len(p))) {
			t.Fatalf("a hole: %d %q %v", n, p, err)
		}
	}
	all := make([]byte, f.Size())
	_, err := f.ReadAt(all, 0)
	check(t, err)
	same(t, "all", all, onDisk(t, path))
	check(t, f.Update(0, f.Size(), func(b []byte) error { b[0], b[40*pageSize] = 'X', 'Y'; return nil }))
	if b := onDisk(t, path); b[0] != 'X' || b[40*pageSize] != 'Y' {
		t.Error("Update has not stored")
	}
	// Of a hole that is cut in two the rest is none.
	check(t, os.Truncate(path, 30*pageSize+100))
	fillDisk(t, dir)
	if n, err := f.ReadAt(make([]byte, 200), 30*pageSize); n > 100 || err == nil {
		t.Errorf("%d bytes where the file has 100, %v", n, err)
	}
	check(t, os.Truncate(path, 64*pageSize))
	// What is cut off is an error before fn is called, as anywhere.
	f = mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	check(t, os.Truncate(path, 50*pageSize))
	var fe *mmapio.FaultError
	err = f.Update(0, 64*pageSize, func([]byte) error { t.Error("fn is called"); return nil })
	if !errors.As(err, &fe) || fe.Off != 50*pageSize {
		t.Errorf("got %v", err)
	}
}

// A hole that View has left one is still none of what is in memory: a loop asks for
// it, and where there is no memory left it says so and does not fault.
func TestHoleIsNotKnown(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Cachestat, prove.BusAddress)
	prove.Need(t, prove.TmpfsMount)
	t.Cleanup(mmapio.KnownFor(time.Hour, time.Hour))
	dir := prove.SmallTmpfs(t, 1<<20)
	path := filepath.Join(dir, "sparse")
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: 16 * pageSize, Sparse: true})
	store(t, f, 0, "x")
	store(t, f, 5*pageSize, "y")
	fillDisk(t, dir)
	f.Expire()
	for _, lend := range []func(off, n int64, fn func([]byte) error) error{f.View, f.Update} {
		check(t, lend(0, f.Size(), func([]byte) error { return nil }))
		for p := range f.Size() / pageSize {
			if load, _ := f.Known(p*pageSize, 1); load != (p == 0 || p == 5) {
				t.Errorf("page %d is known: %v", p, load)
			}
		}
	}
	for name, all := range map[string]iter.Seq2[mmapio.Chunk, error]{
		"Chunks": f.Chunks(0, f.Size(), pageSize),
		"Pages":  f.Pages(0, f.Size()),
	} {
		passed := 0
		err := mmapio.Guard(func() error {
			return through(all, func(c mmapio.Chunk) error { passed++; return touchSlice(c.Data) })
		})
		var fe *mmapio.FaultError
		if !errors.As(err, &fe) || fe.Op != strings.ToLower(name) || fe.Off != pageSize || passed != 1 || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: %v after %d pieces", name, err, passed)
		}
	}
}

// Who may only read is told, too, that there is no memory for a hole.
func TestHoleOfReadOnly(t *testing.T) {
	prove.Need(t, prove.BusAddress, prove.TmpfsMount)
	dir := prove.SmallTmpfs(t, 1<<20)
	path := filepath.Join(dir, "sparse")
	mustClose(t, mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: 16 * pageSize, Sparse: true}))
	fillDisk(t, dir)
	f := mustOpen(t, path, &mmapio.Options{Prefault: -1})
	err := f.View(0, f.Size(), func(b []byte) error { return touchSlice(b[3*pageSize:]) })
	wantFault(t, err, "view", 0, 0, unix.ENOSPC)
}
