//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package sys

import "golang.org/x/sys/unix"

// mlock(2) brings the pages in and fails with an error where it cannot: ENOMEM
// where a page is not there, which on FreeBSD is also a limit; a limit is EAGAIN on
// Darwin (KERN_RESOURCE_SHORTAGE in bsd/kern/kern_mman.c; ENOMEM in old kernels),
// NetBSD, OpenBSD and DragonFly. It changes nothing then. On all but FreeBSD it may
// nest: pages locked twice need two unlocks. Callers lock none twice.
func (s *Space) lock(at, n int) error {
	return retry(func() error { return unix.Mlock(s.bytes(at, roundUp(n))) })
}

// munlock(2) of DragonFly, NetBSD and OpenBSD lets go of nothing if a page of the
// range is not locked: ENOMEM in their manuals, and kernels have said EINVAL. The
// range is mapped as a whole, so neither can mean anything else, on other systems
// either.
func (s *Space) unlock(at, n int) error {
	return unlockMixed(at, roundUp(n), func(at, n int) (mixed bool, err error) {
		err = retry(func() error { return unix.Munlock(s.bytes(at, n)) })
		if err == unix.ENOMEM || err == unix.EINVAL { //nolint:errorlint // bare errno
			return true, nil
		}
		return false, err
	})
}
