//go:build !linux

package sys

import "os"

func (s *Space) readAhead(at, n int) {}

// Not relied on: OpenBSD keeps two caches.
func readsOf(*os.File) Reads { return ReadsElsewhere }
