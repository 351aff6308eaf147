package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// What follows reads /proc/self/pagemap, a number of 64 bits for each page, as
// Linux before 6.7 needs, which has no PAGEMAP_SCAN. It cannot tell the page of
// zeroes from others.

const (
	entryPresent = 1 << 63
	entrySwapped = 1 << 62
	entryFile    = 1 << 61 // or memory that is shared
)

// entries calls each for the pages of a range in order, until it returns false.
func (s *Space) entries(fd, at, n int, each func(at int, entry uint64) bool) error {
	ps := unix.Getpagesize() // the kernel's, whatever this build believes
	buf := make([]uint64, min(n/ps, 8192))
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&buf[0])), len(buf)*8)
	for end := at + n; at < end; {
		want := raw[:min(len(raw), (end-at)/ps*8)]
		got, err := unix.Pread(fd, want, int64((s.addr+uintptr(at))/uintptr(ps)*8))
		if err == unix.EINTR { //nolint:errorlint // bare errno
			continue
		}
		if err != nil {
			return err
		}
		if got < 8 {
			return ErrUnsupported
		}
		for _, entry := range buf[:got/8] {
			if !each(at, entry) {
				return nil
			}
			at += ps
		}
	}
	return nil
}

func (s *Space) absentByPagemap(fd, at, n int) (int, error) {
	absent := -1
	err := s.entries(fd, at, n, func(at int, entry uint64) bool {
		if entry&entryPresent == 0 {
			absent = at
		}
		return absent < 0
	})
	if err != nil {
		return 0, err
	}
	return absent, nil
}

// copyRuns calls run for the runs of pages that are not the file's, and are in
// memory or in swap, until it returns false. Pages that were only read, of which
// there is no copy yet, count too where they are memory with no file behind it.
func (s *Space) copyRuns(at, n int, run func(lo, hi int, present bool) bool) error {
	fd, err := procPagemap()
	if err != nil {
		return err
	}
	from, state := -1, uint64(0)
	more := true
	err = s.entries(fd, at, n, func(at int, entry uint64) bool {
		now := entry & (entryPresent | entrySwapped)
		if entry&entryFile != 0 {
			now = 0
		}
		if now != state {
			if state != 0 {
				more = run(from, at, state&entryPresent != 0)
			}
			from, state = at, now
		}
		return more
	})
	if err == nil && more && state != 0 {
		run(from, at+n, state&entryPresent != 0)
	}
	return err
}

// tellsCopies tries the pagemap with pages of which every other one is there: an
// emulator may pass it on in another order of bytes, and so be right about a few
// by chance.
var tellsCopies = onceKnown(func() (bool, error) {
	const tries = 32
	ps := pageSize()
	p, err := mapAnon(2 * tries * ps)
	if err != nil {
		return false, passing(err)
	}
	defer p.Free()                   //nolint:errcheck // pages of our own
	p.advise(0, p.size, NoHugePages) //nolint:errcheck // unheard of where there are none
	for at := 0; at < p.size; at += 2 * ps {
		clear(p.bytes(at, ps))
	}
	right := 0
	err = p.copyRuns(0, p.size, func(lo, hi int, present bool) bool {
		if present && lo == 2*right*ps && hi == lo+ps {
			right++
		}
		return true
	})
	return err == nil && right == tries, passing(err)
})

func (s *Space) copiesByPagemap(at, n int, run func(lo, hi int, present bool)) error {
	if tells, err := tellsCopies(); err != nil || !tells {
		return ErrUnsupported // if only for now: callers have other ways
	}
	return s.copyRuns(at, n, func(lo, hi int, present bool) bool {
		run(lo, hi, present)
		return true
	})
}

func (s *Space) privateByPagemap(at, n int) (lo, hi int, err error) {
	if tells, err := tellsCopies(); err != nil || !tells {
		return 0, 0, ErrUnsupported // as above
	}
	lo, hi = -1, -1
	err = s.copyRuns(at, n, func(l, h int, _ bool) bool {
		lo, hi = l, h
		return false
	})
	return lo, hi, err
}
