package mmapio_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// Advice that makes the kernel split a folio takes nothing out of RAM that is locked
// beside it, be it this File's or another's.
func TestAdviseBesideLocked(t *testing.T) {
	prove.Need(t, prove.Verify, prove.Advice, prove.Disk)
	const size = 16 << 20
	for name, advice := range map[string]mmapio.Advice{"cold": mmapio.AdviceCold, "pageout": mmapio.AdvicePageOut} {
		for other, off := range map[string]int64{"none": -1, "whole": 0, "from behind the middle": size / 4 * 3} {
			path, _ := patternFile(t, size)
			file, err := os.Open(path)
			check(t, err)
			check(t, file.Sync()) // what is dirty is not paged out
			check(t, file.Close())
			f := mustOpen(t, path, nil)
			advised := f
			if off >= 0 {
				advised = mustOpen(t, path, &mmapio.Options{Offset: off})
			}
			before, behind := max(off, 0)+5*pageSize, max(off, 0)+8*pageSize
			check(t, f.Lock(before, pageSize))
			check(t, f.Lock(behind, pageSize))
			check(t, advised.Populate(t.Context(), 0, advised.Size()))
			check(t, advised.Advise(6*pageSize, 2*pageSize, advice))
			for _, at := range []int64{before, behind} {
				if err := f.VerifyLocked(at, pageSize); err != nil {
					t.Errorf("%s, another File: %s: %v", name, other, err)
				}
			}
		}
	}
}

// A collapse takes the pages out of all mappings of the file.
func TestCollapseKeepsLocksOfOthers(t *testing.T) {
	prove.Need(t, prove.Verify, prove.Advice)
	path := filepath.Join(prove.SmallTmpfs(t, 64<<20), "f")
	a := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: 4 * hugePage})
	b := mustOpen(t, path, &mmapio.Options{Offset: pageSize})
	check(t, b.LockAll())
	check(t, a.Advise(0, a.Size(), mmapio.AdviceCollapse))
	if err := b.VerifyLocked(0, b.Size()); err != nil {
		t.Error(err)
	}
}

// While the kernel moves a page to another place in memory it looks like one that
// has left. It is still locked.
func TestVerifyWhileMoving(t *testing.T) {
	prove.NeedE2E(t, prove.Verify, prove.SysctlRW)
	const mib = 1 << 20
	path, _ := patternFile(t, 128*mib)
	files := []*mmapio.File{
		opened(t)(mmapio.Anonymous(128*mib, &mmapio.Options{Lock: mmapio.LockNow})),
		mustOpen(t, path, &mmapio.Options{Lock: mmapio.LockNow}),
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			g, err := mmapio.Anonymous(256*mib, &mmapio.Options{Populate: true})
			if err != nil {
				t.Error(err)
				return
			}
			if err := os.WriteFile("/proc/sys/vm/compact_memory", []byte("1"), 0); err != nil {
				t.Error(err)
			}
			mustClose(t, g)
		}
	})
	bad := 0
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && bad < 3; {
		for _, f := range files {
			if err := f.VerifyLocked(0, f.Size()); err != nil {
				bad++
				t.Error(err)
				check(t, f.LockAll())
			}
		}
	}
	stop.Store(true)
	wg.Wait()
}

var growLocked = prove.Register("grow locked memory", func(args []string) int {
	t := prove.T()
	const mib = 1 << 20
	secret := args[0] == "secret"
	f := opened(t)(mmapio.Anonymous(100*mib, &mmapio.Options{Lock: mmapio.LockNow, NoDump: secret, NoFork: secret}))
	err := f.Resize(101 * mib)
	if err == nil || f.Size() != 100*mib {
		t.Fatalf("%d bytes after %v", f.Size(), err)
	}
	check(t, f.VerifyLocked(0, f.Size()))
	t.Log(err)
	if !strings.Contains(err.Error(), "cgroup") {
		return 1
	}
	return 0
})

// To move takes as much again for a moment. Where that does not fit the kernel would
// kill the process.
func TestGrowLockedInCgroup(t *testing.T) {
	prove.Need(t, prove.MemCgroup, prove.Verify)
	for _, what := range []string{"plain", "secret"} {
		if res := growLocked.Run(t, prove.In(prove.MemoryCgroup(t, 160<<20)), prove.Args(what)); res.Code != 0 {
			t.Errorf("%s: %v", what, res)
		}
	}
}
