package mmapio_test

import (
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/sys"
)

// TestHandOverWithLittleRoom: where the limit has no room for all of a window in
// both mappings, locks move in smaller ones, and the last page by being free for a
// moment, whatever the system calls that limit.
func TestHandOverWithLittleRoom(t *testing.T) {
	const pages = 8
	needLockOf(t, 2*pages*pageSize)
	for _, errno := range []error{sys.ErrNoMemory, sys.ErrAgain} {
		for _, refused := range []int{1, 4} { // at 8, 4, 2 and 1 pages
			path, content := patternFile(t, pages*pageSize)
			f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
			check(t, f.LockAll())
			left := refused
			restore := mmapio.SetFailpoint(func(step string) error {
				if step == "lock" && left > 0 {
					left--
					return errno
				}
				return nil
			})
			err := f.Resize((pages + 1) * pageSize)
			restore()
			if err != nil || left > 0 {
				t.Errorf("%v, %d times of %d: %v", errno, refused-left, refused, err)
			}
			wantLockedBytes(t, f, pages*pageSize)
			same(t, "the file", contentOf(t, f)[:pages*pageSize], content)
			mustClose(t, f)
		}
	}
}
