package mmapio_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// offsets lie round pages and round the 64 KiB in which Windows maps.
func offsets() []int64 {
	return []int64{0, 1, pageSize - 1, pageSize, pageSize + 1, 65535, 65536, 65537}
}

// TestModes says for each mode, from every kind of offset, who sees what is
// stored: this File, another one, the file.
func TestModes(t *testing.T) {
	needMaps(t)
	prove.LeakCheck(t)
	for _, offset := range offsets() {
		for _, length := range []int64{0, pageSize + 7} {
			t.Run(fmt.Sprintf("offset=%d/length=%d", offset, length), func(t *testing.T) {
				modes(t, offset, length)
			})
		}
	}
}

func modes(t *testing.T, offset, length int64) {
	path, file := patternFile(t, 65537+3*pageSize+5)
	end := int64(len(file))
	if length > 0 {
		end = offset + length
	}
	open := func(m mmapio.Mode) *mmapio.File {
		f := mustOpen(t, path, &mmapio.Options{Mode: m, Offset: offset, Length: length})
		if f.Size() != end-offset || f.Mode() != m || f.Name() != path || f.PageSize() != int(pageSize) {
			t.Fatalf("Size %d, Mode %v, Name %q, PageSize %d", f.Size(), f.Mode(), f.Name(), f.PageSize())
		}
		same(t, m.String(), contentOf(t, f), file[offset:end])
		return f
	}
	ro, rw, rw2, cow, cow2 := open(mmapio.ReadOnly), open(mmapio.ReadWrite), open(mmapio.ReadWrite),
		open(mmapio.CopyOnWrite), open(mmapio.CopyOnWrite)
	whole := mustOpen(t, path, nil)
	private := bytes.Clone(file[offset:end])

	// What a ReadWrite File stores, everybody sees who has not got a copy of
	// that page. The first, the last and the bytes round the first page edge
	// of the file show that ranges are exact.
	edge := min((offset/pageSize+1)*pageSize-offset, end-offset-1)
	change := func(f *mmapio.File, off int64, s string, model []byte) {
		t.Helper()
		store(t, f, off, s)
		copy(model[off:], s)
	}
	change(rw, 0, "A", file[offset:end])
	change(rw2, edge-1, "BC", file[offset:end])
	change(rw, end-offset-1, "D", file[offset:end])
	if err := rw2.Update(edge, 1, func(b []byte) error { b[0] = 'E'; file[offset+edge] = 'E'; return nil }); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*mmapio.File{ro, rw, rw2} {
		same(t, f.Mode().String()+" after stores of others", contentOf(t, f), file[offset:end])
	}
	same(t, "the whole file, mapped", contentOf(t, whole), file)
	same(t, "the file", onDisk(t, path), file)

	// What a CopyOnWrite File stores is its own.
	copy(private, file[offset:end])
	change(cow, 0, "one", private)
	change(cow, edge-1, "xy", private)
	change(cow, end-offset-1, "z", private)
	if err := cow.Update(2, 1, func(b []byte) error { b[0] = 'u'; private[2] = 'u'; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := cow.Sync(); err != nil {
		t.Error(err)
	}
	same(t, "CopyOnWrite after its own stores", contentOf(t, cow), private)
	for _, f := range []*mmapio.File{ro, rw, rw2, cow2} {
		same(t, f.Mode().String()+" after private stores of another", contentOf(t, f), file[offset:end])
	}
	mustClose(t, cow)
	same(t, "the file after private stores", onDisk(t, path), file)

	if _, err := ro.WriteAt([]byte{1}, 0); !errors.Is(err, mmapio.ErrReadOnly) {
		t.Errorf("WriteAt of a ReadOnly File: %v", err)
	}
	for _, f := range []*mmapio.File{ro, rw, rw2, cow2, whole} {
		mustClose(t, f)
	}
	same(t, "the file at the end", onDisk(t, path), file)
}

// TestZeroLength: nothing is no special case. (TestBounds gives all methods
// with a range all ranges of it.)
func TestZeroLength(t *testing.T) {
	prove.LeakCheck(t)
	empty, _ := patternFile(t, 0)
	full, content := patternFile(t, pageSize+1)
	created := filepath.Join(tempDir(t), "created")
	cases := map[string]func() (*mmapio.File, error){
		"Open": func() (*mmapio.File, error) { return mmapio.Open(empty) },
		"Offset at the end": func() (*mmapio.File, error) {
			return mmapio.OpenFile(full, &mmapio.Options{Offset: pageSize + 1})
		},
		"Populate at the end": func() (*mmapio.File, error) {
			return mmapio.OpenFile(full, &mmapio.Options{Offset: pageSize + 1, Populate: true})
		},
		"CopyOnWrite": func() (*mmapio.File, error) {
			return mmapio.OpenFile(empty, &mmapio.Options{Mode: mmapio.CopyOnWrite, Populate: true})
		},
	}
	if maps {
		cases["Create"] = func() (*mmapio.File, error) { return mmapio.Create(created, 0) }
		cases["ReadWrite"] = func() (*mmapio.File, error) {
			return mmapio.OpenFile(empty, &mmapio.Options{Mode: mmapio.ReadWrite, Populate: true})
		}
		cases["Anonymous"] = func() (*mmapio.File, error) { return mmapio.Anonymous(0, &mmapio.Options{Populate: true}) }
	}
	for name, open := range cases {
		t.Run(name, func(t *testing.T) {
			f := opened(t)(open())
			n, err := f.ReadAt(make([]byte, 1), 0)
			if f.Size() != 0 || n != 0 || err != io.EOF { //nolint:errorlint // io.ReaderAt
				t.Errorf("Size %d, ReadAt: %d, %v", f.Size(), n, err)
			}
			called := false
			if err := f.View(0, 0, func(b []byte) error { called = b != nil && len(b) == 0; return nil }); err != nil || !called {
				t.Errorf("View(0, 0): %v, called with an empty slice: %v", err, called)
			}
			if _, err := f.WriteAt(nil, 0); f.Mode() != mmapio.ReadOnly && err != nil {
				t.Errorf("WriteAt of nothing: %v", err)
			}
			for what, err := range map[string]error{
				"LockAll": f.LockAll(), "VerifyLocked": f.VerifyLocked(0, 0), "UnlockAll": f.UnlockAll(), "Sync": f.Sync(),
			} {
				if err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
			if f.LockedBytes() != 0 || len(f.LockedRanges()) != 0 {
				t.Errorf("locked: %v", f.LockedRanges())
			}
			mustClose(t, f)
		})
	}
	same(t, "the file", onDisk(t, full), content)
	if maps && sizeOnDisk(t, created) != 0 {
		t.Error("Create(…, 0) made a file with something in it")
	}
}

// TestCreate: Create makes a file, and empties one that exists.
func TestCreate(t *testing.T) {
	needMaps(t)
	prove.LeakCheck(t)
	path, _ := patternFile(t, 3*pageSize)
	for _, size := range []int64{pageSize + 1, 5, 0, 2 * pageSize} {
		for _, name := range []string{path, filepath.Join(tempDir(t), "new")} {
			f := opened(t)(mmapio.Create(name, size))
			if f.Mode() != mmapio.ReadWrite || f.Size() != size {
				t.Errorf("Create(…, %d): %v, %d bytes", size, f.Mode(), f.Size())
			}
			same(t, "a created file", contentOf(t, f), make([]byte, size))
			if size > 0 {
				store(t, f, size-1, "!")
			}
			mustClose(t, f)
			if got := onDisk(t, name); int64(len(got)) != size || size > 0 && got[size-1] != '!' {
				t.Errorf("%d bytes on the disk, want %d", len(got), size)
			}
		}
	}
	_, err := mmapio.Create(path, -1)
	wantOptionError(t, err, "open", path, "MinSize", fs.ErrInvalid)
	if n := sizeOnDisk(t, path); n != 2*pageSize {
		t.Errorf("a refused Create made the file %d bytes long", n)
	}
}

// TestCreateRace: of many that create a file at the same time and want to be
// the only one, one is; all others are told that it exists. Without Exclusive
// all get the same file.
func TestCreateRace(t *testing.T) {
	needMaps(t)
	prove.LeakCheck(t)
	for _, exclusive := range []bool{true, false} {
		path := filepath.Join(tempDir(t), "file")
		var made atomic.Int64
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				f, err := mmapio.OpenFile(path, &mmapio.Options{
					Mode: mmapio.ReadWrite, Create: true, Exclusive: exclusive, MinSize: 8,
				})
				switch {
				case err == nil:
					made.Add(1)
					f.WriteAt([]byte("x"), made.Load()%8) //nolint:errcheck // the count is what matters
					f.Close()
				case !exclusive || !errors.Is(err, fs.ErrExist):
					t.Errorf("exclusive %v: %v", exclusive, err)
				}
			})
		}
		wg.Wait()
		if want := map[bool]int64{true: 1, false: 16}[exclusive]; made.Load() != want {
			t.Errorf("exclusive %v: %d opens succeeded, want %d", exclusive, made.Load(), want)
		}
		if n := sizeOnDisk(t, path); n != 8 {
			t.Errorf("the file has %d bytes", n)
		}
	}
}

// TestNoSuchPlace: errors about names, before anything is made.
func TestNoSuchPlace(t *testing.T) {
	prove.LeakCheck(t)
	dir := tempDir(t)
	missing := filepath.Join(dir, "missing")
	below := filepath.Join(missing, "file")
	rw := mmapio.Options{Mode: mmapio.ReadWrite}
	create := mmapio.Options{Mode: mmapio.ReadWrite, Create: true}
	for _, tt := range []struct {
		name string
		o    *mmapio.Options
		is   error
	}{
		{missing, nil, fs.ErrNotExist},
		{missing, &rw, fs.ErrNotExist},
		{missing, &mmapio.Options{Mode: mmapio.ReadWrite, Truncate: true, MinSize: 5}, fs.ErrNotExist},
		{below, &create, fs.ErrNotExist},
		{"", nil, errNoName},
		{dir, nil, fs.ErrInvalid},
		{dir, &rw, fs.ErrInvalid},
		{dir, &create, fs.ErrInvalid},
		{os.DevNull, nil, fs.ErrInvalid},
		{os.DevNull, &create, fs.ErrInvalid},
		{dir, &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, Exclusive: true}, fs.ErrExist},
	} {
		_, err := mmapio.OpenFile(tt.name, tt.o)
		wantPathError(t, err, "open", tt.name, tt.is)
	}
	mustNotExist(t, missing)
}

// TestLinks: a link is followed to what it names, also to what is not there yet.
func TestLinks(t *testing.T) {
	needMaps(t)
	prove.LeakCheck(t)
	prove.WineLacks(t, "symbolic links: it says that it made one, and there is none")
	dir := tempDir(t)
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.Symlink("target", link); err != nil {
		prove.Unable(t, "no symbolic links here: %v", err)
	}
	defer os.Remove(link)
	defer os.Remove(target)
	o := mmapio.Options{Mode: mmapio.ReadWrite, MinSize: 5}
	_, err := mmapio.OpenFile(link, &o)
	wantPathError(t, err, "open", link, fs.ErrNotExist)
	mustNotExist(t, target)
	o.Create, o.Exclusive = true, true
	_, err = mmapio.OpenFile(link, &o)
	wantPathError(t, err, "open", link, fs.ErrExist)
	mustNotExist(t, target)
	o.Exclusive, o.Length = false, 6
	_, err = mmapio.OpenFile(link, &o) // finds out too late that the file is too small
	wantRangeError(t, err, mmapio.RangeError{Op: "open", Path: link, Len: 6, Size: 5})
	mustNotExist(t, target)
	o.Length = 0
	f := mustOpen(t, link, &o)
	store(t, f, 0, "there")
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	mustClose(t, f)
	if got := onDisk(t, target); string(got) != "there" {
		t.Errorf("the link's file has %q", got)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is %v now, %v", info, err)
	}
}

// TestMap: the caller may close its file at once, and finds its offset where it
// was.
func TestMap(t *testing.T) {
	prove.LeakCheck(t)
	path, content := patternFile(t, 2*pageSize)
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, mode := range allModes {
		if mode == mmapio.ReadWrite && !maps {
			continue
		}
		flag := map[mmapio.Mode]int{mmapio.ReadWrite: os.O_RDWR, mmapio.CopyOnWrite: os.O_RDWR | os.O_APPEND}[mode]
		byName, err1 := os.OpenFile(path, flag, 0)
		inRoot, err2 := root.OpenFile("file", flag, 0)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		for _, file := range []*os.File{byName, inRoot} {
			if _, err := file.Seek(11, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			f := opened(t)(mmapio.Map(file, &mmapio.Options{Mode: mode, Offset: 3}))
			if at, err := file.Seek(0, io.SeekCurrent); at != 11 || err != nil {
				t.Errorf("the offset is %d now, %v", at, err)
			}
			if f.Name() != file.Name() {
				t.Errorf("Name() = %q, want %q", f.Name(), file.Name())
			}
			if err := file.Close(); err != nil {
				t.Fatal(err)
			}
			same(t, mode.String(), contentOf(t, f), content[3:])
			if mode == mmapio.ReadWrite {
				store(t, f, 0, "by"+mode.String())
				copy(content[3:], "by"+mode.String())
			}
			if err := f.Sync(); err != nil {
				t.Error(err)
			}
			info, err := f.Stat()
			if err != nil || info.Size() != 2*pageSize || info.Name() != "file" {
				t.Errorf("Stat: %v, %v", info, err)
			}
			mustClose(t, f)
		}
	}
	same(t, "the file", onDisk(t, path), content)
}

// TestMapRefuses: what was not opened for what Map is to do, or is no file.
func TestMapRefuses(t *testing.T) {
	needMaps(t)
	prove.LeakCheck(t)
	path, content := patternFile(t, 100)
	open := func(name string, flag int) *os.File {
		f, err := os.OpenFile(name, flag, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	closed := open(path, os.O_RDONLY)
	closed.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for what, tt := range map[string]struct {
		file *os.File
		mode mmapio.Mode
		is   error
	}{
		"O_WRONLY":              {open(path, os.O_WRONLY), mmapio.ReadOnly, fs.ErrPermission},
		"O_WRONLY, CopyOnWrite": {open(path, os.O_WRONLY), mmapio.CopyOnWrite, fs.ErrPermission},
		"O_WRONLY, ReadWrite":   {open(path, os.O_WRONLY), mmapio.ReadWrite, fs.ErrPermission},
		"O_RDONLY, ReadWrite":   {open(path, os.O_RDONLY), mmapio.ReadWrite, fs.ErrPermission},
		"O_APPEND, ReadWrite":   {open(path, os.O_RDWR|os.O_APPEND), mmapio.ReadWrite, fs.ErrInvalid},
		"a closed file":         {closed, mmapio.ReadOnly, fs.ErrClosed},
		"a directory":           {open(filepath.Dir(path), os.O_RDONLY), mmapio.ReadOnly, fs.ErrInvalid},
		"a device":              {open(os.DevNull, os.O_RDWR), mmapio.ReadWrite, fs.ErrInvalid},
		"a pipe to read from":   {r, mmapio.ReadOnly, fs.ErrInvalid},
		"a pipe to write to":    {w, mmapio.ReadOnly, fs.ErrInvalid},
	} {
		t.Run(what, func(t *testing.T) {
			f, err := mmapio.Map(tt.file, &mmapio.Options{Mode: tt.mode})
			if err == nil {
				f.Close()
				t.Fatal("mapped")
			}
			wantPathError(t, err, "map", tt.file.Name(), tt.is)
		})
	}
	if f, err := mmapio.Map(nil, nil); f != nil || !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Map(nil): %v, %v", f, err)
	}
	same(t, "the file", onDisk(t, path), content)
}
