package mmapio

import (
	"io"
	"iter"

	"github.com/mmapio/mmapio/internal/page"
)

// A Section is a bookmark: a range of a File with the File's methods, whose
// offsets count from its start. It holds nothing. Each use checks anew that
// the range lies inside of the File, and is a [RangeError] if it no longer
// does.
type Section struct {
	f      *File
	off, n int64
}

// Section marks [off, off+n).
func (f *File) Section(off, n int64) (*Section, error) {
	const op = "section"
	g, err := f.now(op, 0)
	if err == nil {
		err = f.within(op, g, off, n)
	}
	if err != nil {
		return nil, err
	}
	return &Section{f, off, n}, nil
}

// Offset returns where the section starts in the File.
func (s *Section) Offset() int64 { return s.off }

// Size returns the section's length in bytes.
func (s *Section) Size() int64 { return s.n }

// Valid reports whether the section lies inside of the File now.
func (s *Section) Valid() bool { return s.f.cur.Load() != closedGeneration && s.inFile() }

func (s *Section) inFile() bool { return page.InBounds(s.off, s.n, s.f.Size()) }

// at turns a range of the section into one of the File, which looks again by
// itself: the size is the one of now.
func (s *Section) at(op string, off, n int64) (int64, error) {
	g, err := s.f.now(op, 0)
	if err != nil {
		return 0, err
	}
	if err := s.f.within(op, g, s.off, s.n); err != nil {
		return 0, err
	}
	if !page.InBounds(off, n, s.n) {
		return 0, &RangeError{Op: op, Path: s.f.src.name, Off: off, Len: n, Size: s.n}
	}
	return s.off + off, nil
}

// ReadAt is [File.ReadAt] with io.EOF at the end of the section.
func (s *Section) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		_, err := s.at("readat", off, int64(len(p)))
		return 0, err
	}
	n := min(int64(len(p)), max(s.n-off, 0))
	at, err := s.at("readat", min(off, s.n), n)
	if err != nil {
		return 0, err
	}
	if off >= s.n {
		return 0, io.EOF
	}
	got, err := s.f.ReadAt(p[:n], at)
	switch {
	case err == nil && n < int64(len(p)):
		err = io.EOF
	case err == io.EOF: //nolint:errorlint // as io.ReaderAt says
		// The File's end, not the section's: it was made smaller meanwhile.
		if _, out := s.at("readat", off, n); out != nil {
			err = out
		}
	}
	return got, err
}

// WriteAt is [File.WriteAt], which never writes beyond the section.
func (s *Section) WriteAt(p []byte, off int64) (int, error) {
	at, err := s.check("writeat", off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	return s.f.WriteAt(p, at)
}

// check is at for what stores: the mode is looked at before the bounds.
func (s *Section) check(op string, off, n int64) (int64, error) {
	if _, err := s.f.now(op, 0); err != nil {
		return 0, err
	}
	if err := s.f.writable(op); err != nil {
		return 0, err
	}
	return s.at(op, off, n)
}

// View is [File.View].
func (s *Section) View(off, n int64, fn func(b []byte) error) error {
	at, err := s.at("view", off, n)
	if err != nil {
		return err
	}
	return s.f.View(at, n, fn)
}

// Update is [File.Update].
func (s *Section) Update(off, n int64, fn func(b []byte) error) error {
	at, err := s.check("update", off, n)
	if err != nil {
		return err
	}
	return s.f.Update(at, n, fn)
}

// Chunks is [File.Chunks]; the offsets of the pieces count from the section's
// start.
func (s *Section) Chunks(off, n, size int64) iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		at, err := s.at("chunks", off, n)
		if err != nil {
			yield(Chunk{}, err)
			return
		}
		for c, err := range s.f.Chunks(at, n, size) {
			if err == nil {
				c.Off -= s.off
			}
			if !yield(c, err) {
				return
			}
		}
	}
}

// Lock is [File.Lock].
func (s *Section) Lock(off, n int64) error { return s.lock("lock", off, n, s.f.Lock) }

// Unlock is [File.Unlock].
func (s *Section) Unlock(off, n int64) error { return s.lock("unlock", off, n, s.f.Unlock) }

func (s *Section) lock(op string, off, n int64, do func(off, n int64) error) error {
	if n == 0 {
		return do(0, 0)
	}
	at, err := s.at(op, off, n)
	if err != nil {
		return err
	}
	return do(at, n)
}

// Sync is [File.SyncRange] of the section.
func (s *Section) Sync() error {
	at, err := s.at("sync", 0, s.n)
	if err != nil {
		return err
	}
	return s.f.syncRange("sync", at, s.n)
}
