package mmapio_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// appendBody is the other process: it does to the file what it is told to.
var appendBody = prove.Register("refresh-other", func(args []string) int {
	t := prove.T()
	for {
		var what string
		var n int64
		if _, err := fmt.Scanln(&what, &n); err != nil {
			return 0
		}
		switch what {
		case "append":
			if err := appendTo(args[0], pattern(n, n)); err != nil {
				t.Fatal(err)
			}
		case "cut":
			if err := os.Truncate(args[0], n); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Println("done")
	}
})

// refreshOptions are the ways in which a File can follow another process.
func refreshOptions() []mmapio.Options {
	var all []mmapio.Options
	for _, mode := range allModes {
		for _, offset := range []int64{0, 100, pageSize + 1} {
			for _, reserve := range []int64{0, 3 * pageSize, 64 * pageSize} {
				if reserve == 0 || reserves {
					all = append(all, mmapio.Options{Mode: mode, Offset: offset, Reserve: reserve})
				}
			}
		}
	}
	return all
}

// TestRefreshFollows another process, in every mode, and leaves the file alone.
func TestRefreshFollows(t *testing.T) {
	needMaps(t)
	if prove.Missing(prove.Children) != "" && runtime.GOOS != "windows" {
		prove.Unable(t, "no children here")
	}
	path, _ := patternFile(t, pageSize+200)
	other := appendBody.Start(t, prove.Args(path))
	all := refreshOptions()
	files := make([]*mmapio.File, len(all))
	for i := range all {
		files[i] = mustOpen(t, path, &all[i])
	}
	for _, step := range []string{
		"append 1", "append 50", "append " + strconv.FormatInt(pageSize, 10), "append 0",
		"append " + strconv.FormatInt(10*pageSize+3, 10), "cut " + strconv.FormatInt(4*pageSize+9, 10),
		"append 20", "cut " + strconv.FormatInt(4*pageSize, 10), "append 1", "cut 5", "append 200", "cut 0",
		"append " + strconv.FormatInt(3*pageSize, 10),
	} {
		if !reserves && strings.HasPrefix(step, "cut") {
			continue // no file is cut while it is mapped
		}
		other.Send(step)
		other.Expect("done")
		want := onDisk(t, path)
		for i, f := range files {
			o := &all[i]
			what := fmt.Sprintf("%v from %d on, reserve %d, after %s", o.Mode, o.Offset, o.Reserve, step)
			size, err := f.Refresh()
			if err != nil || size != max(int64(len(want))-o.Offset, 0) || f.Size() != size {
				t.Fatalf("%s: Refresh: %d, %v; Size() = %d", what, size, err, f.Size())
			}
			if size > 0 {
				same(t, what, contentOf(t, f), want[o.Offset:])
			}
		}
		same(t, "the file after "+step, onDisk(t, path), want)
	}
	other.CloseStdin()
	if r := other.Wait(); r.Code != 0 {
		t.Error(r)
	}
}

// TestRefreshKeepsCopies: what was stored to a CopyOnWrite File stays when the
// File moves, and next to it the file's new bytes show, also on the same page.
func TestRefreshKeepsCopies(t *testing.T) {
	needMaps(t)
	ps := pageSize
	for _, offset := range []int64{0, 3, ps + 1} {
		for _, reserve := range []int64{0, 64 * ps} {
			for _, more := range []int64{1, 5, ps, 20 * ps} {
				if reserve > 0 && !reserves {
					continue
				}
				what := fmt.Sprintf("from %d on, reserve %d, %d more bytes", offset, reserve, more)
				path, disk := patternFile(t, offset+5*ps+7)
				f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.CopyOnWrite, Offset: offset, Reserve: reserve})
				want := bytes.Clone(disk[offset:])
				for _, at := range []int64{0, 2*ps + 5, 5 * ps, 5*ps + 6} { // first, middle, last page
					store(t, f, at, "x")
					want[at] = 'x'
				}
				for step := range 3 {
					add := pattern(more, int64(step))
					if err := appendTo(path, add); err != nil {
						t.Fatal(err)
					}
					disk, want = append(disk, add...), append(want, add...)
					at := addressOf(t, f)
					if n, err := f.Refresh(); err != nil || n != int64(len(want)) {
						t.Fatal(what, n, err)
					}
					same(t, what, contentOf(t, f), want)
					if reserve > 0 && addressOf(t, f) != at && int64(len(want)) <= reserve {
						t.Errorf("%s: moved inside of Reserve", what)
					}
					store(t, f, int64(len(want))-1, "y") // the last page is a copy again
					want[len(want)-1] = 'y'
				}
				// Cut in the middle of a copied page, and grown again by others:
				// copies beyond the cut are gone, those before it are not.
				if !prove.CanTruncate() || !reserves && more != 5 {
					continue // it takes a while under Wine
				}
				keep := 2*ps + 9
				prove.Truncate(t, path, offset+keep)
				if n, err := f.Refresh(); err != nil || n != keep {
					t.Fatal(what, n, err)
				}
				same(t, what+", cut", contentOf(t, f), want[:keep])
				add := pattern(4*ps, 9)
				if err := appendTo(path, add); err != nil {
					t.Fatal(err)
				}
				if _, err := f.Refresh(); err != nil {
					t.Fatal(what, err)
				}
				same(t, what+", cut and grown again", contentOf(t, f), append(want[:keep:keep], add...))
				mustClose(t, f)
				same(t, what+": the file", onDisk(t, path), append(disk[:offset+keep:offset+keep], add...))
			}
		}
	}
}

// holders are all the ways to hold memory; each calls body meanwhile.
var holders = []struct {
	name   string
	stores bool
	hold   func(f *mmapio.File, body func()) error
}{
	{"View", false, func(f *mmapio.File, body func()) error {
		return f.View(0, 8, func([]byte) error { body(); return nil })
	}},
	{"View of nothing", false, func(f *mmapio.File, body func()) error {
		return f.View(3, 0, func([]byte) error { body(); return nil })
	}},
	{"View inside View", false, func(f *mmapio.File, body func()) error {
		return f.View(0, 8, func([]byte) error {
			return f.View(0, 8, func([]byte) error { body(); return nil })
		})
	}},
	{"Update", true, func(f *mmapio.File, body func()) error {
		return f.Update(0, 8, func([]byte) error { body(); return nil })
	}},
	{"UpdateChunks", true, func(f *mmapio.File, body func()) error {
		return f.UpdateChunks(0, 8, 8, func(mmapio.Chunk) error { body(); return nil })
	}},
	{"Chunks", false, func(f *mmapio.File, body func()) (err error) {
		for _, err = range f.Chunks(0, 8, 8) {
			body()
		}
		return err
	}},
	{"Pages", false, func(f *mmapio.File, body func()) (err error) {
		for _, err = range f.Pages(0, 8) {
			body()
		}
		return err
	}},
	{"Region", false, func(f *mmapio.File, body func()) error {
		r, err := f.Region(0, 8)
		if err == nil {
			body()
			r.Release()
		}
		return err
	}},
	{"Value", false, func(f *mmapio.File, body func()) error {
		v, err := mmapio.ValueAt[uint64](f, 0)
		if err == nil {
			body()
			v.Release()
		}
		return err
	}},
	{"Values", false, func(f *mmapio.File, body func()) error {
		v, err := mmapio.ValuesAt[uint32](f, 0, 2)
		if err == nil {
			body()
			v.Release()
		}
		return err
	}},
}

// TestResizeBusy: nothing becomes smaller that is held, nor moves where moving
// is to copy, whoever asks; growing goes on, and makes nothing free.
func TestResizeBusy(t *testing.T) {
	needMaps(t)
	ps := pageSize
	for _, h := range holders {
		t.Run(h.name, func(t *testing.T) {
			for _, reserve := range []int64{0, 40 * ps} {
				if reserve > 0 && !reserves {
					continue
				}
				path, content := patternFile(t, 4*ps+5)
				f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Reserve: reserve})
				size, entered := f.Size(), false
				busy := func() {
					was := standOf(t, f, path)
					for _, n := range []int64{0, 1, f.Size() - 1} {
						wantPathError(t, f.Resize(n), "resize", path, mmapio.ErrBusy)
					}
					was.unchanged(t, "a refused shrink", f, path)
				}
				if err := h.hold(f, func() {
					entered = true
					busy()
					// Growing works, and what was held before still is.
					mustResize(t, f, 20*ps)
					same(t, "grown while held", contentOf(t, f), resized(content, 20*ps))
					busy()
					if reserves {
						if err := os.Truncate(path, size); err != nil {
							t.Fatal(err)
						}
						n, err := f.Refresh()
						wantPathError(t, err, "refresh", path, mmapio.ErrBusy)
						if n != 20*ps || f.Size() != n {
							t.Errorf("Refresh: %d, Size() = %d", n, f.Size())
						}
					}
				}); err != nil || !entered {
					t.Fatal(err, entered)
				}
				mustResize(t, f, 2*ps)
				same(t, "after the end of it", contentOf(t, f), content[:2*ps])
			}
			busyCopies(t, h.hold, h.stores)
		})
	}
}

// busyCopies: Anonymous and CopyOnWrite Files move by copying.
func busyCopies(t *testing.T, hold func(*mmapio.File, func()) error, stores bool) {
	t.Helper()
	f := opened(t)(mmapio.Anonymous(pageSize, nil))
	store(t, f, 0, "kept")
	if err := hold(f, func() {
		wantPathError(t, f.Resize(20*pageSize), "resize", "anonymous", mmapio.ErrBusy)
		wantPathError(t, f.Resize(9), "resize", "anonymous", mmapio.ErrBusy)
	}); err != nil {
		t.Fatal(err)
	}
	mustResize(t, f, 20*pageSize)
	if got := contentOf(t, f); !strings.HasPrefix(string(got), "kept") {
		t.Errorf("%q", got[:4])
	}
	if !reserves {
		return
	}
	path, content := patternFile(t, pageSize)
	c := mustOpen(t, path, &mmapio.Options{Mode: mmapio.CopyOnWrite})
	if err := hold(c, func() {
		if err := appendTo(path, make([]byte, 20*pageSize)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Refresh()
		wantPathError(t, err, "refresh", path, mmapio.ErrBusy)
		if n != pageSize {
			t.Errorf("Refresh: %d", n)
		}
		store(t, c, 1, "z")
	}); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Refresh(); n != 21*pageSize || err != nil {
		t.Fatal(n, err)
	}
	content[1] = 'z'
	same(t, "after the end of it", contentOf(t, c)[:pageSize], content)
}

// TestResizeOldGenerationBusy: each generation that is still held is in the
// way, however many there are.
func TestResizeOldGenerationBusy(t *testing.T) {
	needMaps(t)
	path, content := patternFile(t, pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	var held []*mmapio.Region
	for n := int64(1); n < 200; n *= 3 {
		mustResize(t, f, n*pageSize)
		held = append(held, mustRegion(t, f, 0, n*pageSize))
	}
	for _, i := range []int{2, 4, 0, 3, 1} {
		wantPathError(t, f.Resize(5), "resize", path, mmapio.ErrBusy)
		same(t, "what is held", held[i].Bytes()[:pageSize], content)
		held[i].Release()
	}
	mustResize(t, f, 5)
	same(t, "at last", contentOf(t, f), content[:5])
	if !errors.Is(f.Resize(-1), os.ErrInvalid) {
		t.Error("a File that was busy is not whole")
	}
}
