package mmapio_test

import (
	"os"
	"testing"

	"golang.org/x/sys/windows"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/sys"
)

// TestLockedBytes: whoever locks bytes of a file keeps all others from reading them,
// and the File's own handle is another one. Its mapping is not kept from anything.
func TestLockedBytes(t *testing.T) {
	const n = 64
	path, content := patternFile(t, n*pageSize-5)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	defer file.Close()
	var from windows.Overlapped
	check(t, windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, ^uint32(0), ^uint32(0), &from))
	if prove.Wine() { // reads it all the same
		t.Cleanup(mmapio.SetFailpoint(func(step string) error {
			if step == "read" {
				return sys.ErrUnsupported
			}
			return nil
		}))
	}
	for _, mode := range []mmapio.Mode{mmapio.ReadOnly, mmapio.ReadWrite, mmapio.CopyOnWrite} {
		f := opened(t)(mmapio.Map(file, &mmapio.Options{Mode: mode, Populate: true}))
		if got := mappedIn(t, f, 0, f.Size()); got != n {
			t.Errorf("%v: %d pages of %d are there", mode, got, n)
		}
		mustClose(t, f)
		f = opened(t)(mmapio.Map(file, &mmapio.Options{Mode: mode}))
		got := make([]byte, f.Size())
		_, err := f.ReadAt(got, 0)
		check(t, err)
		same(t, mode.String(), got, content)
		if mode != mmapio.ReadOnly {
			_, err = f.WriteAt(content[pageSize:pageSize+1], pageSize)
			check(t, err)
		}
		check(t, f.LockAll())
		mustClose(t, f)
	}
}
