package mmapio_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// The page as the system has it, not as the library says.
var pageSize = int64(prove.PageSize())

// maps says where files map at all: elsewhere they are copied to the heap,
// and nothing can be stored.
var maps = runtime.GOOS != "js" && runtime.GOOS != "wasip1" && runtime.GOOS != "plan9" &&
	runtime.GOOS != "solaris" && runtime.GOOS != "illumos" && runtime.GOOS != "aix"

// slow says that every call costs many times what it costs natively.
var slow = prove.Missing(prove.Linux) != ""

// errNoName is what an empty name comes to: to WASI it is no name at all.
var errNoName = map[bool]error{false: fs.ErrNotExist, true: syscall.EINVAL}[runtime.GOOS == "wasip1"]

func needMaps(t testing.TB) {
	t.Helper()
	if !maps {
		t.Skip("files are not mapped on " + runtime.GOOS)
	}
}

// needFaults skips where a fault cannot be told from any other.
func needFaults(t testing.TB) {
	t.Helper()
	needMaps(t)
	prove.Need(t, prove.FaultAddress)
}

// cuts says that a File may be used while its file is cut: not where a fault
// that this makes cannot be told from any other.
var cuts = prove.Missing(prove.BusAddress) == ""

// locksAll says that memory can be locked that is still to be there: not under an
// emulator that passes no advice on.
var locksAll = runtime.GOOS != "linux" || prove.Missing(prove.Advice) == ""

// endAt is where a file may be cut that is mapped: anywhere, unless the build
// has pages in the middle of which a file cannot end.
func endAt(n int64) int64 {
	if prove.Missing(prove.FileEnd) != "" {
		n -= n % pageSize
	}
	return n
}

var allModes = []mmapio.Mode{mmapio.ReadOnly, mmapio.ReadWrite, mmapio.CopyOnWrite}

// tempDir is t.TempDir where that works.
func tempDir(t testing.TB) string {
	t.Helper()
	return prove.TempDir(t)
}

// pattern is n bytes in which no two stretches look alike.
func pattern(n, seed int64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), uint64(seed)))
	for i := 0; i < len(b); i += 8 {
		v := r.Uint64()
		for j := i; j < min(i+8, len(b)); j++ {
			b[j], v = byte(v), v>>8
		}
	}
	return b
}

// patternFile makes a file of n bytes and returns what is in it.
func patternFile(t testing.TB, n int64) (path string, content []byte) {
	t.Helper()
	path, content = filepath.Join(tempDir(t), "file"), pattern(n, 1)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// mustOpen opens a file that the test closes, or the end of the test.
func mustOpen(t testing.TB, path string, o *mmapio.Options) *mmapio.File {
	t.Helper()
	return opened(t)(mmapio.OpenFile(path, o))
}

// opened takes the results of the functions that open a File.
func opened(t testing.TB) func(*mmapio.File, error) *mmapio.File {
	t.Helper()
	return func(f *mmapio.File, err error) *mmapio.File {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
}

func mustClose(t testing.TB, f *mmapio.File) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// contentOf is all that a File shows.
func contentOf(t testing.TB, f *mmapio.File) []byte {
	t.Helper()
	var got []byte
	if err := f.View(0, f.Size(), func(b []byte) error { got = bytes.Clone(b); return nil }); err != nil {
		t.Fatal(err)
	}
	if n, err := f.ReadAt(make([]byte, len(got)), 0); n != len(got) || err != nil && len(got) > 0 {
		t.Fatalf("ReadAt of all %d bytes: %d, %v", len(got), n, err)
	}
	return got
}

// onDisk is what others read from the file.
func onDisk(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sizeOnDisk(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func mustNotExist(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s exists (Lstat: %v)", path, err)
	}
}

// store writes through the methods and expects no error.
func store(t testing.TB, f *mmapio.File, off int64, s string) {
	t.Helper()
	if n, err := f.WriteAt([]byte(s), off); n != len(s) || err != nil {
		t.Fatalf("WriteAt(%q, %d): %d, %v", s, off, n, err)
	}
}

// differ names the first byte at which two contents differ, -1 if they do not.
func differ(got, want []byte) int {
	if bytes.Equal(got, want) {
		return -1
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return i
		}
	}
	return min(len(got), len(want))
}

// same fails the test if the contents differ.
func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if i := differ(got, want); i >= 0 {
		t.Fatalf("%s: differs at byte %d (%d bytes, want %d)", what, i, len(got), len(want))
	}
}

// wantPathError checks the form that all plain errors have.
func wantPathError(t testing.TB, err error, op, path string, is error) {
	t.Helper()
	pe, ok := err.(*fs.PathError) //nolint:errorlint // it must be the outermost
	switch {
	case !ok:
		t.Errorf("%v is a %T, not a *fs.PathError", err, err)
	case pe.Op != op || pe.Path != path:
		t.Errorf("%v: Op %q, Path %q, want %q, %q", err, pe.Op, pe.Path, op, path)
	case !errors.Is(err, is):
		t.Errorf("%v is not %v", err, is)
	}
	if pe2 := (*fs.PathError)(nil); ok && errors.As(pe.Err, &pe2) {
		t.Errorf("%v has a path in it twice", err)
	}
}

// wantOptionError checks that an option was refused.
func wantOptionError(t testing.TB, err error, op, path, field string, is error) {
	t.Helper()
	oe := (*mmapio.OptionError)(nil)
	switch {
	case !errors.As(err, &oe):
		t.Errorf("%v is a %T, not a *OptionError about %s", err, err, field)
	case oe.Op != op || oe.Path != path || oe.Field != field || oe.Reason == "":
		t.Errorf("%+v, want %s %s: %s", *oe, op, path, field)
	case !errors.Is(err, is):
		t.Errorf("%v is not %v", err, is)
	}
}

// wantRangeError checks that a range was refused, and the numbers.
func wantRangeError(t testing.TB, err error, want mmapio.RangeError) {
	t.Helper()
	re := (*mmapio.RangeError)(nil)
	switch {
	case !errors.As(err, &re):
		t.Errorf("%v is a %T, want %+v", err, err, want)
	case *re != want:
		t.Errorf("%+v, want %+v", *re, want)
	case !errors.Is(err, fs.ErrInvalid):
		t.Errorf("%v is not fs.ErrInvalid", err)
	}
}

// needLocks skips where nothing can be locked, for a reason that is not the
// library's.
func needLocks(t testing.TB) {
	t.Helper()
	f := opened(t)(mmapio.Anonymous(4*pageSize, nil))
	defer f.Close()
	err := f.LockAll()
	le := (*mmapio.LockError)(nil)
	if errors.Is(err, errors.ErrUnsupported) ||
		errors.As(err, &le) && (le.Cause == mmapio.CauseLimit || le.Cause == mmapio.CausePermission) {
		prove.Unable(t, "nothing can be locked here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// errInjected is what a failpoint returns that nothing else does.
var errInjected = errors.New("injected")

// writeChild opens a file to write it and prints the classes of the error.
var writeChild = prove.Register("open to write", func(args []string) int {
	_, err := mmapio.OpenFile(args[0], &mmapio.Options{Mode: mmapio.ReadWrite})
	fmt.Println(classOf(err))
	return 0
})
