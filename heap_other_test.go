//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package mmapio_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/sys"
)

// TestNoStores: where no file can be mapped to be stored to, an open that would
// do it leaves the file as it is, and makes none.
func TestNoStores(t *testing.T) {
	path, content := patternFile(t, 100)
	absent := filepath.Join(tempDir(t), "absent")
	rw := mmapio.ReadWrite
	for name, o := range map[string]mmapio.Options{
		"Create":              {Mode: rw, Create: true, Truncate: true, MinSize: 10},
		"Truncate, MinSize":   {Mode: rw, Truncate: true, MinSize: 10},
		"MinSize":             {Mode: rw, MinSize: 200},
		"MinSize, Sparse":     {Mode: rw, MinSize: 200, Sparse: true},
		"what is there":       {Mode: rw},
		"a part of it":        {Mode: rw, Offset: 10, Length: 5},
		"with its own policy": {Mode: rw, Sync: mmapio.SyncPolicy{Writes: 1}},
		"and no descriptor":   {Mode: rw, DropFD: true},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := mmapio.OpenFile(path, &o)
			wantOptionError(t, err, "open", path, "Mode", errors.ErrUnsupported)
			file, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			o.Create = false
			_, err = mmapio.Map(file, &o)
			wantOptionError(t, err, "map", path, "Mode", errors.ErrUnsupported)
			same(t, "the file", onDisk(t, path), content)
		})
	}
	_, err := mmapio.Create(absent, 10)
	wantOptionError(t, err, "open", absent, "Mode", errors.ErrUnsupported)
	mustNotExist(t, absent)
}

// A file of which nothing is mapped may be opened in every mode, and emptied.
func TestNoStoresToNothing(t *testing.T) {
	path, _ := patternFile(t, 100)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Offset: 100})
	mustClose(t, f)
	mustClose(t, opened(t)(mmapio.Create(path, 0)))
	same(t, "the file", onDisk(t, path), nil)
	f = mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	if _, err := f.ReadAt(make([]byte, 1), 0); err != io.EOF { //nolint:errorlint // io.ReaderAt
		t.Error(err)
	}
}

// TestNoHeap: what the heap cannot hold is an error.
func TestNoHeap(t *testing.T) {
	if runtime.GOARCH != "wasm" {
		t.Skip("no file is too large for the heap of " + runtime.GOARCH)
	}
	path, _ := patternFile(t, 0)
	if err := os.Truncate(path, 5<<30); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []mmapio.Mode{mmapio.ReadOnly, mmapio.CopyOnWrite} {
		_, err := mmapio.OpenFile(path, &mmapio.Options{Mode: mode})
		wantPathError(t, err, "open", path, sys.ErrNoMemory)
	}
	_, err := mmapio.Anonymous(5<<30, nil)
	wantPathError(t, err, "anonymous", "anonymous", sys.ErrNoMemory)

	f := opened(t)(mmapio.Anonymous(100, nil))
	store(t, f, 0, "kept")
	wantPathError(t, f.Resize(5<<30), "resize", "anonymous", sys.ErrNoMemory)
	same(t, "after a Resize that failed", contentOf(t, f)[:4], []byte("kept"))
}
