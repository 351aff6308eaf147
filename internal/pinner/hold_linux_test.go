package pinner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mmapio/mmapio/internal/limits"
	"github.com/mmapio/mmapio/internal/prove"
)

// assertHeld asks smaps which files below dir are mapped, locked and wholly
// present.
func assertHeld(t *testing.T, dir string, want ...string) {
	t.Helper()
	var held []string
	for _, v := range prove.MappingsOf(t, 0, dir) {
		if !v.IsLocked() || v.Rss != v.Size() {
			t.Errorf("not held: %v", v)
		}
		held = append(held, filepath.Base(v.Path))
	}
	slices.Sort(held)
	if !slices.Equal(held, want) {
		t.Errorf("held are %q, want %q", held, want)
	}
}

// newFiles makes small files that fit into any usual limit.
func newFiles(t *testing.T, dir string, names ...string) (files []File) {
	t.Helper()
	for i, name := range names {
		size := int64(i)*pageSize + 1
		files = append(files, File{Path: prove.NewFile(t, dir, name, size), Size: size})
	}
	return files
}

func TestHold(t *testing.T) {
	prove.Need(t, prove.Verify)
	prove.LeakCheck(t)
	dir := t.TempDir()
	files := newFiles(t, dir, "a", "b", "c")
	check(t, os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600))
	files = append(files, File{Path: filepath.Join(dir, "empty")})
	descriptors := len(prove.FDs(t))

	h, err := Hold(t.Context(), files)
	check(t, err)
	assertHeld(t, dir, "a", "b", "c")
	for i, f := range h.Files {
		if want := (Locked{files[i], files[i].Size}); f != want {
			t.Errorf("got %+v, want %+v", f, want)
		}
	}
	total, confirmed := h.Total()
	if want := (Total{4, 3*pageSize + 3, 6}); total != want || confirmed != total.Bytes {
		t.Errorf("total is %+v, %d confirmed", total, confirmed)
	}
	// The library keeps two of its own, for /proc/self.
	if now := prove.FDs(t); len(now) > descriptors+2 {
		t.Errorf("descriptors are kept: %q", now)
	}
	check(t, h.Release())
	assertHeld(t, dir)
	check(t, h.Release())
}

// A file that cannot be locked leaves nothing locked, also of those before it.
func TestHoldAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	files := newFiles(t, dir, "a", "b")
	const unmappable = "/sys/kernel/mm/transparent_hugepage/enabled"
	for _, tc := range []struct{ path, want string }{
		{filepath.Join(dir, "gone"), "gone"},
		{dir, "is a directory"},
		{unmappable, unmappable},
	} {
		if info, err := os.Stat(tc.path); tc.path == unmappable && (err != nil || info.Size() == 0) {
			continue
		}
		h, err := Hold(t.Context(), append(slices.Clone(files), File{Path: tc.path, Size: 1}))
		if h != nil || err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, %v", tc.path, h, err)
		}
		assertHeld(t, dir)
	}
}

func TestHoldCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h, err := Hold(ctx, nil)
	if h != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, %v", h, err)
	}
}

// Past half of vm.max_map_count nothing is tried: at the whole of it the Go
// runtime dies.
func TestHoldTooMany(t *testing.T) {
	_, limit, err := limits.MapCount()
	if err != nil || limit > 1<<18 {
		prove.Unable(t, "vm.max_map_count is %d (%v)", limit, err)
	}
	file := newFiles(t, t.TempDir(), "a")[0]
	h, err := Hold(t.Context(), slices.Repeat([]File{file}, int(limit/2)))
	var refused *RefusedError
	if h != nil || !errors.As(err, &refused) || refused.Name != "vm.max_map_count" {
		t.Errorf("got %v, %v", h, err)
	}
}

var holdChild = prove.Register("hold", func(args []string) int {
	var files []File
	for _, name := range args {
		files = append(files, File{Path: name})
	}
	_, err := Hold(context.Background(), files)
	fmt.Println(err)
	return 0
})

// What may not be read is an error for each file, before any is locked.
func TestHoldUnreadable(t *testing.T) {
	dir := prove.PublicDir(t)
	files := newFiles(t, dir, "a", "b", "c")
	for _, f := range files[1:] {
		check(t, os.Chmod(f.Path, 0))
	}
	res := holdChild.Run(t, prove.AsNobody(), prove.Args(files[0].Path, files[1].Path, files[2].Path))
	want := fmt.Sprintf("open %s: permission denied\nopen %s: permission denied\n", files[1].Path, files[2].Path)
	if res.Code != 0 || res.Output != want {
		t.Errorf("got %v, want %s", res, want)
	}
}

// TestGoneMeanwhile: what leaves a directory after it was found is not asked for
// any more, what was named is.
func TestGoneMeanwhile(t *testing.T) {
	prove.Need(t, prove.Verify)
	dir := t.TempDir()
	stays := newFiles(t, dir, "a", "b", "gone")[:2]
	found, err := Walk(t.Context(), []string{dir})
	check(t, err)
	gone := filepath.Join(dir, "gone")
	check(t, os.Remove(gone))

	all, err := Status(t.Context(), found)
	check(t, err)
	r, err := Check(t.Context(), found)
	check(t, err)
	h, err := Hold(t.Context(), found)
	check(t, err)
	if len(all) != len(stays) || r.Files != len(stays) || len(h.Files) != len(stays) {
		t.Errorf("%d have a status, %d are checked, %d held, want %d", len(all), r.Files, len(h.Files), len(stays))
	}
	assertHeld(t, dir, "a", "b")
	check(t, h.Release())

	named := append(stays, File{Path: gone, Size: 1})
	_, err = Status(t.Context(), named)
	h, errHold := Hold(t.Context(), named)
	for _, err := range []error{err, errHold} {
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), gone) {
			t.Errorf("named: %v", err)
		}
	}
	if h != nil {
		t.Error("held all the same")
	}
}

// A file that is there by one of its names is not gone, and one that was named is
// missed, however it was met first.
func TestOtherNames(t *testing.T) {
	prove.Need(t, prove.Verify)
	dir := t.TempDir()
	newFiles(t, dir, "first", "named", "stays")
	first, second, named := filepath.Join(dir, "first"), filepath.Join(dir, "second"), filepath.Join(dir, "named")
	check(t, os.Link(first, second))
	linked, err := Walk(t.Context(), []string{dir})
	check(t, err)
	asked, err := Walk(t.Context(), []string{dir, named})
	check(t, err)
	check(t, os.Remove(first))
	check(t, os.Remove(named))

	all, err := Status(t.Context(), linked)
	check(t, err)
	h, err := Hold(t.Context(), linked)
	check(t, err)
	assertHeld(t, dir, "second", "stays")
	if len(all) != 2 || all[0].Path != second || len(h.Files) != 2 || h.Files[0].Path != second {
		t.Errorf("status of %v, held %v", all, h.Files)
	}
	check(t, h.Release())

	_, err = Status(t.Context(), asked)
	_, errHold := Hold(t.Context(), asked)
	for _, err := range []error{err, errHold} {
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), named) {
			t.Errorf("named: %v", err)
		}
	}
}

// What has a number that another file had when it was met is a file of its own.
func TestNumberOfAnother(t *testing.T) {
	dir := t.TempDir()
	newFiles(t, dir, "a", "new")
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	w := walker{ctx: t.Context(), seen: newSeen()}
	w.root(a)
	check(t, os.Rename(a, b))
	check(t, os.Rename(filepath.Join(dir, "new"), a))
	w.root(b)
	w.root(b)
	w.root(a)
	if len(w.files) != 3 || w.files[1].Path != b || w.files[2].Path != a || len(w.errs) > 0 {
		t.Errorf("found %v, %v", w.files, w.errs)
	}
}

// On a tmpfs a hole takes memory when it is read. What does not fit is refused
// before it fills the tmpfs.
func TestHolesInMemory(t *testing.T) {
	prove.Need(t, prove.Verify)
	dir := prove.SmallTmpfs(t, 4*mib)
	small, large := filepath.Join(dir, "small"), filepath.Join(dir, "large")
	for path, size := range map[string]int64{small: mib, large: 8 * mib} {
		check(t, os.WriteFile(path, make([]byte, mib), 0o600))
		check(t, os.Truncate(path, size))
	}
	files, err := Walk(t.Context(), []string{small, large})
	check(t, err)
	h, err := Hold(t.Context(), files)
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Path != large || refused.Need != 7*mib || refused.Have != 2*mib {
		t.Errorf("held %v: %v", h, err)
	}
	var fs syscall.Statfs_t
	check(t, syscall.Statfs(dir, &fs))
	if left := int64(fs.Bavail) * int64(fs.Bsize); left != 2*mib { //nolint:unconvert // narrower elsewhere
		t.Errorf("%d bytes are left", left)
	}
	check(t, os.Truncate(large, 3*mib))
	files, err = Walk(t.Context(), []string{small, large})
	check(t, err)
	h, err = Hold(t.Context(), files)
	check(t, err)
	check(t, h.Release())
}
