package sys

import (
	"errors"
	"io/fs"
	"os"
)

// Resident returns how many bytes of a range of f, in whole pages, are in the
// page cache. known is false where the kernel does not tell the truth or
// nothing at all: to a caller who neither owns the file nor may write it, on
// file systems that keep the pages somewhere else (overlayfs, hugetlbfs, DAX),
// and where there is no cachestat(2).
func Resident(f *os.File, off, n int64) (bytes int64, known bool, err error) {
	if n == 0 {
		return 0, true, nil // to the kernel 0 means up to the end
	}
	bytes, err = Cached(f, off, n)
	switch {
	case errors.Is(err, ErrUnsupported), errors.Is(err, fs.ErrPermission):
		// mincore(2) would answer where permission is missing, but it calls
		// every page resident then.
		return 0, false, nil
	case err != nil:
		return 0, false, err
	case bytes == 0 && cachedElsewhere(f):
		return 0, false, nil
	}
	return bytes, true, nil
}
