// Package pinner is the engine of the mmapio command: it finds files, says
// what of them is in RAM, says whether they could be locked there, and locks
// them.
//
// It prints nothing, never ends the process and keeps no state of its own.
// Every function gives up when its context ends. Errors name the file that
// they are about; where there are several they come joined, see [Split].
package pinner

import (
	"errors"
	"io/fs"
	"os"

	"github.com/mmapio/mmapio/internal/sys"
)

// A File is a regular file that Walk found.
type File struct {
	Path string
	Size int64

	// Found is set for what was found in a directory. If it is gone by the time
	// that it is looked at, it is no longer what was asked for, and passed over.
	Found bool

	also *File // the same file by another name, should this one be gone
}

// gone reports whether an error about the file says that it has left a directory.
func (f File) gone(err error) bool { return f.Found && errors.Is(err, fs.ErrNotExist) }

// byAnyName calls try with the file's names until one is not gone, and returns that
// one, or the last.
func (f File) byAnyName(try func(f File) error) (File, error) {
	for {
		err := try(f)
		if f.also == nil || !f.gone(err) {
			return f, err
		}
		f = *f.also
	}
}

// Pages is how many pages the file fills, the last one perhaps in part.
func (f File) Pages() int64 { return pages(f.Size) }

// pageSize never changes while a process runs.
var pageSize = int64(sys.PageSize())

// pages rounds up without overflow.
func pages(size int64) int64 {
	n := size / pageSize
	if size%pageSize != 0 {
		n++
	}
	return n
}

// Total is what a set of files amounts to.
type Total struct {
	Files int
	Bytes int64 // exact, up to most
	Pages int64
}

func (t *Total) add(size int64) {
	t.Files++
	t.Bytes = plus(t.Bytes, size)
	t.Pages = plus(t.Pages, pages(size))
}

// most is where sums and products of what is not negative stay: sparse files may
// be as long as an int64 can say. It is no limit, see NoLimit.
const most = NoLimit - 1

func plus(a, b int64) int64 {
	if b > most-min(a, most) {
		return most
	}
	return a + b
}

func times(a, b int64) int64 {
	if b > 0 && a > most/b {
		return most
	}
	return a * b
}

// Sum adds files up.
func Sum(files []File) (t Total) {
	for _, f := range files {
		t.add(f.Size)
	}
	return t
}

// Split takes joined errors apart, so that each can be shown on its own.
func Split(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // only the outermost
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, Split(e)...)
	}
	return all
}

// open opens a file for questions only. What was a regular file a moment ago
// may be a FIFO by now: the flags keep that from blocking.
func open(path string) (*os.File, fs.FileInfo, error) {
	f, err := sys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notRegular(path, info.Mode())
	}
	if err != nil {
		_ = f.Close() // only read from
		return nil, nil, err
	}
	return f, info, nil
}

func pathError(op, path string, err error) error {
	return &fs.PathError{Op: op, Path: path, Err: err}
}

func notRegular(path string, mode fs.FileMode) error {
	return pathError("open", path, errors.New("is "+kind(mode)+", not a regular file"))
}

func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	default:
		return "something else"
	}
}
