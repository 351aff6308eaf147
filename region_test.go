package mmapio_test

import (
	"bytes"
	"errors"
	"fmt"
	"github.com/mmapio/mmapio/internal/prove"
	"io/fs"
	"runtime"
	"sync"
	"testing"

	"github.com/mmapio/mmapio"
)

// A holder is a Region, a Value or Values, as the bytes that it shows.
type holder interface {
	Release()
}

// takers hold memory at an offset in every way there is.
var takers = map[string]func(f *mmapio.File, off int64) (h holder, n int64, bytesOf func() []byte, err error){
	"region": func(f *mmapio.File, off int64) (holder, int64, func() []byte, error) {
		r, err := f.Region(off, pageSize+5)
		if err != nil {
			return nil, 0, nil, err
		}
		return r, pageSize + 5, r.Bytes, nil
	},
	"valueat": func(f *mmapio.File, off int64) (holder, int64, func() []byte, error) {
		v, err := mmapio.ValueAt[[100]byte](f, off)
		if err != nil {
			return nil, 0, nil, err
		}
		return v, 100, func() []byte {
			if p := v.Ptr(); p != nil {
				return p[:]
			}
			return nil
		}, nil
	},
	"valuesat": func(f *mmapio.File, off int64) (holder, int64, func() []byte, error) {
		v, err := mmapio.ValuesAt[uint8](f, off, 300)
		if err != nil {
			return nil, 0, nil, err
		}
		return v, 300, v.Slice, nil
	},
}

// TestHolders takes every kind of holder in every mode through Close.
func TestHolders(t *testing.T) {
	for _, mode := range allModes {
		if mode == mmapio.ReadWrite && !maps {
			continue
		}
		for name, take := range takers {
			t.Run(fmt.Sprintf("%v/%s", mode, name), func(t *testing.T) {
				path, content := patternFile(t, 5*pageSize)
				f := mustOpen(t, path, &mmapio.Options{Mode: mode, Offset: 3})
				h, n, bytesOf, err := take(f, 10)
				if err != nil {
					t.Fatal(err)
				}
				want := content[13 : 13+n]
				same(t, "as taken", bytesOf(), want)
				if b := bytesOf(); cap(b) != len(b) {
					t.Errorf("%d bytes with a capacity of %d", len(b), cap(b))
				}
				if mode != mmapio.ReadOnly {
					// Stores show both ways.
					bytesOf()[0]++
					store(t, f, 11, "x")
					want = bytes.Clone(want)
					want[0], want[1] = want[0]+1, 'x'
					got := make([]byte, n)
					if _, err := f.ReadAt(got, 10); err != nil {
						t.Fatal(err)
					}
					same(t, "what ReadAt says", got, want)
				}
				mustClose(t, f)
				same(t, "after Close", bytesOf(), want)
				_, _, _, err = take(f, 10)
				wantPathError(t, err, name, path, fs.ErrClosed)
				h.Release()
				if bytesOf() != nil {
					t.Error("not nil after Release")
				}
				h.Release()
			})
		}
	}
}

// TestHeldThroughGrowth grows the File past what is held, in place and not,
// and shows that a shrink is refused until the last one has let go.
func TestHeldThroughGrowth(t *testing.T) {
	needMaps(t)
	for _, reserve := range []int64{0, 64 * pageSize} {
		for name, take := range takers {
			t.Run(fmt.Sprintf("%s/reserve=%d", name, reserve), func(t *testing.T) {
				if reserve > 0 && !canReserve(t) {
					prove.Unable(t, "no Reserve on %s", runtime.GOOS)
				}
				path, content := patternFile(t, 4*pageSize)
				f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Reserve: reserve})
				var held []holder
				// One in each generation, each with what is the File's then.
				for i := range int64(4) {
					h, n, bytesOf, err := take(f, 16)
					if err != nil {
						t.Fatal(err)
					}
					held = append(held, h)
					if err := f.Resize((5 + i) * pageSize); err != nil {
						t.Fatal(err)
					}
					same(t, "after growth", bytesOf(), content[16:16+n])
					// It is the same memory of the same file still.
					store(t, f, 16, fmt.Sprint(i))
					if got := string(bytesOf()[:1]); got != fmt.Sprint(i) {
						t.Errorf("a store of %d shows as %q in what is held", i, got)
					}
					content[16] = byte('0' + i)
				}
				// They let go in another order than they came.
				for _, i := range []int{2, 0, 3, 1} {
					wantPathError(t, f.Resize(pageSize), "resize", path, mmapio.ErrBusy)
					if got := f.Size(); got != 8*pageSize || sizeOnDisk(t, path) != got {
						t.Errorf("refused to shrink, but has %d bytes, %d on disk", got, sizeOnDisk(t, path))
					}
					held[i].Release()
				}
				if err := f.Resize(pageSize); err != nil {
					t.Errorf("when all have let go: %v", err)
				}
				same(t, "what is left", contentOf(t, f), content[:pageSize])
			})
		}
	}
}

// canReserve says whether address space can be reserved here.
func canReserve(t testing.TB) bool {
	t.Helper()
	f, err := mmapio.Anonymous(1, &mmapio.Options{Reserve: 1 << 20})
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Fatal(err)
	}
	return err == nil
}

// TestReleaseCounts has several holders and several that release: a second
// Release of one must not count for another.
func TestReleaseCounts(t *testing.T) {
	needMaps(t)
	for name, take := range takers {
		path, _ := patternFile(t, 4*pageSize)
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
		first, _, _, err := take(f, 0)
		if err != nil {
			t.Fatal(err)
		}
		second, n, bytesOf, err := take(f, 0)
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 100 {
					first.Release()
				}
			})
		}
		all.Wait()
		if err := f.Resize(0); !errors.Is(err, mmapio.ErrBusy) {
			t.Errorf("%s: one was released again and again, the other counts no more: %v", name, err)
		}
		mustClose(t, f)
		first.Release()
		if int64(len(bytesOf())) != n {
			t.Errorf("%s: %d bytes", name, len(bytesOf()))
		}
		sum(bytesOf())
		second.Release()
		second.Release()
	}
}

// TestHoldersRelease is about many goroutines that take, read and release, with
// growth and at last Close under them: what is held always has the right bytes.
func TestHoldersRelease(t *testing.T) {
	needMaps(t)
	path, content := patternFile(t, 4*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	var all sync.WaitGroup
	for name, take := range takers {
		for range 2 {
			all.Go(func() {
				for {
					h, n, bytesOf, err := take(f, 40)
					if err != nil {
						wantPathError(t, err, name, path, fs.ErrClosed)
						return
					}
					if !bytes.Equal(bytesOf(), content[40:40+n]) {
						t.Errorf("%s: other bytes", name)
					}
					h.Release()
				}
			})
		}
	}
	for i := range int64(50) {
		if err := f.Resize((5 + i) * pageSize); err != nil {
			t.Error(err)
		}
	}
	mustClose(t, f)
	all.Wait()
}

// TestRegionBounds is about ranges, and those of no bytes.
func TestRegionBounds(t *testing.T) {
	path, _ := patternFile(t, 2*pageSize)
	f := mustOpen(t, path, nil)
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, 2*pageSize + 1}, {2 * pageSize, 1}, {2*pageSize + 1, 0}, {1 << 62, 1 << 62}} {
		_, err := f.Region(r[0], r[1])
		wantRangeError(t, err, mmapio.RangeError{Op: "region", Path: path, Off: r[0], Len: r[1], Size: 2 * pageSize})
	}
	for _, off := range []int64{0, 1, 2 * pageSize} {
		r, err := f.Region(off, 0)
		if err != nil {
			t.Fatal(err)
		}
		if b := r.Bytes(); b == nil || len(b) != 0 || cap(b) != 0 {
			t.Errorf("no bytes at %d: %v", off, b)
		}
		r.Release()
		if r.Bytes() != nil {
			t.Error("not nil after Release")
		}
	}
}

// TestRegionSync is about Sync of a Region: of its File, while both are there.
func TestRegionSync(t *testing.T) {
	needMaps(t)
	path, content := patternFile(t, pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	r, err := f.Region(0, 10)
	if err != nil {
		t.Fatal(err)
	}
	copy(r.Bytes(), "0123456789")
	if err := r.Sync(); err != nil {
		t.Error(err)
	}
	same(t, "the file", onDisk(t, path), append([]byte("0123456789"), content[10:]...))
	other, err := f.Region(0, 10)
	if err != nil {
		t.Fatal(err)
	}
	other.Release()
	wantPathError(t, other.Sync(), "sync", path, fs.ErrClosed)
	mustClose(t, f)
	wantPathError(t, r.Sync(), "sync", path, fs.ErrClosed)
	r.Release()
	wantPathError(t, r.Sync(), "sync", path, fs.ErrClosed)
}

// TestHolderInView takes and releases inside of callbacks, and closes there.
func TestHolderInView(t *testing.T) {
	path, content := patternFile(t, 3*pageSize)
	f := mustOpen(t, path, nil)
	var r *mmapio.Region
	err := f.View(0, 10, func(b []byte) (err error) {
		if r, err = f.Region(pageSize, 10); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		same(t, "the view", b, content[:10])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "the region", r.Bytes(), content[pageSize:pageSize+10])
	r.Release()
}

// A File remembers mappings that it had before only as long as somebody holds them.
func TestResizeForgetsMappings(t *testing.T) {
	needMaps(t)
	path, _ := patternFile(t, pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	r := mustRegion(t, f, 0, 1)
	for i := range int64(5) {
		if err := f.Resize((i + 2) * pageSize); errors.Is(err, mmapio.ErrBusy) {
			prove.Unable(t, "what is held does not grow here") // Windows
		} else {
			check(t, err)
		}
	}
	if n := mmapio.Old(f); n > 1 {
		t.Errorf("%d mappings are remembered, one is held", n)
	}
	r.Release()
	mustResize(t, f, 7*pageSize)
	if n := mmapio.Old(f); n > 0 {
		t.Errorf("%d mappings are remembered, none is held", n)
	}
}
