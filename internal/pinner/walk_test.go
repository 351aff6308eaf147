package pinner

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mmapio/mmapio/internal/prove"
)

// tree makes files of the given names, each with its name in it, and the
// directories that they need. A name that ends in a slash is a directory.
func tree(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if strings.HasSuffix(name, "/") {
			check(t, os.MkdirAll(path, 0o755))
			continue
		}
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(name), 0o644))
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// walk gives the names that Walk found, as they are below dir.
func walk(t *testing.T, dir string, paths ...string) (names []string, err error) {
	t.Helper()
	for i, path := range paths {
		paths[i] = filepath.Join(dir, filepath.FromSlash(path))
	}
	files, err := Walk(t.Context(), paths)
	for _, f := range files {
		name, relErr := filepath.Rel(dir, f.Path)
		check(t, relErr)
		names = append(names, filepath.ToSlash(name))
	}
	return names, err
}

func TestWalk(t *testing.T) {
	dir := prove.TempDir(t)
	tree(t, dir, "b/2", "b/1", "b/empty/", "b/a/deep/3", "a", "c")
	for _, tc := range []struct {
		name        string
		paths, want []string
	}{
		{"everything, sorted", []string{"."}, []string{"a", "b/1", "b/2", "b/a/deep/3", "c"}},
		{"in the order of the paths", []string{"c", "b", "a"}, []string{"c", "b/1", "b/2", "b/a/deep/3", "a"}},
		{"twice", []string{"a", "a"}, []string{"a"}},
		{"below what was walked", []string{"b", "b/a", "b/a/deep/3"}, []string{"b/1", "b/2", "b/a/deep/3"}},
		{"under the name met first", []string{"b/a/deep/3", "b"}, []string{"b/a/deep/3", "b/1", "b/2"}},
		{"nothing", []string{"b/empty"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := walk(t, dir, tc.paths...)
			if err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}

func TestWalkSizes(t *testing.T) {
	dir := prove.TempDir(t)
	check(t, os.WriteFile(filepath.Join(dir, "a"), make([]byte, pageSize+1), 0o644))
	check(t, os.WriteFile(filepath.Join(dir, "b"), nil, 0o644))
	files, err := Walk(t.Context(), []string{dir})
	check(t, err)
	if got, want := Sum(files), (Total{Files: 2, Bytes: pageSize + 1, Pages: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestWalkErrorsAreCollected(t *testing.T) {
	dir := prove.TempDir(t)
	tree(t, dir, "a", "b")
	got, err := walk(t, dir, "no1", "a", "no2", "b")
	if !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("got %q", got)
	}
	errs := Split(err)
	if len(errs) != 2 || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("want two errors, got %v", err)
	}
	for i, name := range []string{"no1", "no2"} {
		if !strings.Contains(errs[i].Error(), filepath.Join(dir, name)) {
			t.Errorf("%v does not name %s", errs[i], name)
		}
	}
}

func TestWalkCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if files, err := Walk(ctx, []string{prove.TempDir(t)}); !errors.Is(err, context.Canceled) || files != nil {
		t.Errorf("got %v, %v", files, err)
	}
}

func TestWalkHardLinks(t *testing.T) {
	dir := prove.TempDir(t)
	tree(t, dir, "a", "b/")
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b", "link")); err != nil {
		prove.Unable(t, "links cannot be made here: %v", err)
	}
	if got, err := walk(t, dir, "b", "a"); err != nil || !slices.Equal(got, []string{"b/link"}) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWalkSymlinks(t *testing.T) {
	prove.WineLacks(t, "symbolic links: it says that it made one, and there is none")
	dir := prove.TempDir(t)
	tree(t, dir, "real/file", "tree/own")
	for name, to := range map[string]string{
		"tree/to-file": "../real/file", "tree/to-dir": "../real", "tree/up": "..", "tree/gone": "nowhere",
		"to-dir": "real", "to-file": "real/file", "gone": "nowhere", "loop": "loop",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			prove.Unable(t, "links cannot be made here: %v", err)
		}
	}
	for _, tc := range []struct {
		path string
		want []string
		err  string
	}{
		{"tree", []string{"tree/own"}, ""},
		{"to-file", []string{"to-file"}, ""},
		{"to-dir", []string{"to-dir/file"}, ""},
		{"gone", nil, "gone"},
		{"loop", nil, "loop"},
	} {
		got, err := walk(t, dir, tc.path)
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %q, want %q", tc.path, got, tc.want)
		}
		if (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: got error %v", tc.path, err)
		}
	}
}

// Where the system puts no identity into a FileInfo, files are compared.
func TestSeenWithoutIdentity(t *testing.T) {
	dir := prove.TempDir(t)
	tree(t, dir, "a", "b")
	s := newSeen()
	for _, tc := range []struct {
		name   string
		before bool
	}{{"a", false}, {"b", false}, {"a", true}, {"b", true}} {
		info, err := os.Stat(filepath.Join(dir, tc.name))
		check(t, err)
		at, got := s.compare(info)
		if got != tc.before || got && at != int(tc.name[0]) {
			t.Errorf("%s: got %d, %v", tc.name, at, got)
		}
		if !got {
			s.putAlike(info, int(tc.name[0]))
		}
	}
}

func TestSplit(t *testing.T) {
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	got := Split(errors.Join(errors.Join(a, b), nil, c))
	if !slices.Equal(got, []error{a, b, c}) {
		t.Errorf("got %v", got)
	}
	if got := Split(nil); got != nil {
		t.Errorf("nil: got %v", got)
	}
}
