package sys

import (
	"io/fs"
	"os"
)

// OpenFlags keep an open from waiting for anybody: for a FIFO, a device, or who has
// a lease on the file.
const OpenFlags = openFlags

// OpenFile is os.OpenFile, and does not wait for a FIFO or a device.
func OpenFile(name string, flag int, perm os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(name, flag|OpenFlags, perm)
	if err != nil && isLeased(err) {
		if f := openLeased(name, flag); f != nil {
			return f, nil
		}
	}
	return f, err
}

// FlushBeforeSync is false where SyncFile also writes what was stored through
// mappings, which makes Flush a waste.
const FlushBeforeSync = flushBeforeSync

// A Descriptor says what an open file may be used for.
type Descriptor struct {
	Read, Write, Append bool
}

// Describe looks at an open file.
func Describe(f *os.File) (Descriptor, error) { return describe(f) }

// Reopen opens f's file anew, so that the result has an open file description
// of its own: the kernel reports a failed write-back once for each of those.
// Where that is not possible it duplicates the descriptor. shared says that to read
// by the result, also by ReadAt, moves the offset of f for the time (Windows).
func Reopen(f *os.File, write bool) (n *os.File, shared bool, err error) { return reopen(f, write) }

// SyncFile returns when the data and the size of f are on stable storage.
//
// fdatasync(2) on Linux, F_FULLFSYNC on Apple systems, fsync(2),
// FlushFileBuffers.
func SyncFile(f *os.File) error { return syncFile(f) }

// PathOf returns the path by which f can be found now, wherever it was moved to,
// or "" if it was removed. ErrUnsupported where the system does not tell.
func PathOf(f *os.File) (string, error) { return pathOf(f) }

// SyncDir makes the entries of a directory durable, where that is needed, or all
// of the file system that f is on, if that cannot be done. lasting says that the
// disk was written to in vain: to try again proves nothing.
//
// fsync(2), syncfs(2).
func SyncDir(dir string, f *os.File) (lasting bool, err error) { return syncDir(dir, f) }

// Allocate makes f at least off+n bytes long and gives every byte of the range
// a block of its own, so that storing to it cannot meet a full disk. It returns how
// long the file was right before it became longer: others may have added to it until
// then. After an error the file is as long as it was, but for what others have added
// meanwhile. ErrUnsupported where the file system cannot.
//
// fallocate(2), with FALLOC_FL_UNSHARE_RANGE for blocks that copies of the file
// share with it; F_PREALLOCATE, posix_fallocate(2) of FreeBSD and FileAllocationInfo,
// for files without holes.
func Allocate(f *os.File, off, n int64) (was int64, err error) { return allocate(f, off, n) }

// Append writes b at the end of f, which is at end unless others have moved it since.
// Only Linux sees to that, and writes over nothing.
//
// pwritev2(2) with RWF_APPEND, Linux 4.16.
func Append(f *os.File, b []byte, end int64) (int, error) { return appendTo(f, b, end) }

// ReadAt is f.ReadAt for what may meet f.Close: on Windows package os then may
// lose count of those who use f, and Close waits for ever. ErrUnsupported where
// somebody keeps others from reading the range, which says nothing about mappings
// (LockFileEx).
func ReadAt(f *os.File, b []byte, off int64) (int, error) { return readAt(f, b, off) }

// AllowHoles lets f have holes where a file must be marked for that. It is a
// hint: what cannot have holes has blocks.
//
// FSCTL_SET_SPARSE; elsewhere there is nothing to do.
func AllowHoles(f *os.File) { allowHoles(f) }

// Probe asks for disk blocks for a range of f that exists already, without
// changing its size, to see whether that fails. It succeeds where the system
// cannot be asked. lacking says that a store may have failed for want of blocks: the
// disk is so full that a moment ago it may have been entirely so, or has little room
// and the range had not all of its blocks before.
//
// fallocate(2) with FALLOC_FL_KEEP_SIZE.
func Probe(f *os.File, off, n int64) (lacking bool, err error) { return probe(f, off, n) }

// MemoryLeft tells how many bytes a file system that keeps its files in memory, up
// to a limit, has left for f: there a load from a hole wants a block, too. limited is
// false of all others, and where the system cannot be asked.
//
// fstatfs(2) on tmpfs.
func MemoryLeft(f *os.File) (left int64, limited bool) { return memoryLeft(f) }

// HugeFile returns the size of the pages of a file that has none but huge ones,
// and 0 for all others: the kernel maps it in whole pages of its own, also where
// it is asked for less, and unmaps nothing smaller. info is about f.
//
// fstatfs(2), hugetlbfs.
func HugeFile(f *os.File, info fs.FileInfo) int { return hugeFile(f, info) }

// MemlockLimits returns the soft and the hard limit on locked bytes of this
// process, -1 for none, and whether the process is exempt from them.
//
// getrlimit(2) with RLIMIT_MEMLOCK and capget(2) for CAP_IPC_LOCK; on Windows
// the minimum working set, which Lock raises, so that every process is exempt.
func MemlockLimits() (soft, hard int64, exempt bool, err error) { return memlockLimits() }

// RaiseMemlock raises the soft limit to the hard limit.
func RaiseMemlock() error { return raiseMemlock() }

// DropCached lets the system forget what it keeps in RAM of a range of f, where
// no process has it mapped or locked and nothing in it waits to be written; it
// begins to write what does. It succeeds where the system cannot be asked.
//
// posix_fadvise(2) with POSIX_FADV_DONTNEED.
func DropCached(f *os.File, off, n int64) error { return dropCached(f, off, n) }

// ReadAhead is how many bytes at most the system reads at once because of the
// hint WillNeed, or a good size where it does not tell or f is nil.
func ReadAhead(f *os.File) int { return readAhead(f) }

// usualReadAhead is what Linux begins with.
const usualReadAhead = 128 << 10
