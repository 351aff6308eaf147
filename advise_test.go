package mmapio_test

import (
	"bytes"
	"errors"
	"github.com/mmapio/mmapio/internal/prove"
	"io/fs"
	"runtime"
	"testing"

	"github.com/mmapio/mmapio"
)

var allAdvice = []mmapio.Advice{
	mmapio.AdviceNormal, mmapio.AdviceRandom, mmapio.AdviceSequential, mmapio.AdviceWillNeed, mmapio.AdviceCold,
	mmapio.AdvicePageOut, mmapio.AdviceDontNeed, mmapio.AdviceHugePage, mmapio.AdviceNoHugePage, mmapio.AdviceCollapse,
}

func TestAdviceString(t *testing.T) {
	want := []string{"Normal", "Random", "Sequential", "WillNeed", "Cold", "PageOut", "DontNeed", "HugePage", "NoHugePage", "Collapse"}
	for i, a := range allAdvice {
		if int(a) != i || a.String() != want[i] {
			t.Errorf("%d is %v, want %s", a, a, want[i])
		}
	}
	if got := mmapio.Advice(-1).String() + mmapio.Advice(10).String(); got != "Advice(-1)Advice(10)" {
		t.Error(got)
	}
}

func TestAdviseErrors(t *testing.T) {
	path, _ := patternFile(t, 3*pageSize)
	f := mustOpen(t, path, nil)
	for _, a := range allAdvice {
		for _, bad := range [][2]int64{{-1, 1}, {0, -1}, {0, 3*pageSize + 1}, {3 * pageSize, 1}, {1 << 62, 1 << 62}} {
			var re *mmapio.RangeError
			if err := f.Advise(bad[0], bad[1], a); !errors.As(err, &re) || re.Op != "advise" || re.Off != bad[0] || re.Len != bad[1] {
				t.Errorf("%v of %v: %v", a, bad, err)
			}
		}
		for _, at := range []int64{0, 1, 3 * pageSize} {
			if err := f.Advise(at, 0, a); err != nil {
				t.Errorf("%v of nothing at %d: %v", a, at, err)
			}
		}
	}
	for _, a := range []mmapio.Advice{-1, 10} {
		if err := f.Advise(0, 1, a); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%v: %v", a, err)
		}
	}
	mustClose(t, f)
	for _, a := range append(allAdvice, -1) {
		if err := f.Advise(-1, 0, a); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%v after Close: %v", a, err)
		}
	}
	if err := f.Prefetch(-1, 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Prefetch after Close: %v", err)
	}
}

// A File is read at random only where that was really advised, and only until it
// is taken back: it is brought in piece by piece then.
func TestAdviseRandomThatFails(t *testing.T) {
	path, _ := patternFile(t, 3*pageSize)
	f := mustOpen(t, path, nil)
	for _, c := range []struct {
		off, n int64
		a      mmapio.Advice
		want   bool
	}{
		{0, 0, mmapio.AdviceRandom, false},            // nothing
		{0, f.Size() + 1, mmapio.AdviceRandom, false}, // an error
		{0, pageSize, mmapio.AdviceRandom, true},
		{0, f.Size() + 1, mmapio.AdviceNormal, true}, // an error
		{0, pageSize, mmapio.AdviceNormal, false},
	} {
		err := f.Advise(c.off, c.n, c.a)
		if (err != nil) != (c.n > f.Size()) {
			t.Errorf("%v of %d bytes: %v", c.a, c.n, err)
		}
		if got := mmapio.IsRandom(f); got != c.want {
			t.Errorf("after %v of %d bytes: read at random %v, want %v", c.a, c.n, got, c.want)
		}
	}
}

// Advice about pages that a shrink cuts off is not for those that are added later.
func TestAdviseCutOff(t *testing.T) {
	needMaps(t)
	path, _ := patternFile(t, 10*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	for _, end := range []int64{8, 10} { // of the advice; the last page is that of the File
		check(t, f.Advise(5*pageSize, (end-5)*pageSize, mmapio.AdviceRandom))
		check(t, f.Resize(3*pageSize))
		check(t, f.Resize(10*pageSize))
		if mmapio.IsRandom(f) {
			t.Errorf("advice up to page %d outlives its pages", end)
		}
	}
}

// No advice changes what is read, nor loses what was stored.
func TestAdviseChangesNothing(t *testing.T) {
	needMaps(t)
	const pages = 40
	check := func(f *mmapio.File, want []byte) {
		t.Helper()
		for _, r := range [][2]int64{{0, f.Size()}, {1, f.Size() - 2}, {pageSize - 1, 2}, {3 * pageSize, 7 * pageSize}, {5*pageSize + 9, 9}} {
			for _, a := range allAdvice {
				err := f.Advise(r[0], r[1], a)
				private := f.Mode() == mmapio.CopyOnWrite || f.Name() == "anonymous"
				if a == mmapio.AdviceDontNeed && private {
					if !errors.Is(err, errors.ErrUnsupported) {
						t.Errorf("%v, %v: %v", f.Mode(), a, err)
					}
				} else if err != nil {
					t.Errorf("%v, %v of %v: %v", f.Mode(), a, r, err)
				}
				if got := contentOf(t, f); !bytes.Equal(got, want) {
					t.Fatalf("%v of %s: %v of %v changed it", f.Mode(), f.Name(), a, r)
				}
			}
		}
	}
	for _, mode := range allModes {
		path, want := patternFile(t, pages*pageSize+7)
		f := mustOpen(t, path, &mmapio.Options{Mode: mode, Offset: 100})
		want = want[100:]
		if mode != mmapio.ReadOnly {
			for p := int64(1); p < pages; p += 2 {
				copy(want[p*pageSize:], "stored to")
				if _, err := f.WriteAt([]byte("stored to"), p*pageSize); err != nil {
					t.Fatal(err)
				}
			}
		}
		check(f, want)
		mustClose(t, f)
	}
	f := opened(t)(mmapio.Anonymous(pages*pageSize, nil))
	want := pattern(pages*pageSize, 3)
	if _, err := f.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	check(f, want)
}

// Pages that are locked or pinned are not moved out, and then none is.
func TestAdviseLocked(t *testing.T) {
	path, _ := patternFile(t, 8*pageSize)
	f := mustOpen(t, path, nil)
	pin, err := f.Pin(4*pageSize+5, 1)
	if errors.Is(err, errors.ErrUnsupported) {
		prove.Unable(t, "%s locks no pages", runtime.GOOS)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Lock(pageSize+5, 1); err != nil {
		t.Fatal(err)
	}
	for _, a := range []mmapio.Advice{mmapio.AdviceCold, mmapio.AdvicePageOut, mmapio.AdviceDontNeed} {
		for _, r := range [][2]int64{{0, f.Size()}, {pageSize, pageSize}, {1, 2*pageSize - 1}, {4 * pageSize, pageSize}, {2 * pageSize, 6 * pageSize}} {
			if err := f.Advise(r[0], r[1], a); !errors.Is(err, mmapio.ErrBusy) {
				t.Errorf("%v of %v: %v", a, r, err)
			}
		}
		// The locked pages have bytes outside of these.
		for _, r := range [][2]int64{{2 * pageSize, 2 * pageSize}, {pageSize + 1, 3*pageSize - 1}, {0, 2*pageSize - 1}, {pageSize + 5, 1}} {
			if err := f.Advise(r[0], r[1], a); err != nil {
				t.Errorf("%v of %v: %v", a, r, err)
			}
		}
	}
	for _, a := range []mmapio.Advice{mmapio.AdviceNormal, mmapio.AdviceRandom, mmapio.AdviceSequential, mmapio.AdviceWillNeed,
		mmapio.AdviceHugePage, mmapio.AdviceNoHugePage, mmapio.AdviceCollapse} {
		if err := f.Advise(0, f.Size(), a); err != nil {
			t.Errorf("%v: %v", a, err)
		}
	}
	if err := errors.Join(f.UnlockAll(), pin.Release()); err != nil {
		t.Fatal(err)
	}
	if err := f.Advise(0, f.Size(), mmapio.AdviceDontNeed); err != nil {
		t.Errorf("unlocked: %v", err)
	}
}
