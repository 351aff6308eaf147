package mmapio_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// needFarMappings skips where the bare system call maps another part of the file
// than it is asked for: qemu before 8.0 cuts the offset to 32 bits for programs
// of 32 bits.
func needFarMappings(t testing.TB, file *os.File, at int64, want string) {
	t.Helper()
	from := at / pageSize * pageSize
	b, err := unix.Mmap(int(file.Fd()), from, int(pageSize), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	if got := string(b[at-from:][:len(want)]); got != want {
		prove.Unable(t, "mmap(2) itself shows %q where the file has %q", got, want)
	}
}

// TestSync: it succeeds in every mode, also when there is nothing to do, and
// while others store.
func TestSync(t *testing.T) {
	prove.LeakCheck(t)
	dir := t.TempDir()
	for _, size := range []int64{0, 1, 3*pageSize + 1} {
		f := opened(t)(mmapio.Create(filepath.Join(dir, fmt.Sprint("created", size)), size))
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for range 5 {
					if err := f.Sync(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for i := range size {
			store(t, f, i, "s")
		}
		wg.Wait()
		// The name is not needed for that: a program may rename or
		// remove the file before.
		if err := os.Remove(f.Name()); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Errorf("a file of %d bytes that was removed: %v", size, err)
		}
		mustClose(t, f)
	}
	path, content := patternFile(t, pageSize)
	for _, mode := range allModes {
		for _, dropped := range []bool{false, true} {
			f := mustOpen(t, path, &mmapio.Options{Mode: mode, DropFD: dropped})
			if mode != mmapio.ReadOnly {
				store(t, f, 0, "x")
			}
			err := f.Sync()
			if dropped && mode == mmapio.ReadWrite {
				wantPathError(t, err, "sync", path, errors.ErrUnsupported)
			} else if err != nil {
				t.Errorf("%v, DropFD %v: %v", mode, dropped, err)
			}
			mustClose(t, f)
		}
	}
	content[0] = 'x'
	same(t, "the file", onDisk(t, path), content)
}

// TestSyncRelative: the entry in the directory is made durable where the file
// was made, also for a program that has gone elsewhere.
func TestSyncRelative(t *testing.T) {
	prove.LeakCheck(t)
	dir := t.TempDir()
	t.Chdir(dir)
	f := opened(t)(mmapio.Create("relative", 10))
	elsewhere := filepath.Join(dir, "elsewhere")
	if err := os.Mkdir(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(elsewhere)
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	if f.Name() != "relative" {
		t.Errorf("Name() = %q", f.Name())
	}
	mustClose(t, f)
}

// TestSyscallConn lends the File's own descriptor, which is open for what the
// mode needs and no more.
func TestSyscallConn(t *testing.T) {
	prove.LeakCheck(t)
	path, content := patternFile(t, 100)
	for _, mode := range allModes {
		f := mustOpen(t, path, &mmapio.Options{Mode: mode, Offset: 50})
		fd := fdOf(t, f)
		var got [10]byte
		if n, err := unix.Pread(fd, got[:], 0); n != 10 || err != nil {
			t.Errorf("%v: pread: %d, %v", mode, n, err)
		}
		same(t, "pread", got[:], content[:10])
		if _, err := unix.Pwrite(fd, content[:1], 0); (err == nil) != (mode == mmapio.ReadWrite) {
			t.Errorf("%v: pwrite: %v", mode, err)
		}
		c, err := f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		mustClose(t, f)
		if err := c.Control(func(uintptr) { t.Error("the descriptor is lent after Close") }); err == nil {
			t.Error("Control after Close succeeds")
		}
	}
}

// The caller's bytes may be the File's own. The error is about the page that
// cannot be had, on whichever side it is.
func TestCopyWithinCutFile(t *testing.T) {
	prove.Need(t, prove.BusAddress, prove.FileEnd)
	path, _ := patternFile(t, 4*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	const good, bad = 0, 3
	for _, c := range []struct {
		name string
		copy func(b []byte) (int, error)
		from int64 // the page that is lent
		fail int64
	}{
		{"write from bad", func(b []byte) (int, error) { return f.WriteAt(b, good*pageSize) }, bad, bad},
		{"write to bad", func(b []byte) (int, error) { return f.WriteAt(b, bad*pageSize) }, good, bad},
		{"read into bad", func(b []byte) (int, error) { return f.ReadAt(b, good*pageSize) }, bad, bad},
		{"read from bad", func(b []byte) (int, error) { return f.ReadAt(b, bad*pageSize) }, good, bad},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.Truncate(path, 4*pageSize); err != nil {
				t.Fatal(err)
			}
			err := f.Update(c.from*pageSize, pageSize, func(b []byte) error {
				if err := os.Truncate(path, 3*pageSize); err != nil {
					return err
				}
				_, err := c.copy(b)
				return err
			})
			var fe *mmapio.FaultError
			if !errors.As(err, &fe) || fe.Off != c.fail*pageSize || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("got %v, want a fault at %d", err, c.fail*pageSize)
			}
		})
	}
}

// If bytes that are moved within a cut file cannot all be had, those before the
// first that cannot are moved right, in whichever direction, also if the copy has
// to be begun again after a fault. More than one step of the copy meets what is cut
// off: of the errors that counts which is about the lowest page.
func TestCopyOverlapCutFile(t *testing.T) {
	prove.Need(t, prove.BusAddress, prove.FileEnd)
	const pages, end = 300, 150 // of the file, before and after it is cut
	n := 290 * pageSize
	for _, hot := range []bool{false, true} {
		for _, c := range []struct{ to, from int64 }{
			{100, 0}, {0, 100}, {pageSize, 0}, {0, pageSize}, {3*pageSize + 5, pageSize}, {pageSize, 3*pageSize + 5},
		} {
			for _, write := range []bool{false, true} {
				path, content := patternFile(t, pages*pageSize)
				f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
				if hot {
					store(t, f, 0, string(content))
				}
				lent, off, move := c.to, c.from, f.ReadAt
				if write {
					lent, off, move = c.from, c.to, f.WriteAt
				}
				var got int
				err := f.Update(lent, n, func(b []byte) (err error) {
					check(t, os.Truncate(path, end*pageSize))
					got, err = move(b, off)
					return err
				})
				what := fmt.Sprintf("hot %v, write %v, %+v", hot, write, c)
				want := end*pageSize - max(c.to, c.from)
				var fe *mmapio.FaultError
				if int64(got) != want || !errors.As(err, &fe) || fe.Off != end*pageSize || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("%s: %d bytes, %v, want %d and a fault at %d", what, got, err, want, end*pageSize)
				}
				same(t, what, onDisk(t, path)[c.to:c.to+want], content[c.from:c.from+want])
				mustClose(t, f)
			}
		}
	}
}

// TestWriteAtCut has the File made smaller between two steps of a WriteAt: n counts what
// stays written, and no more.
func TestWriteAtCut(t *testing.T) {
	prove.Need(t, prove.Advice)
	const mib = 1 << 20
	for name, c := range map[string]struct{ size, n int64 }{
		"in the second step": {mib + mib/2, mib - pageSize},
		"in the first":       {mib / 2, mib/2 - pageSize},
		"before it":          {pageSize / 2, 0},
	} {
		path, content := patternFile(t, 3*mib)
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
		text := pattern(2*mib, 2)
		found := 0
		restore := mmapio.WhenFound(func() {
			if found++; found == 3 { // each step is found for loads and for stores
				mustResize(t, f, c.size)
			}
		})
		n, err := f.WriteAt(text, pageSize)
		restore()
		wantRangeError(t, err, mmapio.RangeError{Op: "writeat", Path: path, Off: pageSize, Len: 2 * mib, Size: c.size})
		if int64(n) != c.n {
			t.Errorf("%s: %d bytes, want %d", name, n, c.n)
		}
		if size := min(c.size, pageSize+c.n); size >= pageSize {
			copy(content[pageSize:size], text)
			same(t, name, onDisk(t, path)[:size], content[:size])
		}
		mustClose(t, f)
	}
}

// TestCloseEndsHeldCopies: a long copy does not go on after Close because somebody
// holds the memory, which would be taken from under it else.
func TestCloseEndsHeldCopies(t *testing.T) {
	const size = 4 << 20
	for _, c := range []struct {
		op   string
		mode mmapio.Mode // of CopyOnWrite nothing is read past the mapping
		call func(f *mmapio.File, p []byte, off int64) (int, error)
	}{
		{"readat", mmapio.CopyOnWrite, (*mmapio.File).ReadAt},
		{"writeat", mmapio.ReadWrite, (*mmapio.File).WriteAt},
	} {
		path, content := patternFile(t, size)
		f := mustOpen(t, path, &mmapio.Options{Mode: c.mode})
		r := mustRegion(t, f, 0, 1)
		var once sync.Once
		restore := mmapio.WhenFound(func() { once.Do(func() { mustClose(t, f) }) })
		n, err := c.call(f, make([]byte, size), 0)
		restore()
		wantPathError(t, err, c.op, path, fs.ErrClosed)
		if n > 1<<20 {
			t.Errorf("%s: %d bytes", c.op, n)
		}
		if c.op == "writeat" {
			clear(content[:n])
		}
		same(t, "the file", onDisk(t, path), content)
		r.Release()
	}
}
