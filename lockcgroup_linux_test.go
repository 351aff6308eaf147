package mmapio_test

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// lockTwice locks the file in its first argument through two Files. With "drop"
// they keep no descriptor, with "writable" they may be stored to, with "untold" it has
// to be refused in words that say why.
var lockTwice = prove.Register("lock-twice", func(args []string) int {
	t := prove.T()
	for range 2 {
		o := &mmapio.Options{DropFD: strings.Contains(args[1], "drop")}
		if strings.Contains(args[1], "writable") {
			o.Mode = mmapio.ReadWrite
		}
		f := mustOpen(t, args[0], o)
		err := f.LockAll()
		if !strings.Contains(args[1], "untold") {
			check(t, err)
			prove.AssertHeld(t, memoryOf(t, f))
			continue
		}
		var e *mmapio.LockError
		if !errors.As(err, &e) || e.Cause != mmapio.CauseCgroup ||
			!strings.Contains(err.Error(), "which the kernel does not tell") || !strings.Contains(err.Error(), "might kill the process") {
			t.Errorf("got %v", err)
		}
	}
	return 0
})

// What is in memory already needs no more of it, whoever brought it there, and
// whether there is a descriptor or cachestat(2) to ask by or not.
func TestProofLockCgroupCached(t *testing.T) {
	prove.NeedE2E(t, prove.MemCgroup, prove.Pagemap, prove.Disk, prove.Filters)
	const mib = 1 << 20
	path := prove.NewFile(t, prove.PublicDir(t), "f", 150*mib)
	noCachestat := prove.Refuse(unix.SYS_CACHESTAT, int(syscall.ENOSYS))
	for _, way := range []struct {
		name string
		opts []prove.Option
	}{
		{"plain", nil},
		{"drop", nil},
		{"plain, no cachestat", []prove.Option{noCachestat}},
		{"drop, no cachestat", []prove.Option{noCachestat}},
		{"writable, no cachestat", []prove.Option{noCachestat}},
	} {
		// Its own pages, locked by the first of two, and those of somebody else.
		for name, limit := range map[string]int64{"own": 256 * mib, "others'": 100 * mib} {
			prove.DropCaches(t)
			if name != "own" {
				_, err := os.ReadFile(path)
				check(t, err)
			}
			c := prove.MemoryCgroup(t, limit)
			if res := lockTwice.Run(t, append(way.opts, prove.In(c), prove.Args(path, way.name))...); res.Code != 0 {
				t.Errorf("%s pages, %s: %v", name, way.name, res)
			}
		}
	}
	_, err := os.ReadFile(path)
	check(t, err)
	c := prove.MemoryCgroup(t, 100*mib)
	untold := prove.Refuse(unix.SYS_MINCORE, int(syscall.ENOSYS))
	if res := lockTwice.Run(t, untold, prove.In(c), prove.Args(path, "drop, untold")); res.Code != 0 {
		t.Error(res)
	}
}
