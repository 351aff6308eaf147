//go:build !linux

package sys

import "os"

func dropCached(f *os.File, off, n int64) error { return nil }

func readAhead(f *os.File) int { return usualReadAhead }
