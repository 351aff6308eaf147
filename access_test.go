package mmapio_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// A method is one that takes a range. do returns how many bytes it got or
// stored, in a buffer where one is used: b holds n bytes, or is nil where no
// slice could.
type method struct {
	op       string
	stores   bool
	buffered bool // n is the length of a buffer
	locks    bool
	do       func(f *mmapio.File, off, n int64, b []byte) (int64, error)
}

var methods = []method{
	{op: "readat", buffered: true, do: func(f *mmapio.File, off, _ int64, b []byte) (int64, error) {
		n, err := f.ReadAt(b, off)
		return int64(n), err
	}},
	{op: "writeat", stores: true, buffered: true, do: func(f *mmapio.File, off, _ int64, b []byte) (int64, error) {
		n, err := f.WriteAt(b, off)
		return int64(n), err
	}},
	{op: "view", do: func(f *mmapio.File, off, n int64, b []byte) (got int64, err error) {
		got = -1
		err = f.View(off, n, func(v []byte) error {
			got = int64(len(v))
			if len(v) != cap(v) {
				return fmt.Errorf("%d bytes with a capacity of %d", len(v), cap(v))
			}
			copy(b, v)
			return nil
		})
		return got, err
	}},
	{op: "update", stores: true, do: func(f *mmapio.File, off, n int64, b []byte) (got int64, err error) {
		got = -1
		err = f.Update(off, n, func(v []byte) error {
			got = int64(len(v))
			if len(v) != cap(v) {
				return fmt.Errorf("%d bytes with a capacity of %d", len(v), cap(v))
			}
			copy(v, b)
			return nil
		})
		return got, err
	}},
	// In this order: what is verified is locked, and unlocked bit by bit.
	{op: "lock", locks: true, do: func(f *mmapio.File, off, n int64, _ []byte) (int64, error) { return n, f.Lock(off, n) }},
	{op: "verifylocked", locks: true, do: func(f *mmapio.File, off, n int64, _ []byte) (int64, error) {
		if err := f.LockAll(); err != nil {
			return n, err
		}
		return n, f.VerifyLocked(off, n)
	}},
	{op: "unlock", locks: true, do: func(f *mmapio.File, off, n int64, _ []byte) (int64, error) { return n, f.Unlock(off, n) }},
}

// inside says whether a range is right, by another sum than the library's: two
// numbers that are not negative cannot overflow a uint64.
func inside(off, n, size int64) bool {
	return off >= 0 && n >= 0 && uint64(off)+uint64(n) <= uint64(size)
}

// The kinds of outcome that the contract knows.
const (
	done     = "done"
	atEOF    = "io.EOF"
	badRange = "*RangeError"
	readOnly = "ErrReadOnly"
	isClosed = "fs.ErrClosed"
)

// outcome is what the contract says of a call: closed comes before the mode,
// the mode before the bounds.
func (m *method) outcome(mode mmapio.Mode, size, off, n int64) (kind string, count int64) {
	switch {
	case m.stores && mode == mmapio.ReadOnly:
		return readOnly, 0
	case (m.op == "lock" || m.op == "unlock") && n == 0:
		return done, 0
	case m.op == "readat" && off >= size:
		return atEOF, 0
	case m.op == "readat" && off >= 0 && n > size-off:
		return atEOF, size - off
	case inside(off, n, size):
		return done, n
	}
	return badRange, 0
}

func kindOf(err error) string {
	re := (*mmapio.RangeError)(nil)
	switch {
	case err == nil:
		return done
	case err == io.EOF: //nolint:errorlint // io.ReaderAt: itself, not wrapped
		return atEOF
	case errors.As(err, &re) && errors.Is(err, fs.ErrInvalid):
		return badRange
	case errors.Is(err, mmapio.ErrReadOnly) && errors.Is(err, fs.ErrPermission):
		return readOnly
	case errors.Is(err, fs.ErrClosed):
		return isClosed
	}
	return fmt.Sprintf("%T: %v", err, err)
}

// edges are the numbers at which bounds go wrong.
func edges(size int64) []int64 {
	e := []int64{
		math.MinInt64, math.MinInt64 + 1, -1, 0, 1, pageSize - 1, pageSize, pageSize + 1,
		size - 1, size, size + 1, math.MaxInt64 - 1, math.MaxInt64,
	}
	slices.Sort(e)
	return slices.Compact(e)
}

// A subject is an open File and what it must show.
type subject struct {
	f     *mmapio.File
	model []byte
}

// eachSubject opens a File of every mode over ranges of every alignment, and
// memory without a file.
func eachSubject(t *testing.T, test func(t *testing.T, s *subject)) {
	needMaps(t)
	const tail = 17 // the last page is not a whole one
	for _, size := range []int64{0, 3*pageSize + tail} {
		for _, offset := range []int64{0, 1, pageSize - 1, pageSize, pageSize + 1} {
			path, content := patternFile(t, offset+size)
			for _, mode := range allModes {
				t.Run(fmt.Sprintf("size=%d/offset=%d/%v", size, offset, mode), func(t *testing.T) {
					s := &subject{mustOpen(t, path, &mmapio.Options{Mode: mode, Offset: offset}), bytes.Clone(content[offset:])}
					test(t, s)
					if mode == mmapio.ReadWrite {
						copy(content[offset:], s.model)
					}
					mustClose(t, s.f)
					same(t, "the file", onDisk(t, path), content)
				})
			}
		}
		t.Run(fmt.Sprintf("size=%d/anonymous", size), func(t *testing.T) {
			s := &subject{opened(t)(mmapio.Anonymous(size, nil)), make([]byte, size)}
			test(t, s)
			mustClose(t, s.f)
		})
	}
}

// TestBounds gives every method every range of edges, and looks after each call
// whether the File still shows just what it must.
func TestBounds(t *testing.T) {
	for i := range methods {
		m := &methods[i]
		t.Run(m.op, func(t *testing.T) {
			if m.locks {
				needLocks(t)
			}
			if m.op == "verifylocked" {
				f := opened(t)(mmapio.Anonymous(1, nil))
				err := errors.Join(f.LockAll(), f.VerifyLocked(0, 1))
				why := prove.Missing(prove.Verify)
				if errors.Is(err, errors.ErrUnsupported) || why != "" {
					prove.Unable(t, "%s does not tell what is locked: %s %v", runtime.GOOS, why, err)
				}
			}
			eachSubject(t, func(t *testing.T, s *subject) { boundsOf(t, m, s) })
		})
	}
}

func boundsOf(t *testing.T, m *method, s *subject) {
	size := int64(len(s.model))
	for i, off := range edges(size) {
		for j, n := range edges(size) {
			var b []byte
			if n >= 0 && n <= size+1 {
				b = pattern(n, int64(100*i+j))
			} else if m.buffered {
				continue // no such buffer
			}
			sent := bytes.Clone(b)
			count, err := m.do(s.f, off, n, b)
			kind, want := m.outcome(s.f.Mode(), size, off, n)
			if kindOf(err) != kind {
				t.Fatalf("%s(%d, %d) of %d bytes: %v, want %s", m.op, off, n, size, err, kind)
			}
			if kind == badRange {
				wantRangeError(t, err, mmapio.RangeError{Op: m.op, Path: s.f.Name(), Off: off, Len: n, Size: size})
				want = max(want, 0)
			}
			if kind == readOnly {
				wantPathError(t, err, m.op, s.f.Name(), mmapio.ErrReadOnly)
			}
			switch {
			case m.locks:
			case kind == badRange || kind == readOnly:
				if m.buffered && count != 0 || !m.buffered && count != -1 {
					t.Fatalf("%s(%d, %d) of %d bytes did something (%d) and failed: %v", m.op, off, n, size, count, err)
				}
			case count != want:
				t.Fatalf("%s(%d, %d) of %d bytes: %d bytes, want %d", m.op, off, n, size, count, want)
			case m.stores:
				copy(s.model[off:], sent)
			default:
				if off < size {
					same(t, m.op, b[:count], s.model[off:off+count])
				}
			}
			if err := s.f.View(0, size, func(v []byte) error {
				same(t, fmt.Sprintf("after %s(%d, %d)", m.op, off, n), v, s.model)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestClosedBeforeBounds: on a closed File nothing else is wrong.
func TestClosedBeforeBounds(t *testing.T) {
	eachSubject(t, func(t *testing.T, s *subject) {
		size := int64(len(s.model))
		mustClose(t, s.f)
		for i := range methods {
			for _, off := range edges(size) {
				for _, n := range edges(size) {
					b := make([]byte, min(max(n, 0), size+1))
					if _, err := methods[i].do(s.f, off, n, b); kindOf(err) != isClosed {
						t.Fatalf("%s(%d, %d) after Close: %v", methods[i].op, off, n, err)
					}
				}
			}
		}
		if s.f.Size() != 0 {
			t.Errorf("Size() = %d after Close", s.f.Size())
		}
		s.f = opened(t)(mmapio.Anonymous(0, nil)) // for the caller to close
	})
}

// TestReader has the standard library read a File in all ways that it knows.
func TestReader(t *testing.T) {
	for _, size := range []int64{0, 1, 2*pageSize + 1} {
		for _, offset := range []int64{0, 1, pageSize + 3} {
			path, content := patternFile(t, offset+size)
			for _, mode := range allModes {
				if !maps && mode == mmapio.ReadWrite {
					continue
				}
				f := mustOpen(t, path, &mmapio.Options{Mode: mode, Offset: offset})
				if err := iotest.TestReader(io.NewSectionReader(f, 0, f.Size()), content[offset:]); err != nil {
					t.Errorf("%d bytes from %d, %v: %v", size, offset, mode, err)
				}
				got, err := io.ReadAll(iotest.OneByteReader(io.NewSectionReader(f, 0, math.MaxInt64)))
				if err != nil || !bytes.Equal(got, content[offset:]) {
					t.Errorf("%d bytes from %d, %v: byte by byte: %v, %d bytes", size, offset, mode, err, len(got))
				}
				mustClose(t, f)
			}
		}
	}
}

// TestWriter has the standard library write to a File.
func TestWriter(t *testing.T) {
	needMaps(t)
	const offset = 3
	path, content := patternFile(t, 3*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Offset: offset})
	text := pattern(pageSize+5, 2)
	w := io.NewOffsetWriter(f, 7)
	if n, err := io.Copy(w, iotest.HalfReader(bytes.NewReader(text))); n != int64(len(text)) || err != nil {
		t.Fatal(n, err)
	}
	copy(content[offset+7:], text)
	same(t, "after io.Copy", contentOf(t, f), content[offset:])

	// The last one that fits fits, the next does not, and writes nothing of itself.
	size := f.Size()
	if _, err := w.Seek(size-7-3, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	n, err := w.Write([]byte("abcd"))
	wantRangeError(t, err, mmapio.RangeError{Op: "writeat", Path: path, Off: size - 3, Len: 4, Size: size})
	if n != 0 {
		t.Errorf("%d bytes written past the end", n)
	}
	same(t, "after a write past the end", contentOf(t, f), content[offset:])
	if n, err := w.Write([]byte("abc")); n != 3 || err != nil {
		t.Error(n, err)
	}
	copy(content[len(content)-3:], "abc")
	mustClose(t, f)
	same(t, "the file", onDisk(t, path), content)
}

// TestCallerBuffers: what is copied may lie in mapped memory itself, the same
// even.
func TestCallerBuffers(t *testing.T) {
	needMaps(t)
	f := opened(t)(mmapio.Anonymous(pageSize, nil))
	store(t, f, 0, "0123456789")
	err := f.Update(2, 4, func(b []byte) error {
		if _, err := f.ReadAt(b, 0); err != nil { // the ranges overlap
			return err
		}
		_, err := f.WriteAt(b, 8)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := contentOf(t, f)[:12]; string(got) != "010123670123" {
		t.Errorf("%q", got)
	}
}

// TestNoAllocation: the methods that a program calls millions of times leave
// nothing for the collector.
func TestNoAllocation(t *testing.T) {
	needMaps(t)
	path, _ := patternFile(t, 3*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Offset: 1})
	small, large := make([]byte, 64), make([]byte, 2*pageSize)
	sum := 0
	look := func(b []byte) error { sum += int(b[0]); return nil }
	change := func(b []byte) error { b[0]++; return nil }
	calls := map[string]func() error{
		"ReadAt":        func() error { _, err := f.ReadAt(small, 5); return err },
		"ReadAt, large": func() error { _, err := f.ReadAt(large, 5); return err },
		"WriteAt":       func() error { _, err := f.WriteAt(small, 5); return err },
		"WriteAt large": func() error { _, err := f.WriteAt(large, 5); return err },
		"View":          func() error { return f.View(5, 64, look) },
		"Update":        func() error { return f.Update(5, 64, change) },
		"empty ReadAt":  func() error { _, err := f.ReadAt(nil, 5); return err },
		"short ReadAt": func() error {
			if n, err := f.ReadAt(small, f.Size()-9); n != 9 || err != io.EOF { //nolint:errorlint // as above
				return fmt.Errorf("%d bytes, %w", n, err)
			}
			return nil
		},
	}
	if f.Lock(0, 2*pageSize) == nil {
		calls["Lock of what is locked"] = func() error { return f.Lock(10, pageSize) }
	}
	for name, call := range calls {
		var err error
		if n := testing.AllocsPerRun(200, func() { err = errors.Join(err, call()) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
