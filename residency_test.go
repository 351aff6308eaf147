package mmapio_test

import (
	"errors"
	"io/fs"
	"runtime"
	"slices"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// tellsResidency skips where the system does not say what is in RAM.
func tellsResidency(t *testing.T, f *mmapio.File) {
	t.Helper()
	r, err := f.Residency(0, f.Size())
	if errors.Is(err, errors.ErrUnsupported) {
		if _, err := f.ResidentRanges(0, f.Size()); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("ResidentRanges: %v, where Residency is unsupported", err)
		}
		prove.Unable(t, "%s does not tell what is in RAM", runtime.GOOS)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !r.Known() {
		prove.Unable(t, "%s does not tell what is in RAM of this file", runtime.GOOS)
	}
}

// Pages are counted that a range touches; ranges are cut to what was asked.
func TestResidencyRanges(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	path, _ := patternFile(t, 8*pageSize+1)
	for _, mode := range allModes {
		if mode == mmapio.ReadWrite {
			needMaps(t)
		}
		for _, at := range []int64{0, 100} {
			f := mustOpen(t, path, &mmapio.Options{Mode: mode, Offset: at})
			tellsResidency(t, f)
			for _, test := range []struct{ off, n, pages int64 }{
				{0, 0, 0}, {3, 0, 0}, {f.Size(), 0, 0}, {0, 1, 1}, {f.Size() - 1, 1, 1},
				{pageSize - at, pageSize, 1}, {pageSize - at, pageSize + 1, 2}, {pageSize - at - 1, 2, 2},
				{1, f.Size() - 2, (f.Size()+at-1-1)/pageSize + 1 - (1+at)/pageSize},
			} {
				r, err := f.Residency(test.off, test.n)
				if err != nil || r.Pages != test.pages || r.Resident != test.pages || int64(r.PageSize) != pageSize {
					t.Errorf("%v from %d, [%d+%d]: %+v, %v; want %d pages", mode, at, test.off, test.n, r, err, test.pages)
				}
				var want []mmapio.Range
				if test.n > 0 {
					want = []mmapio.Range{{Off: test.off, Len: test.n}}
				}
				if ranges, err := f.ResidentRanges(test.off, test.n); err != nil || !slices.Equal(ranges, want) {
					t.Errorf("%v from %d, [%d+%d]: %v, %v", mode, at, test.off, test.n, ranges, err)
				}
			}
			mustClose(t, f)
		}
	}
}

// Between the copies of a CopyOnWrite File its pages are those of the file.
func TestResidencyBetweenCopies(t *testing.T) {
	needMaps(t)
	prove.Need(t, prove.Pagemap)
	path, _ := patternFile(t, 8*pageSize)
	for _, copies := range [][]int64{{}, {0}, {7}, {2}, {2, 3, 6}} {
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.CopyOnWrite})
		tellsResidency(t, f)
		for _, p := range copies {
			store(t, f, p*pageSize+5, "mine")
		}
		if r, err := f.Residency(0, f.Size()); err != nil || r.Resident != 8 {
			t.Errorf("copies %v: %+v, %v", copies, r, err)
		}
		want := []mmapio.Range{{Off: 0, Len: f.Size()}}
		if ranges, err := f.ResidentRanges(0, f.Size()); err != nil || !slices.Equal(ranges, want) {
			t.Errorf("copies %v: %v, %v", copies, ranges, err)
		}
		mustClose(t, f)
	}
}

func TestResidencyErrors(t *testing.T) {
	path, _ := patternFile(t, pageSize)
	f := mustOpen(t, path, nil)
	for _, bad := range [][2]int64{{-1, 1}, {0, -1}, {0, pageSize + 1}, {pageSize, 1}, {pageSize + 1, 0}, {1 << 62, 1 << 62}} {
		var re *mmapio.RangeError
		if _, err := f.Residency(bad[0], bad[1]); !errors.As(err, &re) || re.Op != "residency" {
			t.Errorf("Residency of %v: %v", bad, err)
		}
		if _, err := f.ResidentRanges(bad[0], bad[1]); !errors.As(err, &re) || re.Op != "residentranges" {
			t.Errorf("ResidentRanges of %v: %v", bad, err)
		}
	}
	mustClose(t, f)
	if _, err := f.Residency(0, 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := f.ResidentRanges(0, 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// An empty file has no pages.
func TestResidencyEmpty(t *testing.T) {
	path, _ := patternFile(t, 0)
	f := mustOpen(t, path, nil)
	r, err := f.Residency(0, 0)
	if err != nil || r.Pages != 0 || r.Resident != 0 || !r.Known() {
		t.Errorf("got %+v, %v", r, err)
	}
	if ranges, err := f.ResidentRanges(0, 0); err != nil || len(ranges) != 0 {
		t.Errorf("got %v, %v", ranges, err)
	}
}

func TestResidencyKnown(t *testing.T) {
	if (mmapio.Residency{Resident: -1}).Known() || !(mmapio.Residency{}).Known() {
		t.Error("-1 is not known, 0 is")
	}
}
