package mmapio

import (
	"errors"

	"github.com/mmapio/mmapio/internal/sys"
)

// A Residency says what of a range is in RAM, in pages. -1 stands for what is
// not known; it is neither none nor all.
type Residency struct {
	PageSize int // in bytes

	// Pages is how many pages the range touches.
	Pages int64
	// Resident is how many of them are in RAM. Where cachestat(2) was asked
	// these are also pages that are just being read.
	Resident int64
	// Dirty is how many have been changed and wait to be written to the file.
	// A file system that keeps its files in memory never has any.
	Dirty int64
	// Writeback is how many are being written to the file.
	Writeback int64
	// Huge is how many are mapped, for this File, as a part of a huge page: what
	// came of Options.HugePages and AdviceHugePage. Linux 6.7.
	Huge int64
}

// Known reports whether Resident is known.
func (r Residency) Known() bool { return r.Resident >= 0 }

// Residency counts what of [off, off+n) is in RAM at the moment. It brings
// nothing in and changes nothing, and takes time for what is there, not for
// the length of the range, where the kernel has cachestat(2).
//
// For a file the pages are those of the page cache, whoever brought them in.
// For a CopyOnWrite File they are its own copies, and the file's pages where
// there is none; a copy is never dirty. For Anonymous memory they are those
// that were stored to and are not in swap (before Linux 6.7 perhaps also those that
// were only read).
//
// Not known, which is no error, is what the kernel does not tell, or not
// truly: of another user's file that the caller may not write, and of files on
// hugetlbfs or DAX. Dirty and Writeback are not known where there is no
// cachestat or it sees nothing (overlayfs, DropFD), and of a CopyOnWrite File where
// the process may not open its /proc/self/pagemap, as after setuid(2); nor is Huge.
//
// cachestat(2) of Linux 6.5, mincore(2) on Linux, NetBSD, DragonFly and, where the
// sysctl vm.mincore_mapped is 0, FreeBSD; for private memory PAGEMAP_SCAN of Linux
// 6.7. Elsewhere it is errors.ErrUnsupported.
func (f *File) Residency(off, n int64) (r Residency, err error) {
	const op = "residency"
	err = f.mapped(op, func(g *generation) error {
		if err := f.within(op, g, off, n); err != nil {
			return err
		}
		r = Residency{PageSize: sys.PageSize()}
		if n == 0 {
			return nil
		}
		first, last := g.pages(off, n)
		r.Pages = int64((last - first) / r.PageSize)
		var s survey
		if err := f.survey(&s, g, int64(first), int64(last)); err != nil {
			return f.fail(op, err)
		}
		r.Resident, r.Dirty, r.Writeback = s.counts.Resident, s.counts.Dirty, s.counts.Writeback
		huge, err := g.mem.space.HugePages(g.mem.base+first, last-first)
		if r.Huge = int64(huge); err != nil {
			r.Huge = sys.Unknown
		}
		return nil
	})
	if err != nil {
		return Residency{}, err
	}
	return r, nil
}

// ResidentRanges returns what of [off, off+n) is in RAM at the moment: whole
// pages, but nothing outside of the range, in order and apart from each other.
// What counts is said at Residency; where that does not know, the error is
// errors.ErrUnsupported.
func (f *File) ResidentRanges(off, n int64) (ranges []Range, err error) {
	const op = "residentranges"
	err = f.mapped(op, func(g *generation) error {
		if err := f.within(op, g, off, n); err != nil || n == 0 {
			return err
		}
		s := survey{run: func(lo, hi int64) {
			lo = max(lo-int64(g.mem.delta), off)
			hi = min(hi-int64(g.mem.delta), off+n)
			if k := len(ranges) - 1; k >= 0 && ranges[k].Off+ranges[k].Len == lo {
				ranges[k].Len = hi - ranges[k].Off
			} else {
				ranges = append(ranges, Range{lo, hi - lo})
			}
		}}
		first, last := g.pages(off, n)
		err := f.survey(&s, g, int64(first), int64(last))
		if err == nil && s.counts.Resident == sys.Unknown {
			err = errNotTold
		}
		if err != nil {
			return f.fail(op, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ranges, nil
}

var errNotTold error = &sentinel{"the kernel does not tell what is in RAM of this file", errors.ErrUnsupported}

// A survey counts what is in RAM and, if run is set, calls it for each run of
// that, in order. Runs may touch each other.
type survey struct {
	counts sys.Counts
	run    func(lo, hi int64)
}

func (s *survey) add(c sys.Counts) {
	sum := func(to *int64, n int64) {
		if *to += n; n == sys.Unknown || *to < n {
			*to = sys.Unknown
		}
	}
	sum(&s.counts.Resident, c.Resident)
	sum(&s.counts.Dirty, c.Dirty)
	sum(&s.counts.Writeback, c.Writeback)
}

// found adds a run of resident pages of which no more is known, or need be.
func (s *survey) found(lo, hi int64) {
	s.add(sys.Counts{Resident: (hi - lo) / int64(sys.PageSize())})
	if s.run != nil {
		s.run(lo, hi)
	}
}

// survey looks at the pages of [first, last), distances from base.
func (f *File) survey(s *survey, g *generation, first, last int64) error {
	m := g.mem
	switch {
	case f.anonymous():
		found := func(lo, hi int) { s.found(int64(lo-m.base), int64(hi-m.base)) }
		err := m.space.Present(m.base+int(first), int(last-first), found)
		if errors.Is(err, errors.ErrUnsupported) {
			err = m.space.Copies(m.base+int(first), int(last-first), func(lo, hi int, present bool) {
				if present {
					found(lo, hi)
				}
			})
		}
		if errors.Is(err, errors.ErrUnsupported) {
			err = m.space.Incore(m.base+int(first), int(last-first), found)
		}
		return err
	case f.src.file == nil:
		return f.surveyMapping(s, g, first, last)
	case f.src.mode != CopyOnWrite:
		return f.surveyFile(s, g, first, last)
	}
	at, bad := first, error(nil)
	err := m.space.Copies(m.base+int(first), int(last-first), func(lo, hi int, present bool) {
		if bad == nil {
			bad = f.surveyFile(s, g, at, int64(lo-m.base))
		}
		if at = int64(hi - m.base); present {
			s.found(int64(lo-m.base), at)
		}
	})
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return f.surveyMapping(s, g, first, last)
	case err != nil:
		return err
	case bad != nil:
		return bad
	}
	return f.surveyFile(s, g, at, last)
}

// surveyFile asks about the file.
func (f *File) surveyFile(s *survey, g *generation, first, last int64) error {
	start := f.src.off - int64(g.mem.delta)
	if s.run == nil {
		counts, err := sys.Resident(f.src.file, start+first, last-first)
		if err == nil {
			s.add(counts)
		}
		return err
	}
	known, err := sys.ResidentRuns(f.src.file, start+first, last-first, func(lo, hi int64) {
		s.found(lo-start, hi-start)
	})
	if err == nil && !known {
		s.add(sys.NotKnown)
	}
	return err
}

// surveyMapping asks about the mapping, where there is no descriptor to ask by.
func (f *File) surveyMapping(s *survey, g *generation, first, last int64) error {
	m := g.mem
	if !sys.CanIncore() {
		return errors.ErrUnsupported
	}
	s.add(sys.Counts{Dirty: sys.Unknown, Writeback: sys.Unknown})
	before := s.counts.Resident
	err := m.space.Incore(m.base+int(first), int(last-first), func(lo, hi int) {
		s.found(int64(lo-m.base), int64(hi-m.base))
	})
	// To who may not know, the kernel calls all resident. So it is believed if
	// it does not say so, to the owner, and when all is mapped in.
	pages := (last - first) / int64(sys.PageSize())
	switch {
	case err != nil:
		return err
	case f.src.uncached:
		s.add(sys.NotKnown)
	case s.counts.Resident-before == pages && !sys.Owns(f.src.info):
		mapped := int64(0)
		err := m.space.Present(m.base+int(first), int(last-first), func(lo, hi int) { mapped += int64(hi - lo) })
		if err != nil || mapped < last-first {
			s.add(sys.NotKnown)
		}
	}
	return nil
}
