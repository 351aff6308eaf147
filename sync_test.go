package mmapio_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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

// TestEntryAboveLink: ".." after a link leads to where the link's directory lies, and
// that is where a new file has its entry.
func TestEntryAboveLink(t *testing.T) {
	needMaps(t)
	prove.WineLacks(t, "symbolic links: it says that it made one, and there is none")
	dir := prove.TempDir(t)
	for _, d := range []string{"here", "there", "there/deep"} {
		check(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	if err := os.Symlink(filepath.Join("..", "there", "deep"), filepath.Join(dir, "here", "link")); err != nil {
		prove.Unable(t, "links cannot be made here: %v", err)
	}
	t.Chdir(filepath.Join(dir, "here"))
	for _, name := range []string{"link/../f", dir + "/here/link/../g"} {
		f := opened(t)(mmapio.Create(name, 1))
		info, err := f.Stat()
		check(t, err)
		if entry, err := os.Stat(mmapio.EntryIn(f) + "/" + filepath.Base(name)); err != nil || !os.SameFile(info, entry) {
			t.Errorf("%s: not in %s: %v", name, mmapio.EntryIn(f), err)
		}
		mustClose(t, f)
	}
}
