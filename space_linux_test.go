package mmapio_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// smallDisks are file systems that are soon full.
var smallDisks = map[string]func(t testing.TB) string{
	"ext4":  func(t testing.TB) string { return prove.LoopFS(t, "ext4", 16<<20).Dir },
	"xfs":   func(t testing.TB) string { return prove.LoopFS(t, "xfs", 300<<20).Dir },
	"tmpfs": func(t testing.TB) string { return prove.SmallTmpfs(t, 16<<20) },
}

// fillDisk takes all the space there is.
func fillDisk(t testing.TB, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 1 << 16, 1 << 12} {
		for b := make([]byte, size); err == nil; {
			_, err = f.Write(b)
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		err = f.Sync() // what is delayed may need less than was set aside
	}
	if err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// reflink makes a file that shares its blocks with another, and says whether
// the file system can.
func reflink(t testing.TB, from, to string) bool {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	err = unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

// TestReserved: once the blocks are reserved a full disk cannot fail a store:
// not in an old hole, nor in what was added, nor in blocks that a copy shares.
func TestReserved(t *testing.T) {
	prove.LeakCheck(t)
	prove.NeedE2E(t, prove.LoopDevice, prove.Ext4, prove.XFS, prove.TmpfsMount)
	const size = 2 << 20
	for name, mount := range smallDisks {
		t.Run(name, func(t *testing.T) {
			dir := mount(t)
			hole, shared := filepath.Join(dir, "hole"), filepath.Join(dir, "shared")
			if err := os.WriteFile(hole, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(hole, size); err != nil {
				t.Fatal(err)
			}
			orig := filepath.Join(dir, "original")
			if err := os.WriteFile(orig, pattern(size, 3), 0o600); err != nil {
				t.Fatal(err)
			}
			files := map[string]*mmapio.File{
				"an old hole": mustOpen(t, hole, &mmapio.Options{Mode: mmapio.ReadWrite, MinSize: size}),
				"growth":      opened(t)(mmapio.Create(filepath.Join(dir, "growth"), 5)),
			}
			mustResize(t, files["growth"], size)
			if reflink(t, orig, shared) {
				files["a copy"] = mustOpen(t, shared, &mmapio.Options{Mode: mmapio.ReadWrite, MinSize: size})
				if !reflink(t, orig, shared+"2") {
					t.Fatal("no second copy")
				}
			} else if name == "xfs" {
				t.Fatal("XFS shares no blocks")
			}
			fillDisk(t, dir)
			for what, f := range files {
				for off := int64(0); off+7 <= size; off += pageSize {
					if n, err := f.WriteAt([]byte("full"), off+3); n != 4 || err != nil {
						t.Fatalf("%s: WriteAt(%d): %d, %v", what, off, n, err)
					}
				}
				noError(t, what, f.Sync())
				mustClose(t, f)
			}
			same(t, "the original", onDisk(t, orig), pattern(size, 3))
			if files["a copy"] == nil {
				return
			}
			// The control: a copy that nobody asked to reserve.
			f := mustOpen(t, shared+"2", &mmapio.Options{Mode: mmapio.ReadWrite})
			var err error
			for off := int64(0); off+7 <= size && err == nil; off += pageSize {
				_, err = f.WriteAt([]byte("full"), off+3)
			}
			if !errors.Is(err, unix.ENOSPC) {
				t.Errorf("stores to shared blocks of a full disk: %v, want ENOSPC", err)
			}
			mustClose(t, f)
		})
	}
}

// TestSparseFillsUp: the first store for which there is no block is a FaultError
// that says so, every time, and the process goes on.
func TestSparseFillsUp(t *testing.T) {
	prove.LeakCheck(t)
	prove.NeedE2E(t, prove.LoopDevice, prove.Ext4, prove.XFS, prove.TmpfsMount)
	for name, mount := range smallDisks {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(mount(t), "sparse")
			for round := range 8 {
				f := mustOpen(t, path, &mmapio.Options{
					Mode: mmapio.ReadWrite, Create: true, Truncate: true, Sparse: true, MinSize: 1 << 30,
				})
				p := make([]byte, 3*pageSize)
				var err error
				var n int
				off := int64(100)
				for ; err == nil; off += int64(n) {
					clear(p)
					p[0] = byte(round)
					n, err = f.WriteAt(p, off)
				}
				fe := (*mmapio.FaultError)(nil)
				if !errors.As(err, &fe) || !errors.Is(err, unix.ENOSPC) || fe.Op != "writeat" || fe.Path != path {
					t.Fatalf("round %d: %v", round, err)
				}
				if n == len(p) || fe.Off > off || fe.Off+pageSize <= off {
					t.Errorf("round %d: %d bytes, up to %d, were written; the error is about %d", round, n, off, fe.Off)
				}
				far := int64(900 << 20)
				for what, err := range map[string]error{
					"StoreAt": mmapio.StoreAt(f, far, uint64(1)),
					"Update":  f.Update(far+16*pageSize, 1, func(b []byte) error { b[0] = 1; return nil }),
				} {
					// The look for the reason may have found a last block.
					if err != nil && !errors.Is(err, unix.ENOSPC) {
						t.Errorf("round %d: %s: %v", round, what, err)
					}
				}
				// What was written is there.
				got := make([]byte, 1)
				if _, err := f.ReadAt(got, 100); err != nil || got[0] != byte(round) {
					t.Errorf("round %d: %d, %v", round, got[0], err)
				}
				mustResize(t, f, 1000)
				mustResize(t, f, 100000)
				store(t, f, 50000, "room again")
				mustClose(t, f)
			}
		})
	}
}

// TestNoReserve is about a file system that cannot reserve blocks: what is added
// is written out to have them, up to a limit.
func TestNoReserve(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{MaxRequest: 1 << 20})
	disk.Add(slowfs.Rule{Op: slowfs.OpFallocate, Err: syscall.EOPNOTSUPP})
	const limit = 64 << 20
	_, err := mmapio.Create(disk.Path("large"), limit+1)
	wantPathError(t, err, "open", disk.Path("large"), errors.ErrUnsupported)
	mustNotExist(t, disk.Path("large"))
	f := opened(t)(mmapio.Create(disk.Path("f"), 1<<20+1))
	if n := disk.Used(); n < 1<<20 {
		t.Errorf("%d bytes of the disk are taken", n)
	}
	before := f.Size()
	wantPathError(t, f.Resize(before+limit+1), "resize", disk.Path("f"), errors.ErrUnsupported)
	if f.Size() != before || sizeOnDisk(t, disk.Path("f")) != before {
		t.Errorf("after a refused Resize: %d bytes, %d on the disk", f.Size(), sizeOnDisk(t, disk.Path("f")))
	}
	mustResize(t, f, 2<<20)
	if n := disk.Used(); n < 2<<20 {
		t.Errorf("%d bytes of the disk are taken", n)
	}
	disk.SetCapacity(4 << 20)
	wantPathError(t, f.Resize(10<<20), "resize", disk.Path("f"), unix.ENOSPC)
	if n := sizeOnDisk(t, disk.Path("f")); n != 2<<20 {
		t.Errorf("%d bytes after a Resize that met a full disk", n)
	}
	mustClose(t, f)
	g := mustOpen(t, disk.Path("f"), &mmapio.Options{Mode: mmapio.ReadWrite, Sparse: true, MinSize: 1 << 30})
	if _, err := g.ReadAt(make([]byte, 1), 1<<29); err != nil && err != io.EOF {
		t.Error(err)
	}
	mustClose(t, g)
}
