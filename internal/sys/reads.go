package sys

import "os"

// Reads says where a read of a file gets its bytes from.
type Reads int32

const (
	ReadsNotAsked Reads = iota
	// ReadsPages: it shows at once what was stored through mappings, and leaves
	// the pages that it has read where a mapping finds them without waiting.
	ReadsPages
	// ReadsMemory is ReadsPages of a file system that keeps its files in memory or
	// swap: a load from a hole gives the file memory, and waits for no disk.
	ReadsMemory
	// ReadsEither: that is so if it leaves pages in the page cache.
	ReadsEither
	ReadsElsewhere
)

// ReadsOf asks where a read of f gets its bytes from.
//
// pread(2) on the file systems of Linux that keep files in the page cache; FUSE
// may be asked to keep nothing there. ReadsMemory is tmpfs, and so memfd_create(2).
func ReadsOf(f *os.File) Reads { return readsOf(f) }

// ReadAtOnce reads as much of p as is in memory, and has the system begin to read
// the rest without waiting for it. ErrUnsupported where that cannot be asked for.
//
// preadv2(2) with RWF_NOWAIT, Linux 4.14; before 5.9 it begins nothing.
func ReadAtOnce(f *os.File, p []byte, off int64) (int, error) { return readAtOnce(f, p, off) }
