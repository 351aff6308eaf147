package mmapio_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"testing"

	"github.com/mmapio/mmapio"
)

// wantPieces checks that the pieces of a loop are [off, off+n) of content, cut
// where cuts says, and returns how many there were.
func wantPieces(t *testing.T, seq iter.Seq2[mmapio.Chunk, error], content []byte, off, n int64, next func(at int64) int64) int {
	t.Helper()
	at, count := off, 0
	for c, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		end := min(next(at), off+n)
		if c.Off != at || int64(len(c.Data)) != end-at || cap(c.Data) != len(c.Data) {
			t.Fatalf("piece %d is [%d, %d), capacity %d, want [%d, %d)", count, c.Off, c.Off+int64(len(c.Data)), cap(c.Data), at, end)
		}
		same(t, "a piece", c.Data, content[at:end])
		at = end
		count++
	}
	if at != off+n {
		t.Errorf("ended at %d, want %d", at, off+n)
	}
	return count
}

// TestPieces is about where Chunks and Pages cut.
func TestPieces(t *testing.T) {
	for _, offset := range []int64{0, 1, pageSize - 1, pageSize, pageSize + 100} {
		path, whole := patternFile(t, 6*pageSize+50)
		f := mustOpen(t, path, &mmapio.Options{Offset: offset})
		content, size := whole[offset:], f.Size()
		for _, r := range [][2]int64{{0, size}, {0, 0}, {size, 0}, {5, 1}, {size - 1, 1}, {pageSize, pageSize}, {99, 2*pageSize + 3}, {pageSize - offset%pageSize, 1}} {
			off, n := r[0], r[1]
			for _, step := range []int64{1, 7, pageSize - 1, pageSize, pageSize + 1, size, size + 1, 1 << 62, 1<<63 - 1} {
				if step == 1 && n > pageSize {
					continue // slow, and nothing new
				}
				got := wantPieces(t, f.Chunks(off, n, step), content, off, n, func(at int64) int64 {
					if step > size {
						return size
					}
					return at + step
				})
				if want := int((n-1)/step + 1); n > 0 && got != want {
					t.Errorf("%d pieces of %d in %d bytes, want %d", got, step, n, want)
				}
			}
			// The edges are those of the file.
			wantPieces(t, f.Pages(off, n), content, off, n, func(at int64) int64 {
				return (offset+at)/pageSize*pageSize + pageSize - offset
			})
		}
	}
}

// errorsOf are what a loop yields that has no pieces.
func errorsOf(t *testing.T, seq iter.Seq2[mmapio.Chunk, error]) (all []error) {
	t.Helper()
	for c, err := range seq {
		if err == nil || c.Data != nil || c.Off != 0 {
			t.Fatalf("yields %+v, %v", c, err)
		}
		all = append(all, err)
	}
	return all
}

// TestPiecesRefused checks that what cannot be cut yields one error, whether or
// not the loop goes on after it.
func TestPiecesRefused(t *testing.T) {
	path, _ := patternFile(t, 2*pageSize)
	f := mustOpen(t, path, nil)
	size := f.Size()
	one := func(what string, seq iter.Seq2[mmapio.Chunk, error]) error {
		t.Helper()
		all := errorsOf(t, seq)
		if len(all) != 1 {
			t.Fatalf("%s yields %d errors: %v", what, len(all), all)
		}
		for _, err := range seq {
			if err == nil {
				t.Errorf("%s is fine the second time", what)
			}
			break
		}
		return all[0]
	}
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, size + 1}, {size, 1}, {size + 1, 0}, {1 << 62, 1 << 62}, {1, 1<<63 - 1}} {
		want := mmapio.RangeError{Op: "chunks", Path: path, Off: r[0], Len: r[1], Size: size}
		wantRangeError(t, one("Chunks", f.Chunks(r[0], r[1], 10)), want)
		want.Op = "pages"
		wantRangeError(t, one("Pages", f.Pages(r[0], r[1])), want)
	}
	for _, step := range []int64{0, -1, -1 << 63} {
		wantRangeError(t, one("Chunks", f.Chunks(3, 4, step)), mmapio.RangeError{Op: "chunks", Path: path, Off: 3, Len: step, Size: size})
		if all := errorsOf(t, f.Chunks(0, 0, step)); len(all) != 1 {
			t.Errorf("pieces of %d bytes in nothing: %v", step, all)
		}
	}
	// What is asked for is looked at when the loop begins.
	chunks, pages := f.Chunks(0, size, 100), f.Pages(0, size)
	mustClose(t, f)
	wantPathError(t, one("Chunks", chunks), "chunks", path, fs.ErrClosed)
	wantPathError(t, one("Pages", pages), "pages", path, fs.ErrClosed)
	wantPathError(t, one("Chunks", f.Chunks(0, 0, -1)), "chunks", path, fs.ErrClosed)
}

// loops are all ways to go through a File in pieces of a page, until fn returns
// an error.
var loops = map[string]func(f *mmapio.File, fn func(c mmapio.Chunk) error) error{
	"Chunks": func(f *mmapio.File, fn func(mmapio.Chunk) error) error {
		return through(f.Chunks(0, f.Size(), pageSize), fn)
	},
	"Pages": func(f *mmapio.File, fn func(mmapio.Chunk) error) error { return through(f.Pages(0, f.Size()), fn) },
	"UpdateChunks": func(f *mmapio.File, fn func(mmapio.Chunk) error) error {
		return f.UpdateChunks(0, f.Size(), pageSize, fn)
	},
	"Section.Chunks": func(f *mmapio.File, fn func(mmapio.Chunk) error) error {
		s, err := f.Section(0, f.Size())
		if err != nil {
			return err
		}
		return through(s.Chunks(0, s.Size(), pageSize), fn)
	},
	"iter.Pull": func(f *mmapio.File, fn func(mmapio.Chunk) error) error {
		next, stop := iter.Pull2(f.Pages(0, f.Size()))
		defer stop()
		for {
			c, err, ok := next()
			if !ok || err != nil {
				return err
			}
			if err := fn(c); err != nil {
				return err
			}
		}
	},
}

func through(seq iter.Seq2[mmapio.Chunk, error], fn func(c mmapio.Chunk) error) error {
	for c, err := range seq {
		if err != nil {
			return err
		}
		if err := fn(c); err != nil {
			return err
		}
	}
	return nil
}

// TestLoopHolds closes and resizes in the body of every loop: the pieces stay
// what they were, a shrink is refused, and when the loop has ended, however it
// did, nothing is held any more.
func TestLoopHolds(t *testing.T) {
	needMaps(t)
	enough := errors.New("enough")
	for name, loop := range loops {
		for _, how := range []string{"to the end", "break", "panic"} {
			t.Run(fmt.Sprintf("%s/%s", name, how), func(t *testing.T) {
				path, content := patternFile(t, 4*pageSize)
				f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
				count := 0
				body := func(c mmapio.Chunk) error {
					count++
					if count == 2 {
						wantPathError(t, f.Resize(pageSize), "resize", path, mmapio.ErrBusy)
						if err := f.Resize(5 * pageSize); err != nil {
							t.Error(err)
						}
						// Even the part that the loop began with stays.
						wantPathError(t, f.Resize(pageSize), "resize", path, mmapio.ErrBusy)
					}
					same(t, "a piece", c.Data, content[c.Off:][:pageSize])
					if count == 3 && how == "break" {
						return enough
					}
					if count == 3 && how == "panic" {
						panic(enough)
					}
					return nil
				}
				var err error
				r := panicOf(func() { err = loop(f, body) })
				want := 4
				if how != "to the end" {
					want = 3
				}
				if count != want || (how == "break") != (err == enough) || (how == "panic") != (r == any(enough)) { //nolint:errorlint // the very same
					t.Errorf("%d pieces, error %v, panic %v", count, err, r)
				}
				if err := f.Resize(pageSize); err != nil {
					t.Errorf("after the loop: %v", err)
				}
				// Again, with Close inside.
				count = 0
				err = loop(f, func(c mmapio.Chunk) error {
					count++
					mustClose(t, f)
					same(t, "after Close", c.Data, content[:pageSize])
					return nil
				})
				if count != 1 || err != nil {
					t.Errorf("with Close inside: %d pieces, %v", count, err)
				}
			})
		}
	}
}

// TestLoopNests runs loops in loops, and other calls in them.
func TestLoopNests(t *testing.T) {
	path, content := patternFile(t, 3*pageSize)
	f := mustOpen(t, path, nil)
	pairs := 0
	for a, err := range f.Pages(0, f.Size()) {
		if err != nil {
			t.Fatal(err)
		}
		for b, err := range f.Chunks(a.Off, pageSize, pageSize/2) {
			if err != nil {
				t.Fatal(err)
			}
			p := make([]byte, len(b.Data))
			if _, err := f.ReadAt(p, b.Off); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(p, b.Data) || !bytes.Equal(a.Data, content[a.Off:][:pageSize]) {
				t.Fatal("other bytes")
			}
			pairs++
		}
	}
	if pairs != 6 {
		t.Errorf("%d times", pairs)
	}
}

// TestUpdateChunks stores through every piece.
func TestUpdateChunks(t *testing.T) {
	needMaps(t)
	path, content := patternFile(t, 3*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Offset: 5})
	off, n, step := int64(10), 2*pageSize, int64(1000)
	want := bytes.Clone(content)
	next := off
	err := f.UpdateChunks(off, n, step, func(c mmapio.Chunk) error {
		if c.Off != next || int64(len(c.Data)) != min(step, off+n-next) || cap(c.Data) != len(c.Data) {
			t.Errorf("piece at %d of %d bytes, want it at %d", c.Off, len(c.Data), next)
		}
		next += int64(len(c.Data))
		for i := range c.Data {
			c.Data[i] ^= 0x55
		}
		return nil
	})
	if err != nil || next != off+n {
		t.Errorf("ended at %d: %v", next, err)
	}
	for i := off + 5; i < off+5+n; i++ {
		want[i] ^= 0x55
	}
	same(t, "the file", onDisk(t, path), want)

	none := func(mmapio.Chunk) error { t.Error("called"); return nil }
	if err := f.UpdateChunks(7, 0, 10, none); err != nil {
		t.Error(err)
	}
	size := f.Size()
	wantRangeError(t, f.UpdateChunks(1, size, 10, none), mmapio.RangeError{Op: "updatechunks", Path: path, Off: 1, Len: size, Size: size})
	wantRangeError(t, f.UpdateChunks(1, 2, 0, none), mmapio.RangeError{Op: "updatechunks", Path: path, Off: 1, Size: size})
	ro := mustOpen(t, path, nil)
	wantPathError(t, ro.UpdateChunks(-1, 1, 0, none), "updatechunks", path, mmapio.ErrReadOnly)
	mustClose(t, f)
	mustClose(t, ro)
	wantPathError(t, f.UpdateChunks(-1, 1, 0, none), "updatechunks", path, fs.ErrClosed)
	wantPathError(t, ro.UpdateChunks(-1, 1, 0, none), "updatechunks", path, fs.ErrClosed)
}
