//go:build !linux

package sys

import "os"

// Not relied on: OpenBSD keeps two caches.
func readsOf(*os.File) Reads { return ReadsElsewhere }

func readAtOnce(*os.File, []byte, int64) (int, error) { return 0, ErrUnsupported }

func appendTo(f *os.File, b []byte, end int64) (int, error) { return f.WriteAt(b, end) }
