package pinner

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/sys"
)

func status(t *testing.T, path string) Residency {
	t.Helper()
	all, err := Status(t.Context(), []File{{Path: path}})
	check(t, err)
	if len(all) != 1 || all[0].Path != path {
		t.Fatalf("got %+v", all)
	}
	return all[0]
}

// needKnown skips where the kernel never says what is in RAM.
func needKnown(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "probe")
	check(t, os.WriteFile(path, []byte("x"), 0o600))
	defer os.Remove(path) //nolint:errcheck // goes with the directory
	f, err := os.Open(path)
	check(t, err)
	defer f.Close() //nolint:errcheck // only read from
	if counts, err := sys.Resident(f, 0, 1); counts.Resident == sys.Unknown {
		prove.Unable(t, "the kernel does not tell what is in RAM of %s (%v)", dir, err)
	}
}

// What status says is what another process is told by another route.
func TestStatus(t *testing.T) {
	dir := prove.DiskDir(t)
	needKnown(t, dir)
	path := prove.NewFile(t, dir, "file", 1<<20+1)
	prove.DropCaches(t)
	pages := 1<<20/pageSize + 1
	if got := status(t, path); got != (Residency{File: File{Path: path, Size: 1<<20 + 1}, Resident: 0}) {
		t.Errorf("dropped: got %+v", got)
	}
	f, err := os.Open(path)
	check(t, err)
	_, err = f.ReadAt(make([]byte, 4096), 1<<19)
	check(t, errors.Join(err, f.Close()))
	_, resident := prove.Resident(t, path)
	if got := status(t, path); got.Resident != int64(resident) || resident == 0 {
		t.Errorf("one page read: got %+v, want %d resident", got, resident)
	}
	_, err = os.ReadFile(path)
	check(t, err)
	if got := status(t, path); got.Resident != pages {
		t.Errorf("all read: got %+v, want %d resident", got, pages)
	}
}

func TestStatusEmpty(t *testing.T) {
	dir := t.TempDir()
	tree(t, dir, "full")
	path := filepath.Join(dir, "empty")
	check(t, os.WriteFile(path, nil, 0o600))
	if got := status(t, path); got != (Residency{File: File{Path: path, Size: 0}, Resident: 0}) {
		t.Errorf("got %+v", got)
	}
}

// Thousands of files with some that are gone: the rest is there, in order.
func TestStatusManyAndMissing(t *testing.T) {
	dir := t.TempDir()
	tree(t, dir, "a", "b")
	var files []File
	for i := range 3000 {
		name := filepath.Join(dir, string("ab-"[i%3]))
		files = append(files, File{Path: name})
	}
	all, err := Status(t.Context(), files)
	if len(all) != 2000 || len(Split(err)) != 1000 {
		t.Fatalf("got %d and %d errors", len(all), len(Split(err)))
	}
	for i, r := range all {
		if want := filepath.Join(dir, string("ab"[i%2])); r.Path != want || r.Size != 1 {
			t.Fatalf("%d: got %+v, want %s", i, r, want)
		}
	}
}

// On overlayfs cachestat says 0 of every file, and mincore the truth.
func TestStatusOverlay(t *testing.T) {
	prove.Need(t, prove.Root)
	dir := prove.DiskDir(t)
	content := bytes.Repeat([]byte("x"), 64<<10)
	tree(t, dir, "lower/", "upper/", "work/", "merged/")
	check(t, os.WriteFile(filepath.Join(dir, "lower", "file"), content, 0o600))
	merged := filepath.Join(dir, "merged")
	options := "lowerdir=" + dir + "/lower,upperdir=" + dir + "/upper,workdir=" + dir + "/work"
	if err := syscall.Mount("overlay", merged, "overlay", 0, options); err != nil {
		prove.Unable(t, "no overlayfs here: %v", err)
	}
	t.Cleanup(func() { check(t, syscall.Unmount(merged, 0)) })
	path := filepath.Join(merged, "file")
	_, err := os.ReadFile(path)
	check(t, err)
	if got := status(t, path); got != (Residency{File: File{Path: path, Size: 64 << 10}, Resident: 64 << 10 / pageSize}) {
		t.Errorf("got %+v", got)
	}
	prove.DropCaches(t)
	if got := status(t, path); got != (Residency{File: File{Path: path, Size: 64 << 10}, Resident: 0}) {
		t.Errorf("dropped: got %+v", got)
	}
}

func TestSumResident(t *testing.T) {
	if got := SumResident([]Residency{{Resident: 1}, {Resident: Unknown}, {Resident: 2}}); got != Unknown {
		t.Errorf("got %d", got)
	}
	if got := SumResident([]Residency{{Resident: 1}, {Resident: 2}}); got != 3 {
		t.Errorf("got %d", got)
	}
}
