package mmapio_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
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

// fillCache fills the page cache with a file, page by page, so that little is left free.
func fillCache(t testing.TB, path string) {
	t.Helper()
	file, err := os.Open(path)
	check(t, err)
	defer file.Close()
	check(t, unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_RANDOM))
	_, err = io.Copy(io.Discard, file)
	check(t, err)
}

// tmpfsInFull locks a file that is kept in memory, in a cgroup of which pages of another
// file have taken the rest.
var tmpfsInFull = prove.Register("tmpfs in a full cgroup", func(args []string) int {
	t := prove.T()
	f := mustOpen(t, args[0], &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: 60 * mib, Sparse: true})
	dirty(t, f, 0, f.Size()) // charged to this process
	fillCache(t, args[1])
	check(t, f.LockAll())
	prove.AssertHeld(t, memoryOf(t, f))
	return 0
})

// What a file that is kept in memory has there is no part of what a cgroup could drop,
// so that to lock it takes nothing of that.
func TestLockCgroupTmpfs(t *testing.T) {
	prove.Need(t, prove.MemCgroup, prove.TmpfsMount, prove.Disk, prove.Pagemap, prove.Cachestat)
	other := prove.NewFile(t, prove.DiskDir(t), "f", 80*mib)
	dropCache(t, other)
	path := filepath.Join(prove.SmallTmpfs(t, 80*mib), "f")
	if res := tmpfsInFull.Run(t, prove.In(prove.MemoryCgroup(t, 100*mib)), prove.Args(path, other)); res.Code != 0 {
		t.Error(res)
	}
}

// lockedInFull locks a file of which all is locked already, in a cgroup of which pages of
// another file have taken the rest.
var lockedInFull = prove.Register("locked in a full cgroup", func(args []string) int {
	t := prove.T()
	f := mustOpen(t, args[0], nil)
	onFault := args[2] == "on fault"
	check(t, f.LockContext(t.Context(), 0, f.Size(), &mmapio.LockOptions{OnFault: onFault}))
	check(t, f.Populate(t.Context(), 0, f.Size()))
	fillCache(t, args[1])
	if !onFault {
		f = mustOpen(t, args[0], &mmapio.Options{Offset: 3*pageSize + 7})
	}
	check(t, f.LockAll())
	prove.AssertHeld(t, memoryOf(t, f))
	return 0
})

// Nor is what is locked already, on fault or through another File.
func TestLockCgroupLocked(t *testing.T) {
	prove.Need(t, prove.MemCgroup, prove.Disk, prove.Pagemap, prove.Cachestat)
	dir := prove.DiskDir(t)
	path, other := prove.NewFile(t, dir, "f", 60*mib), prove.NewFile(t, dir, "g", 80*mib)
	for _, how := range []string{"on fault", "another"} {
		dropCache(t, path)
		dropCache(t, other)
		if res := lockedInFull.Run(t, prove.In(prove.MemoryCgroup(t, 100*mib)), prove.Args(path, other, how)); res.Code != 0 {
			t.Errorf("%s: %v", how, res)
		}
	}
}
