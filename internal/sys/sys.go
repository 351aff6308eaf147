// Package sys is the one door to the kernel.
//
// This file is the contract; it has no build tag. Each function forwards to
// one body per mechanism: files named after a mechanism (_mlock2, _pagemap)
// or a system hold the bodies, _other.go returns [errors.ErrUnsupported].
// To add a platform, give it the bodies that the compiler misses.
//
// Nothing here knows of Files, locks or bounds: callers pass ranges that are
// right. Errors are bare errnos, the caller adds names. Lengths are in bytes.
package sys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Access says what a mapping of a file allows, and who sees its stores.
type Access uint8

const (
	Read    Access = iota // loads only; shared with the file
	Write                 // loads and stores; shared with the file
	Private               // loads and stores; stores stay in this mapping
)

// Errors that the kernel gives under several names.
var (
	ErrUnsupported = errors.ErrUnsupported

	// ErrUnmappable is what MapFile returns for a file of a file system that maps
	// none, or not so.
	ErrUnmappable = fmt.Errorf("%w: its file system maps no files (as those in /proc and /sys), or only CopyOnWrite (FUSE with direct I/O)", ErrUnsupported)

	// ErrUnreadable is what Populate returns for a page that cannot be
	// brought in: it lies beyond the end of the file, or reading it failed.
	ErrUnreadable error = errUnreadable
	// ErrPoisoned is what Populate returns for memory that is broken.
	ErrPoisoned error = errPoisoned
	// ErrNoSpace is the errno of a full disk.
	ErrNoSpace error = errNoSpace
	// ErrIO is the errno of a failed device.
	ErrIO error = errIO
	// ErrNoMemory stands for many things: a limit on locked memory, too many
	// mappings, a hole in the range, no memory.
	ErrNoMemory error = errNoMemory
	// ErrInUse is what Windows says when a file is to be cut that somebody has
	// mapped. No call returns it elsewhere.
	ErrInUse error = errInUse
	// ErrAgain is what some systems say for a limit on locked memory.
	ErrAgain error = errAgain
)

// CanReserve reports whether address space can be held without memory and
// replaced in place, which is what Reserve, Place and Clear do. Where it is
// false a [Space] is mapped and unmapped whole; but Windows has Reserve, and
// PlaceAnon of what was reserved.
const CanReserve = canReserve

// Faults reports whether a page that cannot be had ends in a fault: false
// where files are read into the heap.
const Faults = canFault

// PageSize is the unit in which memory is resident, locked and protected.
func PageSize() int { return pageSize() }

// Granularity is the unit of the offset in the file at which a mapping starts.
func Granularity() int { return granularity() }

// Page 0 can never be part of a Space, so a zero Space owns nothing.

// A Space is address space that the kernel gave in one piece and gets back in
// one piece. It remembers the address and the length apart from the slices
// that callers see, which may be shorter, cut or moved.
//
// Arguments named at and n are a distance from the start of the Space and a
// length. at is a multiple of PageSize, n is rounded up to one.
// A Space does no locking: the caller knows who may be inside.
type Space struct {
	addr    uintptr
	size    int
	backing //nolint:unused // what the mechanism must remember besides
}

// MapFile maps n bytes of f from off, a multiple of Granularity, wherever the
// kernel likes. The file is never made longer. If it ends before off+n, what
// lies beyond its last page faults where CanReserve is true; elsewhere that is
// [io.ErrUnexpectedEOF] and nothing is mapped.
//
// mmap(2), CreateFileMapping and MapViewOfFile. Windows neither shortens nor
// removes a file that anyone has mapped, and charges the whole of a Private
// mapping in advance. Where files are read into the heap, Read and Private are
// a copy made now, and Write is ErrUnsupported.
func MapFile(f *os.File, off int64, n int, a Access) (*Space, error) {
	return mapFile(f, off, n, a)
}

// CheckMappable tries to map a page, of which nothing is left afterwards, and returns
// ErrUnmappable if that is the reason why it cannot: some file systems map files
// privately only. info is about f. Where CanReserve is false it succeeds, since nothing
// is mapped there of a file without length.
func CheckMappable(f *os.File, info fs.FileInfo, a Access) error {
	if !CanReserve || HugeFile(f, info) != 0 { // less than a huge page is never unmapped
		return nil
	}
	s, err := MapFile(f, 0, PageSize(), a)
	if err == nil {
		err = s.Free()
	}
	if errors.Is(err, ErrUnmappable) {
		return ErrUnmappable
	}
	return nil
}

// A Room is address space that was set aside for a mapping that is to come, so
// that this one cannot fail for want of it. It is for where files must be
// unmapped to be cut (Windows); elsewhere it is nothing. The zero Room is none.
type Room struct{ addr uintptr }

// SetAside takes address space for a mapping of n bytes.
func SetAside(n int) (Room, error) { return setAside(n) }

// Free gives a Room back, if there is one.
func (r *Room) Free() {
	if r.addr != 0 {
		r.free()
	}
	r.addr = 0
}

// MapFileIn is MapFile in a Room that is large enough, which ends with it. What
// is mapped may lie elsewhere if another thread was faster.
func MapFileIn(r *Room, f *os.File, off int64, n int, a Access) (*Space, error) {
	return mapFileIn(r, f, off, n, a)
}

// MapAnon maps n bytes of zeroed private memory.
func MapAnon(n int) (*Space, error) { return mapAnon(n) }

// Reserve takes n bytes of address space that cannot be touched yet.
func Reserve(n int) (*Space, error) { return reserve(n) }

// Place maps part of f over part of the Space, in one step: at no moment is
// the range free for others.
func (s *Space) Place(f *os.File, off int64, at, n int, a Access) error {
	return s.place(f, off, at, n, a)
}

// PlaceAnon is Place with zeroed private memory.
func (s *Space) PlaceAnon(at, n int) error { return s.placeAnon(at, n) }

// Clear takes the memory, the file and the locks away from part of the Space
// and keeps its addresses: whoever still reads there faults, and nothing else
// can ever be mapped there before Free.
func (s *Space) Clear(at, n int) error { return s.clear(at, n) }

// Protect changes what may be done with pages that are mapped: loads only, or
// stores too. Only where CanReserve is true.
//
// mprotect(2).
func (s *Space) Protect(at, n int, a Access) error { return s.protect(at, n, a) }

// Huge reports whether the page at a distance from the start of the Space is
// mapped as a part of a huge page, and true where the kernel does not tell.
func (s *Space) Huge(at int) bool { return s.huge(at) }

// HugePage is the size in bytes of a huge page.
func HugePage() int { return pageSize() / 8 * pageSize() } // a page full of entries

// Private returns the first run of pages in the range that are copies of this
// mapping alone, in memory or in swap, as distances from the start of the
// Space; -1 if there is none. ErrUnsupported where the kernel does not tell.
func (s *Space) Private(at, n int) (lo, hi int, err error) { return s.private(at, n) }

// Free gives the whole Space back. It is empty afterwards.
func (s *Space) Free() error {
	if s.size == 0 {
		return nil
	}
	err := s.free()
	if err == nil {
		*s = Space{}
	}
	return err
}

// Addr is the first address, 0 for an empty Space.
func (s *Space) Addr() uintptr { return s.addr }

// Size is the length in bytes.
func (s *Space) Size() int { return s.size }

// Bytes returns memory of the Space. The slice is valid until Clear or Free.
func (s *Space) Bytes(at, n int) []byte { return s.bytes(at, n) }

// Populate brings pages in by a system call that blocks like a read: the
// scheduler sees it, and a page that cannot be had is an error and not a
// fault. With store the pages are made ready to be stored to, which allocates
// what is not there yet. ErrUnsupported where the kernel has no such call.
//
// Linux 5.14: madvise(2), MADV_POPULATE_READ and MADV_POPULATE_WRITE. Before,
// process_vm_readv(2) of a byte of each page, and futex(2) with FUTEX_WAKE_OP.
func (s *Space) Populate(at, n int, store bool) error { return s.populate(at, n, store) }

// Waits returns how many pages the calling thread has had to wait for so far
// because they were on a disk, within Populate too; always 0 where TellsWaits
// is false.
//
// ru_majflt of getrusage(2) with RUSAGE_THREAD.
func Waits() int64 { return waits() }

// TellsWaits reports whether Waits works here.
const TellsWaits = tellsWaits

// CanPopulate reports whether Populate works here.
func CanPopulate() bool { return canPopulate() }

// Lock makes pages stay in memory. Where LocksOnFault is true, only pages that
// are in memory already, and others as they come in; else it brings all in.
// After an error part of the range may be locked.
//
// mlock2(2) with MLOCK_ONFAULT, mlock(2), VirtualLock.
func (s *Space) Lock(at, n int) error { return s.lock(at, n) }

// Unlock lets pages go. Pages that are not locked do not matter.
//
// munlock(2), VirtualUnlock.
func (s *Space) Unlock(at, n int) error { return s.unlock(at, n) }

// LockHint names the settings that limit locking on this system besides
// RLIMIT_MEMLOCK, for error texts. Tests set it to what other systems have.
var LockHint = lockHint

// RaiseHint says where the hard limit RLIMIT_MEMLOCK is set on this system, for
// error texts; "" on Linux, where there are many places. Tests set it, too.
var RaiseHint = raiseHint

// RaiseHard is the remedy for a hard limit RLIMIT_MEMLOCK of less than so many MiB;
// "" where there is no RaiseHint.
func RaiseHard(mib int64) string {
	if RaiseHint == "" {
		return ""
	}
	return fmt.Sprintf("raise the hard limit to %d MiB as the super-user: %s", mib, RaiseHint)
}

// LocksStay says that locked pages stay mapped whatever is done beside them. On
// Linux an unlock or a cut next to them takes apart the huge page or folio that
// they are part of, and out of the mapping.
const LocksStay = locksStay

// LocksOnFault reports whether Lock leaves pages that are not in memory alone.
func LocksOnFault() bool { return locksOnFault() }

// Unlocked returns the first page of the range, as a distance from the start
// of the Space, that the kernel does not hold as locked, or -1.
func (s *Space) Unlocked(at, n int) (int, error) { return s.unlocked(at, n) }

// HugeEnd reports whether a page, at a distance from the start of the Space, is of
// a [HugeFile], and how far the kernel's mapping of it goes. Such pages are never
// paged out, so that Lock need do nothing with them, and Unlocked finds nothing done.
//
// Linux 6.11: ioctl PROCMAP_QUERY. Before, flag ht in /proc/self/smaps.
func (s *Space) HugeEnd(at int) (end int, ok bool) { return s.hugeEnd(at) }

// Swapped reports whether a page is in swap, or is just being moved to another place
// in memory: the kernel does not tell which. False where it tells neither; true for
// any page that is Absent where only move_pages(2) can be asked.
func (s *Space) Swapped(at int) bool { return s.swapped(at) }

// Absent returns the first page of the range that has no memory of its own (it
// is not mapped in, or is the shared page of zeroes), or -1.
//
// Linux: ioctl PAGEMAP_SCAN of 6.7, before that /proc/self/pagemap; where that may
// not be opened, move_pages(2).
func (s *Space) Absent(at, n int) (int, error) { return s.absent(at, n) }

// Hint is advice about pages.
type Hint uint8

const (
	NoDump      Hint = iota // keep out of core dumps
	NoFork                  // keep out of child processes
	Normal                  // neither of the next two
	Random                  // read no more than what is asked for
	Sequential              // read far ahead
	WillNeed                // begin to read
	Cold                    // let go before others
	PageOut                 // let go now
	DontNeed                // forget: what is private and not in a file may be lost
	HugePages               // map by huge pages where possible
	NoHugePages             // do not
	Collapse                // make huge pages now
)

// Advises reports whether Advise has a meaning for the hint here.
func Advises(h Hint) bool { return advises(h) }

// Advise passes a hint on. ErrUnsupported where Advises is false, and where the
// kernel knows the hint, but not for this kind of memory.
//
// madvise(2), minherit(2), PrefetchVirtualMemory.
func (s *Space) Advise(at, n int, h Hint) error { return s.advise(at, n, h) }

// Flush writes the stores of the range to the file and waits for it.
//
// msync(2) with MS_SYNC, FlushViewOfFile.
func (s *Space) Flush(at, n int) error { return s.flush(at, n) }

// StartFlush has the system begin to write the stores of the range, which is
// that of f from off on, and does not wait.
//
// sync_file_range(2), msync(2) with MS_ASYNC.
func (s *Space) StartFlush(f *os.File, off int64, at, n int) error {
	return s.startFlush(f, off, at, n)
}

// AwaitFlush returns when what was on its way to the disk of n bytes of a file
// has arrived. A store, and populating for one, would wait for it as well, and
// keep the lock of the address space meanwhile, so that whoever else asks for
// memory waits too. It does nothing where the system has no such call.
//
// sync_file_range(2) with SYNC_FILE_RANGE_WAIT_BEFORE. An error of the
// write-back, of any of the file's pages, is told here and not again.
func AwaitFlush(f *os.File, off, n int64) error { return awaitFlush(f, off, n) }

// WriteOut writes what is dirty of n bytes of a file and returns when it has
// arrived at the disk, which may still lose it. It does nothing where the system
// has no such call.
//
// sync_file_range(2). Errors are as those of AwaitFlush.
func WriteOut(f *os.File, off, n int64) error { return writeOut(f, off, n) }

// OneMapping reports whether the kernel has the range in one mapping of its
// own, so that Flush is one step. ErrUnsupported where it does not tell.
//
// Linux 6.11: ioctl PROCMAP_QUERY.
func (s *Space) OneMapping(at, n int) (bool, error) { return s.oneMapping(at, n) }
