//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package sys

import "golang.org/x/sys/unix"

// MADV_DONTNEED loses nothing on these systems: it moves pages to where the
// next ones to be reused are taken from. MADV_WILLNEED reads nothing on FreeBSD
// and DragonFly: it maps what is in memory already.
func posixAdvice(h Hint) (advice int, ok bool) {
	switch h {
	case Normal:
		return unix.MADV_NORMAL, true
	case Random:
		return unix.MADV_RANDOM, true
	case Sequential:
		return unix.MADV_SEQUENTIAL, true
	case WillNeed:
		return unix.MADV_WILLNEED, true
	case Cold, PageOut, DontNeed:
		return unix.MADV_DONTNEED, true
	}
	return 0, false
}

func (s *Space) posixAdvise(at, n int, h Hint) error {
	advice, ok := posixAdvice(h)
	if !ok {
		return ErrUnsupported
	}
	return retry(func() error { return unix.Madvise(s.bytes(at, roundUp(n)), advice) })
}
