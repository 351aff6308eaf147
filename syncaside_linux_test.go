package mmapio_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// TestSyncBesideStore: a store to a page that is on its way to the disk waits for
// that, and may be told that the disk has refused it. The kernel tells it once, and
// the Sync that waits as well is not the one then.
func TestSyncBesideStore(t *testing.T) {
	disk := slowfs.Start(t, slowfs.Options{})
	for i := range 10 {
		name := fmt.Sprint("f", i)
		disk.AddData(name, make([]byte, 4*pageSize))
		f := mustOpen(t, disk.Path(name), &mmapio.Options{Mode: mmapio.ReadWrite})
		store(t, f, 0, "refused")
		remove := disk.Add(slowfs.Rule{Op: slowfs.OpWrite, Path: name, Err: unix.EIO, Times: 1})
		release := disk.Hold(slowfs.OpWrite, name)
		noError(t, "StartSync", f.StartSync(0, f.Size()))
		disk.WaitHeld(1)
		wrote, synced := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := f.WriteAt([]byte("late"), 0)
			wrote <- err
		}()
		time.Sleep(10 * time.Millisecond) // that it waits is not to be seen
		go func() { synced <- f.Sync() }()
		time.Sleep(10 * time.Millisecond)
		release()
		if err := <-synced; err == nil {
			t.Errorf("File %d: Sync returned nil for what the disk has refused", i)
		}
		<-wrote // it may be told, or not
		remove()
		f.Close() //nolint:errcheck // it has failed
	}
}
