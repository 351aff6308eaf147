package mmapio_test

import (
	"bytes"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// TestZeroesKeepAppends: where blocks cannot be reserved, and what is added is written
// out, none of it goes over what others append meanwhile.
func TestZeroesKeepAppends(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	disk.Add(slowfs.Rule{Op: slowfs.OpFallocate, Err: syscall.EOPNOTSUPP})
	const size = 32 << 20
	record := []byte("of somebody else")
	for name, grow := range map[string]func(path string){
		"MinSize": func(path string) {
			mustClose(t, mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, MinSize: size}))
		},
		"Resize": func(path string) {
			f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
			mustResize(t, f, size)
			mustClose(t, f)
		},
	} {
		path := disk.Path(name)
		check(t, os.WriteFile(path, record, 0o600))
		var (
			wg       sync.WaitGroup
			done     atomic.Bool
			appended = 1
		)
		wg.Go(func() {
			for ; !done.Load(); appended++ {
				if err := appendTo(path, record); err != nil {
					t.Error(err)
					return
				}
			}
		})
		grow(path)
		done.Store(true)
		wg.Wait()
		content := onDisk(t, path)
		if n := bytes.Count(content, record); n != appended {
			t.Errorf("%s: of %d records %d are left", name, appended, n)
		}
		if len(content) < size {
			t.Errorf("%s: %d bytes", name, len(content))
		}
	}
}
