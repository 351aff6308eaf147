//go:build !linux

package sys

import "os"

func cached(f *os.File, off, n int64) (Counts, error) { return NotKnown, ErrUnsupported }

func stored(f *os.File, off, n int64) (int64, error) { return 0, ErrUnsupported }

// There is no cachestat whose answer could be checked, and mincore(2) follows
// the mapping.
func keeps(*os.File) place { return elsewhere }
