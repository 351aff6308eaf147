//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package sys

import "os"

// fsync(2) need not know what was stored through mappings.
const flushBeforeSync = true

// The standard library asks for F_FULLFSYNC where there is one, and falls back
// to fsync(2) where the file system has not.
func syncFile(f *os.File) error { return bare(f.Sync()) }

func syncAll(*os.File) (tried bool, err error) { return false, nil }

// No one is exempt: the kernels compare with RLIMIT_MEMLOCK whoever asks, and
// with limits of their own that no call tells (vm.user_wire_limit on Darwin,
// vm.max_user_wired on FreeBSD). The manual of DragonFly says that RLIMIT_MEMLOCK
// is not kept there, and that mlock(2) is the super-user's.
func memlockLimits() (soft, hard int64, exempt bool, err error) {
	r, err := memlockRlimit()
	if err != nil {
		return 0, 0, false, err
	}
	return limit(r.Cur), limit(r.Max), false, nil
}
