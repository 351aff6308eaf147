package mmapio_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"
	"testing/iotest"

	"github.com/mmapio/mmapio"
)

func mustSection(t testing.TB, f *mmapio.File, off, n int64) *mmapio.Section {
	t.Helper()
	s, err := f.Section(off, n)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sectionCalls are all methods that take a range, of one byte at off.
var sectionCalls = []struct {
	op     string
	stores bool
	locks  bool
	do     func(s *mmapio.Section, off, n int64) error
}{
	{op: "readat", do: func(s *mmapio.Section, off, n int64) error { _, err := s.ReadAt(make([]byte, n), off); return err }},
	{op: "writeat", stores: true, do: func(s *mmapio.Section, off, n int64) error {
		_, err := s.WriteAt(make([]byte, n), off)
		return err
	}},
	{op: "view", do: func(s *mmapio.Section, off, n int64) error {
		return s.View(off, n, func([]byte) error { return nil })
	}},
	{op: "update", stores: true, do: func(s *mmapio.Section, off, n int64) error {
		return s.Update(off, n, func([]byte) error { return nil })
	}},
	{op: "chunks", do: func(s *mmapio.Section, off, n int64) error {
		return through(s.Chunks(off, n, 1<<20), func(mmapio.Chunk) error { return nil })
	}},
	{op: "lock", locks: true, do: func(s *mmapio.Section, off, n int64) error { return s.Lock(off, n) }},
	{op: "unlock", locks: true, do: func(s *mmapio.Section, off, n int64) error { return s.Unlock(off, n) }},
}

// TestSection compares a section with the part of the File that it is.
func TestSection(t *testing.T) {
	for _, mode := range allModes {
		if mode == mmapio.ReadWrite && !maps {
			continue
		}
		t.Run(mode.String(), func(t *testing.T) {
			path, whole := patternFile(t, 4*pageSize)
			f := mustOpen(t, path, &mmapio.Options{Mode: mode, Offset: 7})
			off, n := pageSize+9, pageSize+100
			s := mustSection(t, f, off, n)
			want := bytes.Clone(whole[7+off : 7+off+n])
			if s.Offset() != off || s.Size() != n || !s.Valid() {
				t.Errorf("section [%d, +%d), valid %v", s.Offset(), s.Size(), s.Valid())
			}
			if mode != mmapio.ReadOnly {
				if k, err := s.WriteAt([]byte("end"), n-3); k != 3 || err != nil {
					t.Errorf("WriteAt at the end: %d, %v", k, err)
				}
				err := s.Update(2, 3, func(b []byte) error {
					if len(b) != 3 || cap(b) != 3 {
						t.Errorf("Update of %d bytes, capacity %d", len(b), cap(b))
					}
					copy(b, "mid")
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				copy(want[n-3:], "end")
				copy(want[2:], "mid")
			}
			// io.ReaderAt to the letter, in the section's own bounds.
			if err := iotest.TestReader(io.NewSectionReader(s, 0, n), want); err != nil {
				t.Error(err)
			}
			for _, r := range []struct {
				off, len, n int64
				err         error
			}{
				{0, n, n, nil}, {0, n + 1, n, io.EOF}, {n - 1, 1, 1, nil}, {n - 1, 2, 1, io.EOF}, {n - 1, 3 * pageSize, 1, io.EOF},
				{n, 1, 0, io.EOF}, {n, 0, 0, io.EOF}, {n + 1, 1, 0, io.EOF}, {1<<63 - 1, 5, 0, io.EOF}, {3, 0, 0, nil},
			} {
				p := make([]byte, r.len)
				k, err := s.ReadAt(p, r.off)
				if int64(k) != r.n || err != r.err { //nolint:errorlint // io.EOF comes bare
					t.Errorf("ReadAt of %d bytes at %d: %d, %v, want %d, %v", r.len, r.off, k, err, r.n, r.err)
				}
				if r.off < n {
					same(t, "ReadAt", p[:k], want[r.off:r.off+r.n])
				}
			}
			err := s.View(0, n, func(b []byte) error { same(t, "View", b, want); return nil })
			if err != nil {
				t.Error(err)
			}
			count := wantPieces(t, s.Chunks(5, n-5, 1000), want, 5, n-5, func(at int64) int64 { return at + 1000 })
			if count != int((n-5+999)/1000) {
				t.Errorf("%d pieces", count)
			}
			// Nothing around it was changed.
			around := contentOf(t, f)
			same(t, "before it", around[:off], whole[7:7+off])
			same(t, "after it", around[off+n:], whole[7+off+n:])
			if err := s.Sync(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSectionBounds asks for what lies outside, or in front. The numbers in the
// errors are the section's.
func TestSectionBounds(t *testing.T) {
	needMaps(t)
	path, content := patternFile(t, 4*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	ro := mustOpen(t, path, nil)
	n := pageSize
	s, readonly := mustSection(t, f, pageSize, n), mustSection(t, ro, pageSize, n)
	for _, call := range sectionCalls {
		for _, r := range [][2]int64{{-1, 1}, {-1, 2}, {0, n + 1}, {n, 1}, {n - 1, 2}, {n + 1, 0}, {-pageSize, pageSize}, {-1 << 63, 5}, {1<<63 - 1, 5}} {
			if call.op == "readat" && r[0] >= 0 || call.locks && r[1] == 0 {
				continue // those are no errors
			}
			want := mmapio.RangeError{Op: call.op, Path: path, Off: r[0], Len: r[1], Size: n}
			wantRangeError(t, call.do(s, r[0], r[1]), want)
			if !call.stores {
				wantRangeError(t, call.do(readonly, r[0], r[1]), want)
			} else {
				wantPathError(t, call.do(readonly, r[0], r[1]), call.op, path, mmapio.ErrReadOnly)
			}
		}
		if err := call.do(s, 0, 0); err != nil {
			t.Errorf("%s of nothing: %v", call.op, err)
		}
	}
	same(t, "the file", onDisk(t, path), content)
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {1, 4 * pageSize}, {4*pageSize + 1, 0}, {1 << 62, 1 << 62}} {
		_, err := f.Section(r[0], r[1])
		wantRangeError(t, err, mmapio.RangeError{Op: "section", Path: path, Off: r[0], Len: r[1], Size: 4 * pageSize})
	}
	empty := mustSection(t, f, 4*pageSize, 0)
	if !empty.Valid() || empty.Size() != 0 {
		t.Error("an empty section at the end is not valid")
	}
	if k, err := empty.ReadAt(make([]byte, 1), 0); k != 0 || err != io.EOF { //nolint:errorlint // io.EOF comes bare
		t.Errorf("ReadAt in an empty section: %d, %v", k, err)
	}
	wantRangeError(t, empty.Update(0, 1, nil), mmapio.RangeError{Op: "update", Path: path, Len: 1, Size: 0})
}

// TestSectionMoves takes a section through growth, a shrink that cuts it, and
// growth again. It holds nothing, so nothing is refused because of it.
func TestSectionMoves(t *testing.T) {
	needMaps(t)
	path, content := patternFile(t, 4*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	off, n := pageSize, 2*pageSize
	s := mustSection(t, f, off, n)
	try := func(state string, want func(op string, err error)) {
		t.Helper()
		for _, call := range sectionCalls {
			err := call.do(s, 0, 1)
			if le := (*mmapio.LockError)(nil); call.op == "lock" && errors.As(err, &le) {
				continue // no lock for this user
			}
			want(fmt.Sprintf("%s: %s", state, call.op), err)
		}
	}
	fine := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	cut := func(size int64) func(string, error) {
		return func(what string, err error) {
			t.Helper()
			re := (*mmapio.RangeError)(nil)
			if !errors.As(err, &re) || re.Off != off || re.Len != n || re.Size != size {
				t.Errorf("%s: %+v, want a RangeError of [%d, +%d) in %d", what, err, off, n, size)
			}
		}
	}
	resize := func(size int64) {
		t.Helper()
		if err := f.Resize(size); err != nil {
			t.Fatal(err)
		}
	}
	try("at first", fine)
	content[off] = 0 // what WriteAt stores
	resize(9 * pageSize)
	try("grown", fine)
	resize(off + n)
	if !s.Valid() {
		t.Error("not valid where it just fits")
	}
	try("just fits", fine)
	resize(off + n - 1)
	if s.Valid() {
		t.Error("valid though it was cut")
	}
	try("cut", cut(off+n-1))
	cut(off+n-1)("sync", s.Sync())
	resize(0)
	try("nothing left", cut(0))
	resize(4 * pageSize)
	if !s.Valid() || s.Offset() != off || s.Size() != n {
		t.Error("not valid when there is room again")
	}
	try("grown again", fine)
	mustClose(t, f)
	if s.Valid() {
		t.Error("valid after Close")
	}
	for _, call := range sectionCalls {
		// Closed comes before all else.
		for _, off := range []int64{0, -1, 1 << 40} {
			wantPathError(t, call.do(s, off, 1), call.op, path, fs.ErrClosed)
		}
	}
	wantPathError(t, s.Sync(), "sync", path, fs.ErrClosed)
	_, err := f.Section(-1, 0)
	wantPathError(t, err, "section", path, fs.ErrClosed)
	empty := opened(t)(mmapio.Anonymous(0, nil))
	none := mustSection(t, empty, 0, 0)
	mustClose(t, empty)
	if none.Valid() {
		t.Error("an empty section is valid after Close")
	}
}

// TestSectionLock locks through a section the pages that it covers.
func TestSectionLock(t *testing.T) {
	needLocks(t)
	path, _ := patternFile(t, 4*pageSize)
	f := mustOpen(t, path, nil)
	s := mustSection(t, f, pageSize, 2*pageSize)
	if err := s.Lock(pageSize, 1); err != nil {
		t.Fatal(err)
	}
	if got := f.LockedRanges(); len(got) != 1 || got[0] != (mmapio.Range{Off: 2 * pageSize, Len: pageSize}) {
		t.Errorf("locked: %v", got)
	}
	if err := s.Unlock(0, s.Size()); err != nil {
		t.Fatal(err)
	}
	if got := f.LockedBytes(); got != 0 {
		t.Errorf("%d bytes are still locked", got)
	}
}
