package mmapio_test

import (
	"fmt"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// TestProofLockWhileMoving: a lock waits for the disk while the File moves. What it
// then has brought in is in the old mapping, so it has to look at the new one.
func TestProofLockWhileMoving(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	needLockOf(t, 256*pageSize)
	disk := slowfs.Start(t, slowfs.Options{})
	for _, pages := range []int64{16, 64} { // at once, and in windows
		name := fmt.Sprint("f", pages)
		disk.AddFile(name, pages*pageSize, slowfs.Offsets)
		f := mustOpen(t, disk.Path(name), &mmapio.Options{Mode: mmapio.ReadWrite})
		goOn := disk.Hold(slowfs.OpRead, name)
		locked := make(chan error, 1)
		go func() { locked <- f.Lock(0, pages*pageSize) }()
		disk.WaitHeld(1)
		mustResize(t, f, 2*pages*pageSize)
		goOn()
		check(t, <-locked)
		check(t, f.VerifyLocked(0, pages*pageSize))
		prove.AssertHeld(t, memoryOf(t, f)[:pages*pageSize])
		mustClose(t, f)
	}
}
