package sys

import "os"

// ReadAhead asks the kernel to begin to read pages that are not in memory, and
// does not wait for them. It is a hint: beyond the device's read-ahead, and on
// other systems, nothing happens.
//
// Linux: madvise(2), MADV_WILLNEED.
func (s *Space) ReadAhead(at, n int) { s.readAhead(at, n) }

// ReadsMapped reports whether a read of f shows at once what was stored through
// mappings of it, and leaves the pages that it has read where a mapping finds
// them without waiting.
//
// pread(2) on the file systems of Linux that keep files in the page cache.
func ReadsMapped(f *os.File) bool { return readsMapped(f) }
