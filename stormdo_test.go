package mmapio_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/mmapio/mmapio"
)

// What each kind of user does in a storm, once.

func (s *storm) read(which *atomic.Pointer[stormFile]) func(r *rand.Rand) {
	return func(r *rand.Rand) {
		f := which.Load()
		page, off := s.page(r, f)
		at := 8 * r.Int64N(pageSize/8)
		buf := make([]byte, 8*(1+r.Int64N((pageSize-at)/8)))
		wrong, err := s.pages.under(page, at, func() ([]byte, error) {
			n, err := f.ReadAt(buf, off+at)
			return buf[:n], err
		})
		s.result("read", wrong, err)
	}
}

func (s *storm) write(r *rand.Rand) {
	f := s.now.Load()
	page, off := s.page(r, f)
	s.result("write", nil, s.pages.store(page, make([]byte, pageSize), func(b []byte) error {
		n, err := f.WriteAt(b, off)
		if err == nil && n != len(b) {
			s.wrong("write", errors.New("fewer bytes, and no error"))
		}
		return err
	}))
}

func (s *storm) update(r *rand.Rand) {
	f := s.now.Load()
	page, off := s.page(r, f)
	s.result("update", nil, s.pages.store(page, make([]byte, pageSize), func(b []byte) error {
		return f.Update(off, pageSize, func(m []byte) error { copy(m, b); return nil })
	}))
}

func (s *storm) view(r *rand.Rand) {
	f := s.now.Load()
	page, off := s.page(r, f)
	n := 1 + r.Int64N(min(4, stormMost-page))
	err := f.View(off, n*pageSize, func(b []byte) error {
		for i := range n {
			s.wrong("view", s.held(f, page+i, b[i*pageSize:(i+1)*pageSize]))
		}
		switch r.IntN(20) {
		case 0:
			return f.View(off, 8, func([]byte) error { return nil })
		case 1:
			s.resize(r) // grows, or is ErrBusy
		case 2:
			s.refresh(&s.now)(r)
		case 3:
			_, err := f.ReadAt(make([]byte, 8), off)
			return err
		}
		return nil
	})
	s.result("view", nil, err)
	if r.IntN(4) == 0 {
		time.Sleep(200 * time.Microsecond) // or nobody would ever shrink anything
	}
}

// held checks a page of memory that is held. When a File without a file has
// been closed, nobody else shares that memory any more.
func (s *storm) held(f *stormFile, page int64, b []byte) error {
	p := &s.pages.pages[page]
	p.mu.RLock()
	defer p.mu.RUnlock()
	if s.path == "" && s.now.Load() != f {
		return nil
	}
	// A copy, whose words are whole: a build with the race detector loads each byte by
	// itself, and the page may be cut off in between.
	return s.pages.check(bytes.Clone(b), page, 0)
}

func (s *storm) region(r *rand.Rand) {
	f := s.now.Load()
	page, off := s.page(r, f)
	n := 1 + r.Int64N(min(8, stormMost-page))
	reg, err := f.Region(off, n*pageSize)
	if err != nil {
		s.result("region", nil, err)
		return
	}
	// The File may be closed, grown, or another by now: the bytes are still
	// the file's.
	for range r.IntN(8) {
		i := r.Int64N(n)
		m := reg.Bytes()[i*pageSize : (i+1)*pageSize]
		if r.IntN(3) == 0 && s.path != "" {
			err = s.pages.store(page+i, make([]byte, pageSize), func(b []byte) error {
				return mmapio.Guard(func() error { copy(m, b); return nil })
			})
		} else {
			err = mmapio.Guard(func() error {
				s.wrong("region", s.held(f, page+i, m))
				return nil
			})
		}
		s.result("region", nil, err)
		if r.IntN(4) == 0 {
			time.Sleep(time.Duration(r.IntN(500)) * time.Microsecond)
		}
	}
	reg.Release()
	time.Sleep(time.Duration(r.IntN(500)) * time.Microsecond)
}

func (s *storm) load(r *rand.Rand) {
	f := s.now.Load()
	page, off := s.page(r, f)
	i := r.Int64N(pageSize / 8)
	if r.IntN(2) == 0 {
		p := &s.pages.pages[page]
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.seq > 0 { // the word that is, or was, there
			s.result("store", nil, mmapio.StoreAt(f.File, off+8*i, s.pages.word(page, p.seq, uint64(i))))
			if p.clean != stormNever && p.clean != p.cuts.Load() {
				p.clean = stormNever
			}
		}
		return
	}
	wrong, err := s.pages.under(page, 8*i, func() ([]byte, error) {
		v, err := mmapio.LoadAt[[8]byte](f.File, off+8*i)
		if err != nil {
			return nil, err
		}
		return v[:], nil
	})
	s.result("load", wrong, err)
}

// count adds to a counter that all mappings of the file share.
func (s *storm) count(r *rand.Rand) {
	f := s.now.Load()
	if f.first > 0 {
		time.Sleep(time.Millisecond)
		return
	}
	v, err := mmapio.ValueAt[atomic.Uint64](f.File, 0)
	if err != nil {
		s.result("count", nil, err)
		return
	}
	for range 1 + r.IntN(50) {
		v.Ptr().Add(1)
		s.added.Add(1)
	}
	v.Release()
	time.Sleep(50 * time.Microsecond)
}

func (s *storm) chunks(r *rand.Rand) {
	f := s.now.Load()
	page, off := s.page(r, f)
	n := 1 + r.Int64N(min(8, stormMost-page))
	err := mmapio.Guard(func() error {
		for c, err := range f.Chunks(off, n*pageSize, pageSize) {
			if err != nil {
				return err
			}
			s.wrong("chunks", s.held(f, f.first+c.Off/pageSize, c.Data))
			if r.IntN(6) == 0 {
				break
			}
		}
		return nil
	})
	s.result("chunks", nil, err)
	time.Sleep(50 * time.Microsecond)
}

func (s *storm) lock(r *rand.Rand) {
	f := s.now.Load()
	_, off := s.page(r, f)
	n := r.Int64N(5 * pageSize)
	var err error
	switch r.IntN(8) {
	case 0, 1:
		err = f.Lock(off, n)
	case 2, 3:
		err = f.Unlock(off, n)
	case 4:
		err = f.LockAll()
	case 5:
		err = f.UnlockAll()
	case 6:
		if err := f.VerifyLocked(off, n); runtime.GOOS == "linux" || !errors.Is(err, errors.ErrUnsupported) {
			s.result("verify", nil, err)
		}
		for _, l := range f.LockedRanges() {
			if l.Off < 0 || l.Len <= 0 || l.Off+l.Len > stormMost*pageSize {
				s.wrong("lock", errors.New("a locked range that cannot be"))
			}
		}
	case 7:
		pin, pinErr := f.Pin(off, n)
		err = pinErr
		if pinErr == nil {
			ctx, cancel := context.WithCancel(context.Background())
			go cancel()
			err = f.LockContext(ctx, off, n, nil)
			s.result("pin", nil, pin.Release())
		}
	}
	s.result("lock", nil, err)
}

func (s *storm) resize(r *rand.Rand) {
	f := s.now.Load()
	size := cutAt(r)
	end := s.pages.beginCut(size)
	err := f.Resize(size - f.first*pageSize)
	end()
	s.result("resize", nil, err)
	time.Sleep(time.Duration(r.IntN(300)) * time.Microsecond)
}

func (s *storm) refresh(which *atomic.Pointer[stormFile]) func(*rand.Rand) {
	return func(r *rand.Rand) {
		if s.path == "" {
			return
		}
		_, err := which.Load().Refresh()
		s.result("refresh", nil, err)
		time.Sleep(time.Duration(r.IntN(300)) * time.Microsecond)
	}
}

// cut is another process, which knows of no rules.
func (s *storm) cut(r *rand.Rand) {
	size := cutAt(r)
	end := s.pages.beginCut(size)
	err := os.Truncate(s.path, size)
	end()
	if err != nil {
		s.wrong("cut", err)
	}
	time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
}

func (s *storm) close(r *rand.Rand) {
	time.Sleep(time.Duration(5+r.IntN(20)) * time.Millisecond)
	f := s.now.Load()
	if s.path == "" {
		// With the memory all that is in it goes.
		end := s.pages.beginCut(0)
		defer end()
		s.result("close", nil, f.Close())
		s.reopen(r)
		return
	}
	if r.IntN(2) == 0 {
		s.reopen(r)
	}
	if err := f.Close(); err != nil {
		s.wrong("close", err)
	}
	if s.now.Load() == f {
		s.reopen(r)
	}
}

// decoy maps another file again and again, with pages of the same numbers, to
// land where the first one was.
func (s *storm) decoy() func(r *rand.Rand) {
	other := newStormPages(0xDEC0, stormMost)
	path := filepath.Join(tempDir(s.t), "decoy")
	content := make([]byte, stormMost*pageSize)
	for page := range int64(stormMost) {
		other.pages[page].seq, other.pages[page].clean = 1, 0
		other.fill(content[page*pageSize:(page+1)*pageSize], page, 1)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return func(r *rand.Rand) {
		n := (1 + r.Int64N(stormMost-1)) * pageSize
		f, err := mmapio.OpenFile(path, &mmapio.Options{Length: n, Populate: r.IntN(2) == 0})
		if err != nil {
			s.wrong("decoy", err)
			return
		}
		for c, err := range f.Pages(0, n) {
			s.wrong("decoy", err)
			if err == nil {
				s.wrong("decoy", other.check(c.Data, c.Off/pageSize, 0))
			}
		}
		s.wrong("decoy", f.Close())
	}
}
