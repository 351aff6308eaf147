package sys

import "os"

// Reads says where a read of a file gets its bytes from.
type Reads int32

const (
	ReadsNotAsked Reads = iota
	// ReadsPages: it shows at once what was stored through mappings, and leaves
	// the pages that it has read where a mapping finds them without waiting.
	ReadsPages
	// ReadsEither: that is so if it leaves pages in the page cache.
	ReadsEither
	ReadsElsewhere
)

// ReadsOf asks where a read of f gets its bytes from.
//
// pread(2) on the file systems of Linux that keep files in the page cache; FUSE
// may be asked to keep nothing there.
func ReadsOf(f *os.File) Reads { return readsOf(f) }
