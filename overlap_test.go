package mmapio_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// overlaps are copies within a File of 4 MiB, whose source and target overlap.
var overlaps = []struct{ to, from, n int64 }{
	{1 << 20, 0, 3 << 20},
	{0, 1 << 20, 3 << 20},
	{1<<20 - 1900, 1<<20 - 2000, 4000},
	{1<<20 - 2000, 1<<20 - 1900, 4000},
	{1<<18 + 1, 1 << 18, 1 << 20},
	{1 << 18, 1<<18 + 1, 1 << 20},
	{pageSize + 7, 5, 700_000},
	{5, pageSize + 7, 700_000},
	{77, 77, 1 << 20},
}

// TestCopyOverlap: ReadAt and WriteAt may be given the File's own bytes, and move
// them as the built-in copy does, be they known to be in memory or not.
func TestCopyOverlap(t *testing.T) {
	needMaps(t)
	const size = 4 << 20
	path, content := patternFile(t, size)
	open := map[string]func() *mmapio.File{
		"ReadWrite":   func() *mmapio.File { return mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite}) },
		"CopyOnWrite": func() *mmapio.File { return mustOpen(t, path, &mmapio.Options{Mode: mmapio.CopyOnWrite}) },
		"Anonymous":   func() *mmapio.File { return opened(t)(mmapio.Anonymous(size, nil)) },
	}
	for name, open := range open {
		for _, hot := range []bool{false, true} {
			for _, c := range overlaps {
				for _, write := range []bool{false, true} {
					what := fmt.Sprintf("%s, hot %v, write %v, %+v", name, hot, write, c)
					f := open()
					if name == "Anonymous" {
						store(t, f, 0, string(content))
						f.Expire()
					}
					if hot {
						store(t, f, 0, string(content))
					}
					lent, off, move := c.to, c.from, f.ReadAt
					if write {
						lent, off, move = c.from, c.to, f.WriteAt
					}
					err := f.Update(lent, c.n, func(b []byte) error {
						if n, err := move(b, off); n != len(b) || err != nil {
							return fmt.Errorf("%d bytes, %w", n, err)
						}
						return nil
					})
					if err != nil {
						t.Fatalf("%s: %v", what, err)
					}
					want := append([]byte(nil), content...)
					copy(want[c.to:c.to+c.n], want[c.from:])
					same(t, what, contentOf(t, f), want)
					if f.Mode() == mmapio.ReadWrite { // as it was, for the next
						store(t, f, 0, string(content))
					}
					mustClose(t, f)
				}
			}
		}
	}
}

// TestReadIntoReadOnly: the bytes of a ReadOnly File are no place to read to.
func TestReadIntoReadOnly(t *testing.T) {
	needFaults(t)
	path, content := patternFile(t, 3*pageSize)
	f := mustOpen(t, path, nil)
	for _, to := range []int64{0, 100, 2 * pageSize} {
		var n int
		err := f.View(to, pageSize, func(b []byte) (err error) {
			n, err = f.ReadAt(b, 50)
			return err
		})
		var fe *mmapio.FaultError
		if n != 0 || !errors.As(err, &fe) || fe.Op != "readat" || !errors.Is(err, mmapio.ErrReadOnly) {
			t.Errorf("into %d: %d bytes, %v", to, n, err)
		}
	}
	same(t, "the file", contentOf(t, f), content)
}

// TestCopyOverlapBefore is TestCopyOverlap for bytes that were lent before the mapping
// moved: they show the same bytes of the file at another place.
func TestCopyOverlapBefore(t *testing.T) {
	needMaps(t)
	const size = 4 << 20
	path, content := patternFile(t, size)
	moved := false
	for _, hot := range []bool{false, true} {
		for _, c := range overlaps {
			for _, write := range []bool{false, true} {
				what := fmt.Sprintf("hot %v, write %v, %+v", hot, write, c)
				f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
				lent, off, move := c.to, c.from, f.ReadAt
				if write {
					lent, off, move = c.from, c.to, f.WriteAt
				}
				first := mustRegion(t, f, lent, c.n)
				if err := f.Resize(2 * size); errors.Is(err, mmapio.ErrBusy) {
					prove.Unable(t, "what is held does not grow here") // Windows
				} else {
					check(t, err)
				}
				again := mustRegion(t, f, lent, c.n)
				moved = moved || &again.Bytes()[0] != &first.Bytes()[0]
				again.Release()
				if hot {
					store(t, f, 0, string(content))
				}
				if n, err := move(first.Bytes(), off); n != int(c.n) || err != nil {
					t.Fatalf("%s: %d bytes, %v", what, n, err)
				}
				want := append([]byte(nil), content...)
				copy(want[c.to:c.to+c.n], want[c.from:])
				same(t, what, contentOf(t, f)[:size], want)
				first.Release()
				store(t, f, 0, string(content)) // as it was, for the next
				check(t, f.Resize(size))
				mustClose(t, f)
			}
		}
	}
	if !moved {
		t.Error("no mapping has moved")
	}
}

// TestCopyCutBefore: where a cut has taken the bytes that are copied from, or to, it is
// a FaultError whatever mapping they were lent from.
func TestCopyCutBefore(t *testing.T) {
	needFaults(t)
	prove.Need(t, prove.BusAddress)
	const size = 1 << 20
	for _, write := range []bool{false, true} {
		path, _ := patternFile(t, size)
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
		r := mustRegion(t, f, size/2, size/2)
		check(t, f.Resize(2*size))
		prove.Truncate(t, path, size/4)
		move := f.ReadAt
		if write {
			move = f.WriteAt
		}
		n, err := move(r.Bytes()[:2*pageSize], 0)
		var fe *mmapio.FaultError
		if n != 0 || !errors.As(err, &fe) || fe.Off != size/2 {
			t.Errorf("write %v: %d bytes, %v", write, n, err)
		}
		r.Release()
	}
}

// TestCopyOfAnotherFile: bytes of another File are taken for what they are, also where
// they lie between two mappings that the File had before.
func TestCopyOfAnotherFile(t *testing.T) {
	needMaps(t)
	path, _ := patternFile(t, pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	grow := func() (lo, hi uintptr) {
		lo, hi = mmapio.SpaceOf(f)
		r := mustRegion(t, f, 0, 1) // it stays where it is
		t.Cleanup(r.Release)
		if err := f.Resize(f.Size() + pageSize); errors.Is(err, mmapio.ErrBusy) {
			prove.Unable(t, "what is held does not grow here") // Windows
		} else {
			check(t, err)
		}
		return lo, hi
	}
	first, firstEnd := grow()
	other, content := patternFile(t, 64*pageSize)
	content = append([]byte(nil), content...)
	var lent []*mmapio.Region
	for range 16 {
		g := mustOpen(t, other, nil)
		r := mustRegion(t, g, 0, 100)
		t.Cleanup(r.Release)
		lent = append(lent, r)
		lo, hi := grow()
		first, firstEnd = min(first, lo), max(firstEnd, hi)
	}
	for i, r := range lent {
		store(t, f, 0, string(make([]byte, 100)))
		if n, err := f.WriteAt(r.Bytes(), 0); n != 100 || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		got := make([]byte, 100)
		if n, err := f.ReadAt(got, 0); n != 100 || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		same(t, fmt.Sprintf("what was written of File %d, whose own lies in [%#x, %#x)", i, first, firstEnd), got, content[:100])
	}
}
