package pinner

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"
)

// Walk finds the regular files at and below the paths, in the order of the
// paths and sorted below each of them.
//
// A path that is a symbolic link is followed; links found inside directories
// are not, so there are no loops. A file that can be reached in several ways,
// by hard links too, counts once, under the name met first. Inside a directory
// what is not a regular file is passed over in silence; a path that is neither
// file nor directory is an error.
//
// Files are returned along with the error: it tells what is missing from them.
func Walk(ctx context.Context, paths []string) ([]File, error) {
	w := walker{ctx: ctx, seen: newSeen()}
	for _, path := range paths {
		if ctx.Err() != nil {
			break
		}
		w.root(path)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return w.files, errors.Join(w.errs...)
}

type walker struct {
	ctx   context.Context // lives as long as one call
	seen  *seen
	files []File
	errs  []error
}

func (w *walker) root(path string) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		w.fail(err)
	case info.IsDir():
		w.dir(path, false)
	case info.Mode().IsRegular():
		w.add(File{Path: path, Size: info.Size()}, info)
	default:
		w.fail(notRegular(path, info.Mode()))
	}
}

func (w *walker) dir(dir string, found bool) {
	if w.ctx.Err() != nil {
		return
	}
	// After an error the entries read until then still come.
	entries, err := os.ReadDir(dir)
	if err != nil && !(found && errors.Is(err, fs.ErrNotExist)) {
		w.fail(err)
	}
	for _, e := range entries {
		path := below(dir, e.Name())
		switch {
		case e.IsDir():
			w.dir(path, true)
		case e.Type().IsRegular():
			// Not e.Info: on Windows that is what the directory remembers.
			info, err := os.Lstat(path)
			switch f := (File{Path: path, Found: true}); {
			case f.gone(err):
			case err != nil:
				w.fail(err)
			default:
				f.Size = info.Size()
				w.add(f, info)
			}
		}
	}
}

// below is filepath.Join, which takes ".." away with what stands before it: if that
// is a link, another directory is meant.
func below(dir, name string) string {
	switch {
	case !strings.Contains(dir, ".."):
		return filepath.Join(dir, name)
	case os.IsPathSeparator(dir[len(dir)-1]):
		return dir + name
	}
	return dir + string(filepath.Separator) + name
}

func (w *walker) fail(err error) { w.errs = append(w.errs, err) }

func (w *walker) add(f File, info fs.FileInfo) {
	at, known := w.seen.find(info)
	if known {
		// Who has the name met first now may be another, and a new file may have
		// been given the number of one that is gone.
		now, err := os.Stat(w.files[at].Path)
		known = err != nil || os.SameFile(now, info)
	}
	if !known {
		w.seen.put(info, len(w.files))
		w.files = append(w.files, f)
		return
	}
	switch first := &w.files[at]; {
	case first.Path == f.Path:
		first.Found = first.Found && f.Found
	default:
		f.also, first.also = first.also, &f
	}
}

// seen knows files by what they are and not by their names, and where they stand.
type seen struct {
	ids map[[2]uint64]int
	// Where the system does not put an identity into the FileInfo, comparing
	// is expensive: os.SameFile opens the files. Only those that look alike
	// are compared.
	alike map[looks][]standing
}

type standing struct {
	info fs.FileInfo
	at   int
}

type looks struct {
	size int64
	time time.Time
}

func newSeen() *seen {
	return &seen{ids: map[[2]uint64]int{}, alike: map[looks][]standing{}}
}

// find returns where the file stands, if it was put.
func (s *seen) find(info fs.FileInfo) (at int, known bool) {
	if id, ok := identity(info); ok {
		at, known = s.ids[id]
		return at, known
	}
	return s.compare(info)
}

func (s *seen) put(info fs.FileInfo, at int) {
	if id, ok := identity(info); ok {
		s.ids[id] = at
		return
	}
	s.putAlike(info, at)
}

func looksOf(info fs.FileInfo) looks { return looks{info.Size(), info.ModTime()} }

func (s *seen) putAlike(info fs.FileInfo, at int) {
	key := looksOf(info)
	s.alike[key] = append(s.alike[key], standing{info, at})
}

func (s *seen) compare(info fs.FileInfo) (at int, known bool) {
	for _, other := range s.alike[looksOf(info)] {
		if os.SameFile(info, other.info) {
			return other.at, true
		}
	}
	return 0, false
}

// identity is the device and the inode.
func identity(info fs.FileInfo) (id [2]uint64, ok bool) { return numbers(info, "Dev", "Ino") }

// numbers are two fields of what stat(2) gave. Each Unix has them in a struct of the
// same name and in fields of other widths; looking them up by name does without a
// file for each.
func numbers(info fs.FileInfo, names ...string) (n [2]uint64, ok bool) {
	stat := reflect.Indirect(reflect.ValueOf(info.Sys()))
	if stat.Kind() != reflect.Struct {
		return n, false
	}
	for i, name := range names {
		switch field := stat.FieldByName(name); {
		case !field.IsValid():
			return n, false
		case field.CanUint():
			n[i] = field.Uint()
		case field.CanInt():
			n[i] = uint64(field.Int()) // none is negative, but for numbers that are only compared
		default:
			return n, false
		}
	}
	return n, true
}
