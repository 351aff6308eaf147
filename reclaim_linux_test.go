package mmapio_test

import (
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// oneArena keeps the C library from setting 64 MiB aside for each thread that the runtime
// starts: the limits here are for the library's own.
var oneArena = prove.Env("MALLOC_ARENA_MAX=1")

// needLittleSpace skips where what a limit on addresses leaves is not the library's alone.
func needLittleSpace(t *testing.T) {
	t.Helper()
	if raceBuild() {
		prove.Unable(t, "the race detector asks for memory of its own")
	}
	prove.Need(t, prove.AddressLimit)
}

// reopenInLittle closes many small Files, then a large one, or one that reserves as much,
// and opens that again, where there is no room for two of it.
var reopenInLittle = prove.Register("reopen in little", func(args []string) int {
	t := prove.T()
	heap := make([]byte, 16<<20) // so that the runtime need not ask for memory
	heap[0] = 1
	runtime.KeepAlive(heap)
	runtime.GC()
	debug.SetGCPercent(-1) // nothing is given back before it is missed
	large := []*mmapio.Options{
		{Mode: mmapio.ReadWrite, Create: true, MinSize: 1 << 28, Sparse: true},
		{Mode: mmapio.ReadWrite, Reserve: 1 << 28},
	}
	enough := short(t, unix.RLIMIT_AS, uint64(vmSize(t))+1<<28+1<<27)
	for i := range 10 {
		for range 200 {
			mustClose(t, mustOpen(t, args[0], nil))
		}
		mustClose(t, mustOpen(t, args[1], large[i%2]))
	}
	enough()
	return 0
})

// What closed Files had is given back for those that are opened, as much as it takes:
// not a small one's only.
func TestReopenInLittleSpace(t *testing.T) {
	needLittleSpace(t)
	small, _ := patternFile(t, pageSize)
	if res := reopenInLittle.Run(t, oneArena, prove.Args(small, filepath.Join(tempDir(t), "large"))); res.Code != 0 {
		t.Error(res)
	}
}

// closeInLittle closes Files that together have most of the addresses that are left, and
// then waits until hardly more of those than an eighth of all are taken.
var closeInLittle = prove.Register("close in little", func(args []string) int {
	t := prove.T()
	debug.SetGCPercent(-1) // nobody but the library sees to it
	const each, left = 100 << 20, 1 << 30
	before := vmSize(t)
	enough := short(t, unix.RLIMIT_AS, uint64(before)+left)
	for range 8 {
		mustClose(t, mustOpen(t, args[0], &mmapio.Options{Mode: mmapio.ReadWrite, Reserve: each}))
	}
	until(t, "given back", func() bool { return vmSize(t) < before+(before+left)/8+each })
	enough()
	return 0
})

// TestCloseInLittleSpace: what closed Files had does not keep from the runtime what the
// process may have.
func TestCloseInLittleSpace(t *testing.T) {
	needLittleSpace(t)
	path, _ := patternFile(t, pageSize)
	if res := closeInLittle.Run(t, oneArena, prove.Args(path)); res.Code != 0 {
		t.Error(res)
	}
}

// TestSpareMeanwhile: a mapping is tried again also if what it lacked is given back before
// anybody looks for it, by a collection that was under way.
func TestSpareMeanwhile(t *testing.T) {
	if tries, err := mmapio.SpareMeanwhile(); tries != 2 || err != nil {
		t.Errorf("tried %d times, %v", tries, err)
	}
}
