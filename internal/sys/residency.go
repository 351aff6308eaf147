package sys

import (
	"errors"
	"io/fs"
	"os"
)

// Counts says what of a range is in RAM, in pages; Unknown where the kernel
// does not tell.
type Counts struct {
	Resident  int64 // in RAM; also what is on its way in, where cachestat tells
	Dirty     int64 // of these, changed and not yet being written
	Writeback int64 // being written
}

// Unknown is neither none nor all.
const Unknown = -1

// NotKnown are the Counts of what the kernel does not tell anything about.
var NotKnown = Counts{Unknown, Unknown, Unknown}

// Resident counts the pages of a range of f that are in the page cache. The
// counts are Unknown where the kernel does not tell the truth: to a caller who
// neither owns the file nor may write it, and on file systems that keep pages
// elsewhere (hugetlbfs, DAX). ErrUnsupported where there is no way to ask.
//
// cachestat(2) of Linux 6.5, where that counts the pages of this file, which it
// does not on overlayfs; else mincore(2).
func Resident(f *os.File, off, n int64) (Counts, error) {
	counts, how, err := ask(f, off, n)
	if err != nil || how != byMincore {
		return counts, err
	}
	counts = Counts{0, Unknown, Unknown}
	err = incoreFile(f, off, n, func(lo, hi int64) { counts.Resident += (hi - lo) / int64(pageSize()) })
	return counts, err
}

// ResidentRuns calls run for each run of pages of a range of f that are in the
// page cache, in order. Offsets are f's and multiples of PageSize; runs may
// touch each other. known is false, and run is not called, where Resident says
// Unknown.
//
// To cachestat(2) large ranges are given first, and only those in two halves
// that it finds to be there in part.
func ResidentRuns(f *os.File, off, n int64, run func(lo, hi int64)) (known bool, err error) {
	counts, how, err := ask(f, off, n)
	switch {
	case err != nil || how == byNothing:
		return false, err
	case how == byMincore:
		return true, incoreFile(f, off, n, run)
	}
	ps := int64(pageSize())
	count := func(lo, hi int64) (int64, error) {
		c, err := Cached(f, lo*ps, (hi-lo)*ps)
		return c.Resident, err
	}
	return true, bisect(off/ps, (off+n+ps-1)/ps, counts.Resident, count, func(lo, hi int64) { run(lo*ps, hi*ps) })
}

// A way to find out what is in RAM.
type way int

const (
	byNothing way = iota // the kernel does not tell
	byCachestat
	byMincore
)

// ask counts by cachestat, or says what way there is instead.
func ask(f *os.File, off, n int64) (Counts, way, error) {
	if n == 0 {
		return Counts{}, byCachestat, nil // to the kernel 0 means up to the end
	}
	counts, err := Cached(f, off, n)
	switch {
	case err == nil && counts.Resident > 0:
		return counts, byCachestat, nil
	case errors.Is(err, fs.ErrPermission):
		return NotKnown, byNothing, nil // mincore would call every page resident
	case err != nil && !errors.Is(err, ErrUnsupported):
		return NotKnown, byNothing, err
	}
	switch where := keeps(f); {
	case where == nowhere:
		return NotKnown, byNothing, nil
	case where == inCache && err == nil:
		return counts, byCachestat, nil
	}
	switch tells, err := incoreTells(f); {
	case err != nil:
		return NotKnown, byNothing, err
	case !tells:
		return NotKnown, byNothing, nil
	}
	return NotKnown, byMincore, nil
}

// A place where a file system keeps the pages of a file.
type place int

const (
	inCache   place = iota // in the page cache, below the file's own inode
	elsewhere              // below another inode, which a mapping leads to
	nowhere                // not in the page cache
)

// PageCached reports whether the pages of f are in the page cache, when they are
// in RAM, and not kept in another way (hugetlbfs, DAX).
func PageCached(f *os.File) bool { return keeps(f) != nowhere }

// Owns reports whether the process owns the file, or may do what its owner may.
func Owns(info fs.FileInfo) bool { return owns(info) }

// A FileID tells a file from all others that there are at a time.
type FileID struct{ dev, ino uint64 }

// FileIDOf is false where the system has no such thing, or pages that are locked
// stay whatever happens to their file.
func FileIDOf(info fs.FileInfo) (id FileID, ok bool) { return fileIDOf(info) }

// CanIncore reports whether the system has a call that tells which pages of a
// mapping of a file are in RAM, mapped in or not.
func CanIncore() bool { return tellsIncore() }

// Tests set it to what other systems have.
var tellsIncore = canIncore

// Cached counts by cachestat(2), which says 0 on some file systems whatever is
// in RAM. fs.ErrPermission for a caller who may not know, ErrUnsupported where
// there is no such call.
func Cached(f *os.File, off, n int64) (Counts, error) { return cached(f, off, n) }

// StoredRuns calls run for each run of pages of a range of a file, of which reads
// are ReadsMemory, that are in memory or in swap and no hole. Offsets are as with
// ResidentRuns.
//
// cachestat(2) of Linux 6.5, which counts the pages in swap as evicted.
func StoredRuns(f *os.File, off, n int64, run func(lo, hi int64)) error {
	ps := int64(pageSize())
	count := func(lo, hi int64) (int64, error) { return stored(f, lo*ps, (hi-lo)*ps) }
	lo, hi := off/ps, (off+n+ps-1)/ps
	have, err := count(lo, hi)
	if err != nil {
		return err
	}
	return bisect(lo, hi, have, count, func(lo, hi int64) { run(lo*ps, hi*ps) })
}

// bisect finds the runs of what is there in [lo, hi), of which have are there.
func bisect(lo, hi, have int64, count func(lo, hi int64) (int64, error), run func(lo, hi int64)) error {
	switch {
	case have <= 0 || lo >= hi:
		return nil
	case have >= hi-lo:
		run(lo, hi)
		return nil
	}
	// Pages come and go in aligned groups of a power of two, so the cut is at
	// the roundest number.
	mid := hi - 1
	for cut := mid & (mid - 1); cut > lo; cut &= cut - 1 {
		mid = cut
	}
	left, err := count(lo, mid)
	if err == nil {
		err = bisect(lo, mid, left, count, run)
	}
	if err != nil {
		return err
	}
	// The rest is only likely to be in the other half: pages of this one may have
	// come or gone since they were counted together. So it is not named before it
	// has been counted.
	right := have - left
	if right < 0 || right >= hi-mid {
		if right, err = count(mid, hi); err != nil {
			return err
		}
	}
	return bisect(mid, hi, right, count, run)
}

// incoreTells reports whether mincore(2) tells the caller the truth about f. It
// asks about a page beyond the end, which cannot be resident: Linux since 5.2
// calls every page so to who neither owns the file nor may write it.
func incoreTells(f *os.File) (bool, error) {
	if !CanIncore() {
		return false, ErrUnsupported
	}
	info, err := f.Stat()
	if err != nil {
		return false, bare(err)
	}
	// Not the very next pages: they may be part of a large one.
	huge := int64(HugePage())
	s, err := mapFile(f, (info.Size()+huge-1)/huge*huge+huge, pageSize(), Read)
	if err != nil {
		return false, nil //nolint:nilerr // no room for a page there: not known
	}
	defer s.Free() //nolint:errcheck // a mapping of our own
	told := true
	err = s.Incore(0, pageSize(), func(int, int) { told = false })
	return told, err
}

// incoreWindow is how much of a file is mapped at a time to be asked about.
const incoreWindow = 256 << 20

// incoreFile calls run for the resident runs of a range of f, by mincore(2).
func incoreFile(f *os.File, off, n int64, run func(lo, hi int64)) error {
	ps := int64(pageSize())
	end := (off + n + ps - 1) &^ (ps - 1)
	for lo := off &^ (ps - 1); lo < end; {
		hi := min(end, lo+incoreWindow)
		s, err := mapFile(f, lo, int(hi-lo), Read)
		if err != nil {
			return err
		}
		err = s.Incore(0, int(hi-lo), func(from, to int) { run(lo+int64(from), lo+int64(to)) })
		s.Free() //nolint:errcheck // a mapping of our own
		if err != nil {
			return err
		}
		lo = hi
	}
	return nil
}

// Incore calls run for each run of resident pages of a part of the Space, in
// order, as distances from its start; runs may touch each other. It believes
// what the kernel says, see incoreTells. ErrUnsupported where CanIncore is false.
//
// mincore(2).
func (s *Space) Incore(at, n int, run func(lo, hi int)) error {
	if !CanIncore() {
		return ErrUnsupported
	}
	return s.incore(at, n, run)
}

// Present calls run for each run of pages of a part of the Space that are
// mapped in and are not the shared page of zeroes. ErrUnsupported where the
// kernel does not tell.
//
// Linux 6.7: PAGEMAP_SCAN.
func (s *Space) Present(at, n int, run func(lo, hi int)) error { return s.present(at, n, run) }

// CountPresent returns how many bytes of whole pages of a part of the Space are mapped
// in. ErrUnsupported where the kernel does not tell.
//
// Linux: PAGEMAP_SCAN of 6.7, before that /proc/self/pagemap, which counts the shared
// page of zeroes as well.
func (s *Space) CountPresent(at, n int) (int, error) { return s.countPresent(at, n) }

// FirstPresent returns the first page of a part of the Space that is mapped in, or
// -1. ErrUnsupported where the kernel does not tell.
//
// Linux 6.7: PAGEMAP_SCAN.
func (s *Space) FirstPresent(at, n int) (int, error) { return s.firstPresent(at, n) }

// Copies calls run for each run of pages that are copies of this mapping alone;
// present is false for those that are in swap. ErrUnsupported where the kernel
// does not tell.
func (s *Space) Copies(at, n int, run func(lo, hi int, present bool)) error {
	return s.copies(at, n, run)
}

// HugePages returns how many of the pages of a part of the Space are mapped by
// huge pages. ErrUnsupported where the kernel does not tell.
func (s *Space) HugePages(at, n int) (int, error) { return s.hugePages(at, n) }
