package mmapio_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// A rangeSync is one of the calls that sync a range.
type rangeSync struct {
	op   string
	call func(f *mmapio.File, off, n int64) error
}

var rangeSyncs = []rangeSync{
	{"syncrange", (*mmapio.File).SyncRange},
	{"startsync", (*mmapio.File).StartSync},
}

// TestSyncRange: any alignment, every mode, and the bounds of all calls.
func TestSyncRange(t *testing.T) {
	prove.LeakCheck(t)
	const size = 70001
	for _, mode := range allModes {
		if mode == mmapio.ReadWrite {
			needMaps(t)
		}
		path, content := patternFile(t, size+3)
		f := mustOpen(t, path, &mmapio.Options{Mode: mode, Offset: 3})
		for _, s := range rangeSyncs {
			for _, r := range [][2]int64{{0, size}, {0, 0}, {size, 0}, {1, 1}, {4095, 2}, {5000, 60000}, {size - 1, 1}} {
				if mode == mmapio.ReadWrite && r[1] > 0 {
					store(t, f, r[0], "x")
					content[3+r[0]] = 'x'
				}
				if err := s.call(f, r[0], r[1]); err != nil {
					t.Errorf("%v: %s%v: %v", mode, s.op, r, err)
				}
			}
			for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, size + 1}, {size + 1, 0}, {size, 1}, {1, 1<<63 - 1}} {
				wantRangeError(t, s.call(f, r[0], r[1]),
					mmapio.RangeError{Op: s.op, Path: path, Off: r[0], Len: r[1], Size: size})
			}
		}
		mustClose(t, f)
		for _, s := range rangeSyncs {
			wantPathError(t, s.call(f, 0, 1), s.op, path, fs.ErrClosed)
		}
		same(t, "the file", onDisk(t, path), content)

		f = mustOpen(t, path, &mmapio.Options{Mode: mode, DropFD: true})
		for _, s := range rangeSyncs {
			if err := s.call(f, 0, 1); mode == mmapio.ReadWrite {
				wantPathError(t, err, s.op, path, errors.ErrUnsupported)
			} else if err != nil {
				t.Errorf("%v, DropFD: %s: %v", mode, s.op, err)
			}
		}
		mustClose(t, f)
	}
	f := opened(t)(mmapio.Anonymous(size, nil))
	for _, s := range rangeSyncs {
		if err := s.call(f, 1, 5000); err != nil {
			t.Errorf("anonymous: %s: %v", s.op, err)
		}
		wantRangeError(t, s.call(f, 0, size+1), mmapio.RangeError{Op: s.op, Path: "anonymous", Len: size + 1, Size: size})
	}
	mustClose(t, f)
}
