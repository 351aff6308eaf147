package mmapio_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// blocksOf is how many blocks of 512 bytes a file has on the disk, where a
// system tells.
var blocksOf func(t testing.TB, path string) int64

// reserves says where address space can be kept free, so that a File grows
// without moving. There others can cut a mapped file, too.
var reserves = maps && runtime.GOOS != "windows"

// addressOf is where the File is mapped, 0 where there is nothing mapped.
func addressOf(t testing.TB, f *mmapio.File) (at uintptr) {
	t.Helper()
	if err := f.View(0, f.Size(), func(b []byte) error {
		if len(b) > 0 {
			at = uintptr(unsafe.Pointer(unsafe.SliceData(b)))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return at
}

func mustResize(t testing.TB, f *mmapio.File, size int64) {
	t.Helper()
	if err := f.Resize(size); err != nil {
		t.Fatalf("Resize(%d) of %d bytes: %v", size, f.Size(), err)
	}
	if f.Size() != size {
		t.Fatalf("Size() = %d after Resize(%d)", f.Size(), size)
	}
}

func mustRegion(t testing.TB, f *mmapio.File, off, n int64) *mmapio.Region {
	t.Helper()
	r, err := f.Region(off, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Release)
	return r
}

// resized is what Resize must make of content: cut, or filled up with zeroes.
func resized(content []byte, size int64) []byte {
	out := make([]byte, size)
	copy(out, content)
	return out
}

// TestResize goes from every size to every other one and back again, at every
// alignment, in place and moving.
func TestResize(t *testing.T) {
	needMaps(t)
	ps := pageSize
	sizes := []int64{0, 1, ps, 3*ps + 17, 5*ps - 1}
	for _, sparse := range []bool{false, true} {
		for _, reserve := range []int64{0, 2 * ps, 8 * ps} {
			for _, offset := range []int64{0, 1, ps - 1, ps, ps + 1} {
				if reserve > 0 && !reserves || sparse && offset%ps == ps-1 {
					continue
				}
				t.Run(fmt.Sprintf("sparse=%v/reserve=%d/offset=%d", sparse, reserve, offset), func(t *testing.T) {
					o := &mmapio.Options{Mode: mmapio.ReadWrite, Sparse: sparse, Reserve: reserve, Offset: offset}
					path := filepath.Join(tempDir(t), "file")
					for i, from := range sizes {
						for j, to := range sizes {
							resizeThereAndBack(t, path, o, from, to, int64(10*i+j))
						}
					}
				})
			}
		}
	}
}

func resizeThereAndBack(t *testing.T, path string, o *mmapio.Options, from, to, seed int64) {
	t.Helper()
	disk := pattern(o.Offset+from, seed)
	_ = os.Remove(path) // to empty a file makes ext4 wait for the disk
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	f := mustOpen(t, path, o)
	content := bytes.Clone(disk[o.Offset:])
	before := addressOf(t, f)
	for _, size := range []int64{to, from, to} {
		mustResize(t, f, size)
		what := fmt.Sprintf("%d to %d bytes from %d on, now %d", from, to, o.Offset, size)
		content = resized(content, size)
		same(t, what, contentOf(t, f), content)
		same(t, what+": the file", onDisk(t, path), append(disk[:o.Offset:o.Offset], content...))
		if now := addressOf(t, f); size > 0 && size <= o.Reserve && before != 0 && now != before && max(from, to) <= o.Reserve {
			t.Fatalf("%s: moved from %#x to %#x inside of Reserve", what, before, now)
		}
		// What is cut off next time must be seen to be gone afterwards.
		mark := pattern(size, seed+int64(len(what)))
		if n, err := f.WriteAt(mark, 0); n != len(mark) || err != nil {
			t.Fatal(n, err)
		}
		copy(content, mark)
	}
	mustClose(t, f)
	same(t, "the file after Close", onDisk(t, path)[o.Offset:], content)
}

// TestResizeBlocks: a full disk must be an error of Resize and not a fault, so
// what it adds has blocks, unless nobody asked for them.
func TestResizeBlocks(t *testing.T) {
	if blocksOf == nil {
		prove.Unable(t, "%s does not tell the blocks of a file", runtime.GOOS)
	}
	const size = 1 << 20
	for _, start := range []int64{0, 1, pageSize + 1} {
		for _, sparse := range []bool{false, true} {
			path, _ := patternFile(t, start)
			f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Sparse: sparse})
			mustResize(t, f, size)
			if n := blocksOf(t, path) * 512; !sparse && n < size || sparse && n > size/2 {
				t.Errorf("from %d bytes, Sparse %v: %d of %d bytes have blocks", start, sparse, n, size)
			}
			mustResize(t, f, 1)
			if n := blocksOf(t, path) * 512; n > size/2 {
				t.Errorf("%d bytes have blocks after a shrink to 1", n)
			}
			if sparse || !reserves {
				continue
			}
			// Others may have cut the file to less than is mapped, and less
			// than a shrink asks for: then the shrink adds something.
			mustResize(t, f, size)
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
			mustResize(t, f, size/2)
			if n := blocksOf(t, path) * 512; n < size/2 {
				t.Errorf("%d of %d bytes have blocks after others had cut the file", n, size/2)
			}
			same(t, "after others had cut the file", contentOf(t, f), make([]byte, size/2))
		}
	}
}

// TestResizeRefused: what cannot be is said, in the right order, and changes
// nothing.
func TestResizeRefused(t *testing.T) {
	needMaps(t)
	path, content := patternFile(t, 2*pageSize+1)
	for _, c := range []struct {
		name string
		o    mmapio.Options
		is   error
	}{
		{"read-only", mmapio.Options{}, mmapio.ErrReadOnly},
		{"read-only with Length", mmapio.Options{Length: 5}, mmapio.ErrReadOnly},
		{"copy on write", mmapio.Options{Mode: mmapio.CopyOnWrite}, errors.ErrUnsupported},
		{"Length", mmapio.Options{Mode: mmapio.ReadWrite, Length: 5}, errors.ErrUnsupported},
		{"DropFD", mmapio.Options{Mode: mmapio.ReadWrite, DropFD: true}, errors.ErrUnsupported},
	} {
		f := mustOpen(t, path, &c.o)
		size := f.Size()
		for _, to := range []int64{0, 1, size, size + 1, -1, math.MaxInt64} {
			wantPathError(t, f.Resize(to), "resize", path, c.is)
		}
		if f.Size() != size {
			t.Errorf("%s: Size() = %d, was %d", c.name, f.Size(), size)
		}
		if c.o.Length > 0 || c.o.DropFD {
			n, err := f.Refresh()
			wantPathError(t, err, "refresh", path, errors.ErrUnsupported)
			if n != size {
				t.Errorf("%s: Refresh returned %d", c.name, n)
			}
		}
		mustClose(t, f)
		for _, to := range []int64{0, size, -1} {
			wantPathError(t, f.Resize(to), "resize", path, fs.ErrClosed)
		}
		_, err := f.Refresh()
		wantPathError(t, err, "refresh", path, fs.ErrClosed)
	}
	anon := opened(t)(mmapio.Anonymous(5, nil))
	_, err := anon.Refresh()
	wantPathError(t, err, "refresh", "anonymous", errors.ErrUnsupported)
	same(t, "the file", onDisk(t, path), content)
}

// TestResizeNumbers: numbers that do not fit are refused before the file is
// touched, and what the system refuses is undone.
func TestResizeNumbers(t *testing.T) {
	needMaps(t)
	for _, offset := range []int64{0, 1, pageSize + 1} {
		path, content := patternFile(t, offset+100)
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Offset: offset, Sparse: true})
		wrong := []int64{-1, math.MinInt64}
		if offset > 0 {
			wrong = append(wrong, math.MaxInt64, math.MaxInt64-offset+1)
		}
		for _, size := range wrong {
			wantRangeError(t, f.Resize(size), mmapio.RangeError{Op: "resize", Path: path, Len: size, Size: 100})
		}
		for _, size := range []int64{math.MaxInt64 - offset, 1 << 62, 1 << 52} {
			if err := f.Resize(size); err == nil {
				t.Errorf("Resize(%d) succeeded", size)
			} else if f.Size() != 100 || sizeOnDisk(t, path) != offset+100 {
				t.Errorf("Resize(%d): %v, and then Size() = %d, %d bytes on disk", size, err, f.Size(), sizeOnDisk(t, path))
			}
		}
		same(t, "after all those", contentOf(t, f), content[offset:])
	}
}

// TestResizeAnonymous: memory without a file keeps its bytes where it is, or
// takes them along.
func TestResizeAnonymous(t *testing.T) {
	needMaps(t)
	ps := pageSize
	for _, reserve := range []int64{0, 64 * ps} {
		if reserve > 0 && !reserves {
			continue
		}
		f := opened(t)(mmapio.Anonymous(ps+3, &mmapio.Options{Reserve: reserve}))
		content := make([]byte, ps+3)
		at := addressOf(t, f)
		for i, size := range []int64{ps + 4, 10*ps + 1, 10 * ps, 60 * ps, 60*ps - 1, ps/2 + 1, 60 * ps, 0, 7, 0, 64 * ps, 5} {
			mark := pattern(int64(len(content)), int64(i))
			copy(content, mark)
			store(t, f, 0, string(mark))
			mustResize(t, f, size)
			content = resized(content, size)
			same(t, fmt.Sprintf("resize %d, to %d", i, size), contentOf(t, f), content)
			if now := addressOf(t, f); reserve > 0 && size > 0 && now != at {
				t.Errorf("to %d: moved from %#x to %#x inside of Reserve", size, at, now)
			}
		}
	}
}

// TestResizeBeyondReserve: a File moves when Reserve is used up, and what is
// held stays where it was and shows the same bytes of the file, both ways.
func TestResizeBeyondReserve(t *testing.T) {
	needMaps(t)
	if !reserves {
		prove.Unable(t, "no Reserve on %s", runtime.GOOS)
	}
	ps := pageSize
	for _, offset := range []int64{0, 9, ps + 9} {
		path, content := patternFile(t, offset+2*ps)
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Offset: offset, Reserve: 4 * ps})
		first := mustRegion(t, f, 0, f.Size())
		mustResize(t, f, 4*ps)
		inside := mustRegion(t, f, 0, f.Size())
		if unsafe.SliceData(first.Bytes()) != unsafe.SliceData(inside.Bytes()) {
			t.Error("moved inside of Reserve")
		}
		mustResize(t, f, 40*ps)
		second := mustRegion(t, f, 0, f.Size())
		if unsafe.SliceData(first.Bytes()) == unsafe.SliceData(second.Bytes()) {
			t.Error("the same address far beyond Reserve, with the old memory held")
		}
		same(t, "the held region", first.Bytes(), content[offset:])
		same(t, "the new memory", second.Bytes(), resized(content[offset:], 40*ps))
		first.Bytes()[5], second.Bytes()[ps] = 'a', 'b'
		store(t, f, 7, "c")
		if a, b, c := second.Bytes()[5], first.Bytes()[ps], first.Bytes()[7]; a != 'a' || b != 'b' || c != 'c' {
			t.Errorf("stores of one are not seen by the other: %q %q %q", a, b, c)
		}
		if got := onDisk(t, path)[offset:]; got[5] != 'a' || got[ps] != 'b' || got[7] != 'c' {
			t.Error("stores do not reach the file")
		}
		// Both are in the way of a shrink, the old one by itself, too.
		second.Release()
		inside.Release()
		wantPathError(t, f.Resize(3*ps), "resize", path, mmapio.ErrBusy)
		first.Release()
		mustResize(t, f, 3*ps)
	}
}

// TestResizeSlack: the bytes between the end of the file and the end of its
// page can be stored to, by a copying call that a shrink overtook and by other
// processes. They must not come up when the file grows over them. (ext4 drops
// them itself, as tmpfs does not.)
func TestResizeSlack(t *testing.T) {
	needMaps(t)
	prove.Need(t, prove.FileEnd)
	if !reserves {
		prove.Unable(t, "no file shrinks while it is mapped on %s", runtime.GOOS)
	}
	t.Run("disk", func(t *testing.T) { slackIsZero(t, tempDir(t)) })
	t.Run("tmpfs", func(t *testing.T) { slackIsZero(t, prove.SmallTmpfs(t, 1<<20)) })
}

func slackIsZero(t *testing.T, dir string) {
	t.Helper()
	path, content := filepath.Join(dir, "file"), pattern(2*pageSize, 1)
	for _, c := range []struct{ from, to int64 }{{100, 200}, {100, pageSize}, {100, 3 * pageSize}, {pageSize + 7, pageSize + 9}} {
		for _, reserve := range []int64{0, 16 * pageSize} {
			for _, sparse := range []bool{false, true} {
				if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Fatal(err)
				}
				f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Reserve: reserve, Sparse: sparse})
				mustResize(t, f, c.from)
				for i := range mmapio.Slack(f) {
					mmapio.Slack(f)[i] = 0xEE
				}
				mustResize(t, f, c.to)
				what := fmt.Sprintf("%d to %d, reserve %d, sparse %v", c.from, c.to, reserve, sparse)
				same(t, what, contentOf(t, f), resized(content[:c.from], c.to))
				same(t, what+": the file", onDisk(t, path), resized(content[:c.from], c.to))

				// What others added there is theirs, and stays.
				mustResize(t, f, c.from)
				if err := appendTo(path, []byte("theirs")); err != nil {
					t.Fatal(err)
				}
				mustResize(t, f, c.to)
				want := resized(content[:c.from], c.to)
				copy(want[c.from:], "theirs")
				same(t, what+": after others had appended", contentOf(t, f), want)
				mustClose(t, f)
			}
		}
	}
}

// appendTo does what another process would do to a file.
func appendTo(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
