package mmapio_test

import (
	"errors"
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
			left, tried := refused, 0
			restore := mmapio.SetFailpoint(func(step string) error {
				if step == "lock" {
					tried++
				}
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
			if want := map[int]int{1: 1 + 2, 4: 4 + 8}[refused]; tried != want { // the rest is as small
				t.Errorf("%v, %d times: %d locks, want %d", errno, refused, tried, want)
			}
			wantLockedBytes(t, f, pages*pageSize)
			same(t, "the file", contentOf(t, f)[:pages*pageSize], content)
			mustClose(t, f)
		}
	}
}

// TestHandOverGivesUp: what was free for a moment, to move, and cannot, is locked again
// where it was.
func TestHandOverGivesUp(t *testing.T) {
	const pages = 8
	needLockOf(t, 2*pages*pageSize)
	for _, moved := range []int{0, 3} { // pages before it
		path, content := patternFile(t, pages*pageSize)
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
		check(t, f.LockAll())
		n := 0
		restore := mmapio.SetFailpoint(func(step string) error {
			if step != "lock" {
				return nil
			}
			switch n++; n {
			case 1, 2, 3, 4 + moved: // in windows, and the page
				return sys.ErrNoMemory
			case 5 + moved: // though it is free now
				return errInjected
			}
			return nil
		})
		err := f.Resize((pages + 1) * pageSize)
		restore()
		// Where all is mapped anew after that, all is locked once more.
		if !errors.Is(err, errInjected) || n < 6+moved {
			t.Errorf("after %d pages: %v, and %d locks", moved, err, n)
		}
		wantLockedBytes(t, f, pages*pageSize)
		same(t, "the file", contentOf(t, f), content)
		mustClose(t, f)
	}
}
