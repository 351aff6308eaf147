package mmapio_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// systemActs are those that take a system call of this system.
var systemActs = map[string]func(t testing.TB, path string){
	"plain load": func(t testing.TB, path string) {
		b := plainMap(t, path, syscall.PROT_READ)
		ask(t, "cut")
		sum(b)
	},
	"plain store": func(t testing.TB, path string) {
		b := plainMap(t, path, syscall.PROT_READ|syscall.PROT_WRITE)
		ask(t, "cut")
		clear(b)
	},
	"plain store into read-only": func(t testing.TB, path string) {
		plainMap(t, path, syscall.PROT_READ)[0] = 1
	},
	"eio": eioAct, "full": fullAct,
}

// TestFirstBadPage is about where a fault is said to be, for Files that do not
// start at a page's edge, and whoever meets it: a system call before anything is
// touched, or a fault.
func TestFirstBadPage(t *testing.T) {
	prove.Need(t, prove.BusAddress, prove.FileEnd)
	for _, offset := range []int64{0, 1, pageSize - 1, pageSize, pageSize + 904} {
		for _, left := range []int64{0, 1, pageSize, 3*pageSize + 1} {
			for _, prefault := range []int64{0, -1} {
				firstBadPage(t, offset, left, prefault)
			}
		}
	}
}

func firstBadPage(t *testing.T, offset, left, prefault int64) {
	t.Run(fmt.Sprintf("offset %d, %d left, prefault %d", offset, left, prefault), func(t *testing.T) {
		path, _ := patternFile(t, filePages*pageSize+5)
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Offset: offset, Prefault: prefault})
		if err := os.Truncate(path, left); err != nil {
			t.Fatal(err)
		}
		// The first page with a mapped byte and none of the file.
		bad := max((left+pageSize-1)/pageSize*pageSize, offset/pageSize*pageSize)
		at := max(bad, offset) // its first mapped byte
		p := make([]byte, f.Size())
		n, err := f.ReadAt(p, 0)
		wantFault(t, err, "readat", at, offset, io.ErrUnexpectedEOF)
		if int64(n) != at-offset {
			t.Errorf("ReadAt: %d bytes, want %d", n, at-offset)
		}
		err = f.View(0, f.Size(), func(b []byte) error { copy(p, b); return nil })
		wantFault(t, err, "view", at, offset, io.ErrUnexpectedEOF)
		err = f.Update(0, f.Size(), func(b []byte) error { b[len(b)-1] = 1; return nil })
		wantFault(t, err, "update", at, offset, io.ErrUnexpectedEOF)
		r, err := f.Region(0, f.Size())
		if prefault < 0 {
			if err != nil {
				t.Fatal(err)
			}
			err = mmapio.Guard(func() error { copy(p, r.Bytes()); return nil })
			r.Release()
			wantFault(t, err, "guard", at, offset, io.ErrUnexpectedEOF)
		} else {
			wantFault(t, err, "region", at, offset, io.ErrUnexpectedEOF)
		}
		// Of a part that is bad as a whole, its first page.
		part := f.Size() - 2*pageSize
		err = f.View(part, 2*pageSize, func(b []byte) error { copy(p, b); return nil })
		wantFault(t, err, "view", (offset+part)/pageSize*pageSize, offset, io.ErrUnexpectedEOF)
		if offset != 0 && !strings.Contains(err.Error(), fmt.Sprintf("(%d in the file)", (offset+part)/pageSize*pageSize)) {
			t.Errorf("%q does not tell where in the file", err)
		}
	})
}

// TestFirstBadPageSeen is the same where the first of the bad pages were seen in
// memory right before the cut, so that only those behind them are asked for.
func TestFirstBadPageSeen(t *testing.T) {
	prove.Need(t, prove.BusAddress, prove.FileEnd)
	for _, offset := range []int64{0, pageSize - 1} {
		path, _ := patternFile(t, filePages*pageSize)
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Offset: offset})
		if err := f.View(0, pageSize, func([]byte) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		touch := func(b []byte) error { sum(b); return nil }
		wantFault(t, f.View(0, f.Size(), touch), "view", offset, offset, io.ErrUnexpectedEOF)
		wantFault(t, f.Update(0, f.Size(), touch), "update", offset, offset, io.ErrUnexpectedEOF)
		_, err := f.Region(0, f.Size())
		wantFault(t, err, "region", offset, offset, io.ErrUnexpectedEOF)
		// What lies before the call's range is not its affair.
		wantFault(t, f.View(pageSize, 4*pageSize, touch), "view", (offset+pageSize)/pageSize*pageSize, offset, io.ErrUnexpectedEOF)
	}
}

// TestForeignFault has a fault on a mapping that is not mmapio's pass through
// every guarded call as the panic that it is.
func TestForeignFault(t *testing.T) {
	prove.Need(t, prove.BusAddress)
	path, _ := patternFile(t, pageSize)
	foreign := plainMap(t, path, syscall.PROT_READ|syscall.PROT_WRITE)
	defer syscall.Munmap(foreign) //nolint:errcheck // a mapping of our own
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	own, _ := patternFile(t, pageSize)
	f := mustOpen(t, own, &mmapio.Options{Mode: mmapio.ReadWrite})
	addr := uintptr(unsafe.Pointer(&foreign[0]))
	for name, call := range map[string]func() error{
		"View":   func() error { return f.View(0, 1, func([]byte) error { sum(foreign); return nil }) },
		"Update": func() error { return f.Update(0, 1, func([]byte) error { clear(foreign); return nil }) },
		"UpdateChunks": func() error {
			return f.UpdateChunks(0, 2, 1, func(mmapio.Chunk) error { sum(foreign); return nil })
		},
		"Guard": func() error { return mmapio.Guard(func() error { sum(foreign); return nil }) },
		"View in Guard": func() error {
			return mmapio.Guard(func() error { return f.View(0, 1, func([]byte) error { sum(foreign); return nil }) })
		},
		"ReadAt":  func() error { _, err := f.ReadAt(foreign, 0); return err },
		"WriteAt": func() error { _, err := f.WriteAt(foreign, 0); return err },
		"Pages": func() error {
			for range f.Pages(0, f.Size()) {
				sum(foreign)
			}
			return nil
		},
	} {
		var err error
		r := panicOf(func() { err = call() })
		fault, ok := r.(interface {
			runtime.Error
			Addr() uintptr
		})
		if !ok || fault.Addr()-addr >= uintptr(pageSize) {
			t.Errorf("%s: panicked with %v, returned %v; want a fault at %x", name, r, err, addr)
		}
		if debug.SetPanicOnFault(false) {
			t.Errorf("%s left the flag set", name)
		}
	}
	// Nobody was left inside.
	if err := f.Resize(0); err != nil {
		t.Error(err)
	}
}

// The pages that eioAct finds bad.
const eioMiddle, eioTail, eioPages = 5, 20, 40

// Guard does not know where an access began, which may have been from the end: it
// looks back for the first page of those in a row that cannot be had.
func TestGuardLooksBack(t *testing.T) {
	prove.Need(t, prove.BusAddress, prove.Advice)
	fs := slowfs.Start(t, slowfs.Options{})
	fs.AddFile("f", 40*pageSize, slowfs.Offsets)
	defer fs.FailReads("f", 5*pageSize, 3*pageSize, syscall.EIO)()
	f := mustOpen(t, fs.Path("f"), &mmapio.Options{Prefault: -1})
	r, err := f.Region(0, f.Size())
	check(t, err)
	defer r.Release()
	err = mmapio.Guard(func() error { sum(r.Bytes()[7*pageSize : 8*pageSize]); return nil })
	wantFault(t, err, "guard", 5*pageSize, 0, syscall.EIO)
}

func TestUnreadable(t *testing.T) {
	prove.NeedE2E(t, prove.Linux, prove.Root, prove.FUSE)
	fs := slowfs.Start(t, slowfs.Options{})
	bad := func(name string) (heal func()) {
		fs.AddFile(name, eioPages*pageSize, slowfs.Offsets)
		a := fs.FailReads(name, eioMiddle*pageSize, pageSize, syscall.EIO)
		b := fs.FailReads(name, eioTail*pageSize, pageSize, syscall.EIO)
		return func() { a(); b() }
	}
	bad("control") // it is stored to
	verbs := map[string]func(){"cut": func() {}, "heal": bad("file")}
	wantDeath(t, runFault(t, "plain load", fs.Path("control"), verbs), "SIGBUS")
	wantDeath(t, runFault(t, "plain store", fs.Path("control"), verbs), "SIGBUS")
	if res := runFault(t, "eio", fs.Path("file"), verbs); res.Code != 0 {
		t.Error(res)
	}
}

func eioAct(t testing.TB, path string) {
	want := make([]byte, eioPages*pageSize)
	slowfs.Offsets.Bytes(want, 0)
	const offset = 4097
	bad, tail := eioMiddle*pageSize, eioTail*pageSize
	for i := range 2 * len(allModes) {
		mode := allModes[i/2]
		f := mustOpen(t, path, &mmapio.Options{Mode: mode, Offset: offset, DropFD: i%2 == 1})
		end := tail + pageSize - offset // in the File
		p := make([]byte, end)
		n, err := f.ReadAt(p, 0)
		wantFault(t, err, "readat", bad, offset, syscall.EIO)
		if int64(n) != bad-offset {
			t.Errorf("ReadAt: %d bytes, want %d", n, bad-offset)
		}
		same(t, "before the bad page", p[:n], want[offset:bad])
		after := p[:5*pageSize]
		if n, err := f.ReadAt(after, bad+pageSize-offset); n != len(after) || err != nil {
			t.Errorf("ReadAt of the pages after it: %d, %v", n, err)
		}
		same(t, "after the bad page", after, want[bad+pageSize:][:len(after)])
		if n, err := f.ReadAt(p[:1], bad-offset+100); n != 0 {
			t.Errorf("ReadAt inside: %d, %v", n, err)
		} else {
			wantFault(t, err, "readat", bad, offset, syscall.EIO)
		}
		// A copy begins with the tail, and that is bad as well.
		err = f.View(0, end, func(b []byte) error { copy(p, b); return nil })
		wantFault(t, err, "view", bad, offset, syscall.EIO)
		err = f.View(bad+pageSize-offset, 18*pageSize, func(b []byte) error { sum(b); return nil })
		wantFault(t, err, "view", tail, offset, syscall.EIO)
		_, err = mmapio.LoadAt[uint32](f, bad-offset+8)
		wantFault(t, err, "loadat", bad, offset, syscall.EIO)
		err = mmapio.Guard(func() error {
			for c, err := range f.Chunks(0, end, 3*pageSize) {
				if err != nil {
					return err
				}
				copy(p, c.Data)
			}
			return nil
		})
		wantFault(t, err, "chunks", bad, offset, syscall.EIO)
		if mode != mmapio.ReadOnly {
			n, err := f.WriteAt(want[bad-pageSize:][:3*pageSize], bad-pageSize-offset)
			wantFault(t, err, "writeat", bad, offset, syscall.EIO)
			if int64(n) != pageSize {
				t.Errorf("WriteAt: %d bytes", n)
			}
			wantFault(t, mmapio.StoreAt(f, bad-offset+8, uint32(1)), "storeat", bad, offset, syscall.EIO)
		}
	}
	ask(t, "heal")
	f := mustOpen(t, path, nil)
	same(t, "healed", contentOf(t, f), want)
}

// fullPages are in the file; the first fullData have blocks.
const fullPages, fullData = 16, 3

func TestDiskFull(t *testing.T) {
	prove.NeedE2E(t, prove.Linux, prove.Root, prove.LoopDevice, prove.Ext4, prove.TmpfsMount)
	for name, dir := range map[string]string{
		"ext4": prove.LoopFS(t, "ext4", 16<<20).Dir, "tmpfs": prove.SmallTmpfs(t, 2<<20),
		blockMapped: prove.LoopFS(t, "ext4", 16<<20).Dir,
	} {
		t.Run(name, func(t *testing.T) {
			path, filler := filepath.Join(dir, "sparse"), filepath.Join(dir, "filler")
			if name == blockMapped {
				withoutExtents(t, path)
			}
			if err := os.WriteFile(path, pattern(fullData*pageSize, 3), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, fullPages*pageSize); err != nil {
				t.Fatal(err)
			}
			fill(t, filler)
			verbs := map[string]func(){
				"cut": func() {},
				"free": func() {
					if err := os.Remove(filler); err != nil {
						t.Error(err)
					}
				},
			}
			wantDeath(t, runFault(t, "plain store", path, verbs), "SIGBUS")
			if res := runFault(t, "full", path, verbs); res.Code != 0 {
				t.Error(res)
			}
		})
	}
}

// blockMapped is a file that ext4 keeps as ext3 did, and reserves no blocks for.
const blockMapped = "ext4, block-mapped"

// withoutExtents makes such a file, empty.
func withoutExtents(t testing.TB, path string) {
	t.Helper()
	f, err := os.Create(path)
	check(t, err)
	defer f.Close()
	const extents = 0x80000 // FS_EXTENT_FL
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags&^extents)
	}
	if err != nil {
		prove.Unable(t, "ext4 keeps to extents: %v", err)
	}
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 1); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatalf("fallocate of a file without extents: %v", err)
	}
}

// fill writes until no block is left.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for buf := make([]byte, 1<<20); len(buf) >= 512; {
		_, err := f.Write(buf)
		switch {
		case errors.Is(err, syscall.ENOSPC):
			// What ext4 still holds back it gives with the next commit.
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			buf = buf[:len(buf)/2]
		case err != nil:
			t.Fatal(err)
		}
	}
}

func fullAct(t testing.TB, path string) {
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	p, bad := pattern(8*pageSize, 4), fullData*pageSize
	n, err := f.WriteAt(p, 9)
	wantFault(t, err, "writeat", bad, 0, syscall.ENOSPC)
	if int64(n) != bad-9 {
		t.Errorf("WriteAt: %d bytes, want %d", n, bad-9)
	}
	same(t, "what was written", onDisk(t, path)[9:bad], p[:n])
	wantFault(t, mmapio.StoreAt(f, bad+8, uint64(1)), "storeat", bad, 0, syscall.ENOSPC)
	err = f.Update(0, f.Size(), func(b []byte) error {
		for i := range b {
			b[i] = 1
		}
		return nil
	})
	wantFault(t, err, "update", bad, 0, syscall.ENOSPC)
	// tmpfs wants memory for a hole that is only read. Whatever a File that
	// cannot be written says then, it is not that it cannot be written.
	if _, err := mustOpen(t, path, nil).ReadAt(make([]byte, f.Size()), 0); errors.Is(err, mmapio.ErrReadOnly) {
		t.Error(err)
	}
	ask(t, "free")
	if n, err := f.WriteAt(p, 9); n != len(p) || err != nil {
		t.Errorf("WriteAt with room again: %d, %v", n, err)
	}
	if got := onDisk(t, path)[9:][:len(p)]; !bytes.Equal(got, p) {
		t.Error("what was written is not there")
	}
}

// plainMap maps a file as every program does.
func plainMap(t testing.TB, path string, prot int) []byte {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := syscall.Mmap(int(f.Fd()), 0, int(sizeOnDisk(t, path)), prot, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
