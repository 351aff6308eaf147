package mmapio_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// The fields of the matrix: a field is set or not.
var fields = []struct {
	name string
	set  func(o *mmapio.Options)
}{
	{"Create", func(o *mmapio.Options) { o.Create = true }},
	{"Exclusive", func(o *mmapio.Options) { o.Exclusive = true }},
	{"Truncate", func(o *mmapio.Options) { o.Truncate = true }},
	{"Perm", func(o *mmapio.Options) { o.Perm = 0o640 }},
	{"MinSize", func(o *mmapio.Options) { o.MinSize = matrixMin }},
	{"Sparse", func(o *mmapio.Options) { o.Sparse = true }},
	{"Offset", func(o *mmapio.Options) { o.Offset = matrixOffset }},
	{"Length", func(o *mmapio.Options) { o.Length = matrixLength }},
	{"Reserve", func(o *mmapio.Options) { o.Reserve = 1 << 20 }},
	{"Populate", func(o *mmapio.Options) { o.Populate = true }},
	{"NoDump", func(o *mmapio.Options) { o.NoDump = true }},
	{"NoFork", func(o *mmapio.Options) { o.NoFork = true }},
	{"DropFD", func(o *mmapio.Options) { o.DropFD = true }},
}

const (
	matrixSize   = 70 // of the file that exists
	matrixMin    = 90
	matrixOffset = 7
	matrixLength = 11
)

// rules is the design's section "Options" once more, in other words: what each
// field needs. Offset, Length and the rest need nothing.
var (
	needReadWrite  = []string{"Create", "Exclusive", "Truncate", "MinSize", "Sparse"}
	needCreate     = []string{"Exclusive", "Perm"}
	notForMap      = []string{"Create", "Exclusive", "Perm"}
	forAnonymous   = []string{"Reserve", "Populate", "NoDump", "NoFork"}
	lengthExcludes = []string{"Reserve"} // a File with Length is never resized
	notOn          = map[string]func() bool{
		"Reserve": func() bool { return runtime.GOOS == "windows" || !maps },
		"NoDump": func() bool {
			return runtime.GOOS != "linux" && runtime.GOOS != "freebsd" && runtime.GOOS != "dragonfly"
		},
		"NoFork": func() bool { return runtime.GOOS == "windows" || runtime.GOOS == "darwin" || !maps },
	}
)

// faulty are the fields that an error may name, and what it must be.
func faulty(how string, mode mmapio.Mode, set []string) (names []string, is error) {
	has := func(name string) bool { return slices.Contains(set, name) }
	for _, f := range set {
		if how == "anonymous" && !slices.Contains(forAnonymous, f) ||
			how == "map" && slices.Contains(notForMap, f) ||
			how != "anonymous" && mode != mmapio.ReadWrite && slices.Contains(needReadWrite, f) ||
			how != "anonymous" && slices.Contains(needCreate, f) && !has("Create") ||
			how != "anonymous" && slices.Contains(lengthExcludes, f) && has("Length") {
			names = append(names, f)
		}
	}
	if how == "anonymous" && mode == mmapio.CopyOnWrite || mode < 0 || mode > mmapio.CopyOnWrite {
		names = append(names, "Mode")
	}
	if names != nil {
		return names, fs.ErrInvalid
	}
	for _, f := range set {
		if lacks := notOn[f]; lacks != nil && lacks() {
			names = append(names, f)
		}
	}
	return names, errors.ErrUnsupported
}

// TestOptionsMatrix tries combinations of fields, modes and ways to open, on a
// file that exists and on a name that does not: with MMAPIO_E2E=1 all of them,
// else one in five.
func TestOptionsMatrix(t *testing.T) {
	needMaps(t)
	prove.LeakCheck(t)
	step := 5 // a prime: all fields still meet
	switch {
	case prove.E2E():
		step = 1
	case slow || testing.Short():
		step = 61
	}
	dir := tempDir(t)
	m := &matrix{old: filepath.Join(dir, "old"), absent: filepath.Join(dir, "new"), content: pattern(matrixSize, 3)}
	m.reset(t)
	defer func() { m.file.Close() }()
	tried := 0
	for bits := 0; bits < 1<<len(fields); bits += step {
		var o mmapio.Options
		var set []string
		for i, f := range fields {
			if bits>>i&1 != 0 {
				f.set(&o)
				set = append(set, f.name)
			}
		}
		for _, o.Mode = range []mmapio.Mode{mmapio.ReadOnly, mmapio.ReadWrite, mmapio.CopyOnWrite, 3, -1} {
			if bits%17 != 0 && o.Mode.String()[0] == 'M' {
				continue // not every one with a Mode that there is not
			}
			for _, how := range []string{"open", "map", "anonymous"} {
				m.try(t, how, &o, set)
				tried++
				if t.Failed() {
					return
				}
			}
		}
	}
	t.Logf("%d combinations", tried)
}

type matrix struct {
	old, absent string
	content     []byte
	info        fs.FileInfo // of old, as it was made
	file        *os.File    // the same, for Map
}

func (m *matrix) reset(t *testing.T) {
	t.Helper()
	m.file.Close()
	for _, path := range []string{m.absent, m.old} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	err := os.WriteFile(m.old, m.content, 0o600)
	if err == nil {
		m.file, err = os.OpenFile(m.old, os.O_RDWR, 0)
	}
	if err == nil {
		m.info, err = m.file.Stat()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// untouched checks that nothing was made or changed.
func (m *matrix) untouched(t *testing.T) {
	t.Helper()
	mustNotExist(t, m.absent)
	info, err := os.Stat(m.old)
	if err != nil || info.Size() != m.info.Size() || !info.ModTime().Equal(m.info.ModTime()) || info.Mode() != m.info.Mode() {
		t.Errorf("the file was changed: %+v, %v", info, err)
	}
}

func (m *matrix) try(t *testing.T, how string, o *mmapio.Options, set []string) {
	defer func() {
		if t.Failed() {
			t.Logf("%s, Mode %v with %s", how, o.Mode, strings.Join(set, ", "))
		}
	}()
	given := *o
	names, is := faulty(how, o.Mode, set)
	for _, path := range []string{m.old, m.absent} {
		var f *mmapio.File
		var err error
		switch how {
		case "open":
			f, err = mmapio.OpenFile(path, o)
		case "map":
			if path == m.absent {
				continue
			}
			f, err = mmapio.Map(m.file, o)
		default:
			path = "anonymous"
			f, err = mmapio.Anonymous(matrixSize, o)
		}
		if *o != given {
			t.Errorf("the options were changed: %+v", *o)
		}
		if f == nil == (err == nil) {
			t.Fatalf("%v, %v", f, err)
		}
		if len(names) > 0 {
			oe := (*mmapio.OptionError)(nil)
			if !errors.As(err, &oe) {
				t.Fatalf("%v, want an OptionError about %v", err, names)
			}
			if !slices.Contains(names, oe.Field) {
				t.Errorf("%v, want one about %v", err, names)
			}
			wantOptionError(t, err, how, path, oe.Field, is)
			if path != m.old { // once is enough
				m.untouched(t)
			}
			continue
		}
		m.accepted(t, how, path, o, f, err)
	}
}

// accepted checks what an open did whose options are right.
func (m *matrix) accepted(t *testing.T, how, path string, o *mmapio.Options, f *mmapio.File, err error) {
	switch {
	case path == m.old && o.Exclusive:
		wantPathError(t, err, how, path, fs.ErrExist)
		m.untouched(t)
		return
	case path == m.absent && !o.Create:
		wantPathError(t, err, how, path, fs.ErrNotExist)
		m.untouched(t)
		return
	}
	size, content := int64(matrixSize), bytes.Clone(m.content)
	switch {
	case path == m.absent || o.Truncate:
		size, content = 0, nil
	case how == "anonymous":
		content = make([]byte, size)
	}
	size = max(size, o.MinSize)
	content = append(content, make([]byte, size-int64(len(content)))...)
	if o.Offset+o.Length > size {
		wantRangeError(t, err, mmapio.RangeError{Op: how, Path: path, Off: o.Offset, Len: o.Length, Size: size})
		m.untouched(t)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	mapped := content[o.Offset:]
	if o.Length > 0 {
		mapped = mapped[:o.Length]
	}
	mode := o.Mode
	if how == "anonymous" {
		mode = mmapio.ReadWrite
	}
	if f.Size() != int64(len(mapped)) || f.Mode() != mode || f.Name() != path {
		t.Errorf("Size %d, Mode %v, Name %q, want %d, %v, %q", f.Size(), f.Mode(), f.Name(), len(mapped), mode, path)
	}
	same(t, path, contentOf(t, f), mapped)
	_, err = f.Stat()
	if want := o.DropFD || how == "anonymous"; errors.Is(err, errors.ErrUnsupported) != want || err != nil != want {
		t.Errorf("Stat: %v", err)
	}
	mustClose(t, f)
	if how == "anonymous" {
		return
	}
	same(t, "the file", onDisk(t, path), content)
	if path == m.absent || size != matrixSize || o.Truncate {
		perm := o.Perm
		if perm == 0 {
			perm = 0o666
		}
		if info, err := os.Stat(path); err != nil || path == m.absent && runtime.GOOS != "windows" && info.Mode() != perm&^umask(t) {
			t.Errorf("a new file has mode %v, %v, want %v less %v", info.Mode(), err, perm, umask(t))
		}
		m.reset(t)
	}
}

var knownUmask = fs.FileMode(math.MaxUint32)

// umask looks at what the system makes of all permissions.
func umask(t testing.TB) fs.FileMode {
	t.Helper()
	if knownUmask == math.MaxUint32 {
		path := filepath.Join(tempDir(t), "umask")
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o777)
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(path)
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		knownUmask = ^info.Mode() & fs.ModePerm
	}
	return knownUmask
}

// TestOptionNumbers: numbers that are wrong by themselves, or that add up to
// something wrong.
func TestOptionNumbers(t *testing.T) {
	needMaps(t)
	prove.LeakCheck(t)
	path, content := patternFile(t, 100)
	absent := filepath.Join(tempDir(t), "absent")
	rw := mmapio.ReadWrite
	type opts = mmapio.Options
	for _, tt := range []struct {
		o     opts
		field string // of an OptionError
		size  int64  // of a RangeError
	}{
		{o: opts{Offset: -1}, field: "Offset"},
		{o: opts{Offset: math.MinInt64}, field: "Offset"},
		{o: opts{Length: -1}, field: "Length"},
		{o: opts{Length: math.MinInt64, Offset: 5}, field: "Length"},
		{o: opts{Mode: rw, MinSize: -1}, field: "MinSize"},
		{o: opts{Mode: rw, MinSize: math.MinInt64}, field: "MinSize"},
		{o: opts{Reserve: -1}, field: "Reserve"},
		{o: opts{Mode: rw, Create: true, Perm: fs.ModeDir | 0o700}, field: "Perm"},
		{o: opts{Mode: rw, Create: true, Perm: fs.ModeSetuid | 0o700}, field: "Perm"},
		{o: opts{Offset: 101}, size: 100},
		{o: opts{Offset: 50, Length: 51}, size: 100},
		{o: opts{Length: 101}, size: 100},
		{o: opts{Offset: math.MaxInt64}, size: 100},
		{o: opts{Length: math.MaxInt64}, size: 100},
		{o: opts{Offset: 1, Length: math.MaxInt64}, size: math.MaxInt64},
		{o: opts{Offset: math.MaxInt64, Length: math.MaxInt64}, size: math.MaxInt64},
		{o: opts{Mode: rw, MinSize: 200, Offset: 201}, size: 200},
		{o: opts{Mode: rw, MinSize: 200, Offset: 150, Length: 51}, size: 200},
		{o: opts{Mode: rw, Truncate: true, Offset: 1}, size: 0},
		{o: opts{Mode: rw, Truncate: true, MinSize: 50, Length: 51}, size: 50},
		{o: opts{Mode: rw, Truncate: true, Length: 1}, size: 0},
	} {
		t.Run(fmt.Sprintf("%v,Min=%d,Offset=%d,Length=%d", tt.o.Mode, tt.o.MinSize, tt.o.Offset, tt.o.Length), func(t *testing.T) {
			check := func(err error, op, path string, size int64) {
				t.Helper()
				if tt.field != "" {
					wantOptionError(t, err, op, path, tt.field, fs.ErrInvalid)
				} else {
					wantRangeError(t, err, mmapio.RangeError{Op: op, Path: path, Off: tt.o.Offset, Len: tt.o.Length, Size: size})
				}
			}
			_, err := mmapio.OpenFile(path, &tt.o)
			check(err, "open", path, tt.size)
			same(t, "the file", onDisk(t, path), content)

			if tt.field != "Perm" {
				file, err := os.OpenFile(path, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				_, err = mmapio.Map(file, &tt.o)
				file.Close()
				check(err, "map", path, tt.size)
				same(t, "the file", onDisk(t, path), content)
			}

			// A file that the call made before it knew better is gone.
			if o := tt.o; o.Mode == rw {
				o.Create = true
				_, err := mmapio.OpenFile(absent, &o)
				check(err, "open", absent, tt.size)
				mustNotExist(t, absent)
			}
		})
	}

	_, err := mmapio.Anonymous(-1, nil)
	wantRangeError(t, err, mmapio.RangeError{Op: "anonymous", Path: "anonymous", Len: -1, Size: math.MaxInt64})
	for _, n := range []int64{math.MaxInt64, math.MaxInt64 - pageSize} {
		_, err := mmapio.Anonymous(n, nil)
		wantOptionError(t, err, "anonymous", "anonymous", "Length", errors.ErrUnsupported)
		if strings.Contains(err.Error(), "file") {
			t.Errorf("%v: there is no file to map a part of", err)
		}
		_, err = mmapio.Anonymous(1, &opts{Reserve: n})
		wantOptionError(t, err, "anonymous", "anonymous", "Reserve", errors.ErrUnsupported)
		_, err = mmapio.OpenFile(path, &opts{Reserve: n})
		wantOptionError(t, err, "open", path, "Reserve", errors.ErrUnsupported)
		_, err = mmapio.OpenFile(absent, &opts{Mode: rw, Create: true, MinSize: n, Sparse: true})
		wantOptionError(t, err, "open", absent, "Length", errors.ErrUnsupported)
		mustNotExist(t, absent)
		_, err = mmapio.OpenFile(path, &opts{Mode: rw, MinSize: n, Sparse: true})
		wantOptionError(t, err, "open", path, "Length", errors.ErrUnsupported)
		same(t, "the file", onDisk(t, path), content)
	}
}

// The bit that is wrong can be seen, also one of open(2) that fs.FileMode has no letter for.
func TestPermBitsAreShown(t *testing.T) {
	_, err := mmapio.OpenFile("f", &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, Perm: 0o1600})
	if err == nil || !strings.Contains(err.Error(), "01600") {
		t.Errorf("%v, want 01600 in it", err)
	}
}
