package mmapio_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mmapio/mmapio"
)

// TestNames opens files by names that not every call takes: more characters
// than the 260 that Windows' older calls know of, and such as lie outside of
// ASCII and of one UTF-16 word. A name that is relative must do, too.
func TestNames(t *testing.T) {
	needMaps(t)
	for what, name := range map[string]string{
		"long":    strings.Repeat(strings.Repeat("d", 90)+string(filepath.Separator), 4) + strings.Repeat("f", 200),
		"unicode": filepath.Join("größe ☃", "日本語 𝔘𝔫𝔦🗺.bin"),
		"blanks":  filepath.Join(" a b", "c  d.e"),
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(tempDir(t), name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			f := opened(t)(mmapio.Create(path, pageSize))
			store(t, f, 1, "here")
			mustResize(t, f, 3*pageSize)
			mustResize(t, f, pageSize+1)
			if err := f.Sync(); err != nil {
				t.Error(err)
			}
			if f.Name() != path {
				t.Errorf("Name() = %q", f.Name())
			}
			mustClose(t, f)
			want := resized([]byte("\x00here"), pageSize+1)
			same(t, "the file", onDisk(t, path), want)
			if what == "long" {
				return // no directory to be in has such a name
			}
			t.Chdir(filepath.Dir(path))
			defer t.Chdir(os.TempDir()) // Windows does not remove where somebody is
			same(t, "by its base name", contentOf(t, mustOpen(t, filepath.Base(path), nil)), want)
		})
	}
}

// TestRemoveWhileMapped: whether a mapped file can be removed is the system's
// to say. What is mapped stays, and the name can be had again afterwards.
func TestRemoveWhileMapped(t *testing.T) {
	needMaps(t)
	for _, mode := range allModes {
		path, content := patternFile(t, 2*pageSize+5)
		f := mustOpen(t, path, &mmapio.Options{Mode: mode, DropFD: true})
		r := mustRegion(t, f, 3, 2*pageSize)
		first := os.Remove(path)
		same(t, "the File", contentOf(t, f), content)
		mustClose(t, f)
		second := os.Remove(path)
		t.Logf("%v: Remove while the File is open: %v; while a Region is: %v", mode, first, second)
		same(t, "the Region", r.Bytes(), content[3:][:2*pageSize])
		r.Release()
		if err := os.Remove(path); first != nil && second != nil && err != nil {
			t.Errorf("%v: it cannot be removed when nothing is mapped: %v", mode, err)
		}
		again := opened(t)(mmapio.Create(path, 7))
		if !bytes.Equal(contentOf(t, again), make([]byte, 7)) {
			t.Errorf("%v: a new file of that name has the old bytes", mode)
		}
	}
}
