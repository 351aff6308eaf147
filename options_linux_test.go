package mmapio_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// everyKind opens a File of each mode over a fresh file, from an odd offset, and
// memory without a file.
func everyKind(t *testing.T, size int64, o mmapio.Options, test func(t *testing.T, f *mmapio.File)) {
	for _, o.Mode = range allModes {
		t.Run(o.Mode.String(), func(t *testing.T) {
			o := o
			o.Offset = pageSize + 3
			path, content := patternFile(t, o.Offset+size)
			f := mustOpen(t, path, &o)
			test(t, f)
			same(t, "the mapping", contentOf(t, f), content[o.Offset:])
			mustClose(t, f)
		})
	}
	t.Run("anonymous", func(t *testing.T) {
		o := o
		o.Mode = mmapio.ReadOnly // the zero value, which Anonymous takes for its own
		f := opened(t)(mmapio.Anonymous(size, &o))
		test(t, f)
		same(t, "the memory", contentOf(t, f), make([]byte, size))
		mustClose(t, f)
	})
}

// TestPopulate: every page is there before the first touch; without Populate,
// none is.
func TestPopulate(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Pagemap)
	prove.LeakCheck(t)
	size := 33*pageSize + 5
	for _, populate := range []bool{true, false} {
		for _, reserve := range []int64{0, 1 << 22} {
			t.Run(fmt.Sprintf("populate=%v/reserve=%d", populate, reserve), func(t *testing.T) {
				everyKind(t, size, mmapio.Options{Populate: populate, Reserve: reserve, Prefault: -1}, func(t *testing.T, f *mmapio.File) {
					pages := prove.PresentPages(t, peek(t, f))
					n := prove.Count(pages)
					if populate && n != len(pages) || !populate && n != 0 {
						t.Errorf("%d pages of %d are present", n, len(pages))
					}
				})
			})
		}
	}

	// To bring a private page in is not to copy it.
	path, _ := patternFile(t, size)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.CopyOnWrite, Populate: true})
	if v := prove.Mapping(t, peek(t, f)); v.Anonymous != 0 {
		t.Errorf("%d bytes were copied", v.Anonymous)
	}
	mustClose(t, f)
}

// TestDumpAndFork: the kernel has noted what it is to keep out of core dumps and
// out of children.
func TestDumpAndFork(t *testing.T) {
	prove.Need(t, prove.Advice)
	prove.LeakCheck(t)
	for _, o := range []mmapio.Options{{}, {NoDump: true}, {NoFork: true}, {NoDump: true, NoFork: true, Reserve: 1 << 22}} {
		t.Run(fmt.Sprintf("NoDump=%v/NoFork=%v", o.NoDump, o.NoFork), func(t *testing.T) {
			everyKind(t, 5*pageSize, o, func(t *testing.T, f *mmapio.File) {
				for _, v := range prove.Mappings(t, peek(t, f)) {
					if v.Has("dd") != o.NoDump || v.Has("dc") != o.NoFork {
						t.Errorf("VmFlags %v", v.VmFlags)
					}
				}
			})
		})
	}
}

// TestDropFD: no descriptor stays, and the memory does.
func TestDropFD(t *testing.T) {
	prove.Need(t, prove.Maps)
	prove.LeakCheck(t)
	path, content := patternFile(t, 2*pageSize)
	before := len(prove.FDs(t))
	for _, mode := range allModes {
		var files []*mmapio.File
		for range 50 {
			files = append(files, mustOpen(t, path, &mmapio.Options{Mode: mode, DropFD: true, Offset: 1}))
		}
		if n := len(prove.FDs(t)); n != before {
			t.Errorf("%v: %d descriptors are open, had %d", mode, n, before)
		}
		if below, _ := prove.MappedFiles(t, path); below != len(files) {
			t.Errorf("%v: %d mappings of %d Files", mode, below, len(files))
		}
		f := files[0]
		same(t, mode.String(), contentOf(t, f), content[1:])
		if mode == mmapio.ReadWrite {
			store(t, f, 0, "dropped")
			copy(content[1:], "dropped")
		}
		_, err := f.Stat()
		wantPathError(t, err, "stat", path, errors.ErrUnsupported)
		_, err = f.SyscallConn()
		wantPathError(t, err, "syscallconn", path, errors.ErrUnsupported)
		if err := f.Sync(); mode == mmapio.ReadWrite {
			wantPathError(t, err, "sync", path, errors.ErrUnsupported)
		} else if err != nil {
			t.Errorf("%v: Sync: %v", mode, err)
		}
		for _, f := range files {
			mustClose(t, f)
		}
		same(t, "the file", onDisk(t, path), content)
	}
}

// vmSize is the address space that this process uses, in bytes.
func vmSize(t testing.TB) int64 {
	t.Helper()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, _, _ := strings.Cut(string(statm), " ")
	n, err := strconv.ParseInt(pages, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n * int64(os.Getpagesize()) // the kernel's, whatever the library takes it for
}

// TestManyCycles opens and closes thousands of Files of all kinds. Neither
// descriptors nor mappings nor, once the collector has run, addresses are left.
func TestManyCycles(t *testing.T) {
	prove.Need(t, prove.Maps)
	prove.LeakCheck(t)
	const cycles, size = 2000, 1 << 20
	path := filepath.Join(t.TempDir(), "file")
	mustClose(t, opened(t)(mmapio.Create(path, size)))
	runtime.GC()
	fds, vm := len(prove.FDs(t)), vmSize(t)
	below, total := prove.MappedFiles(t, path)
	for i := range cycles {
		var f *mmapio.File
		var err error
		switch o := (mmapio.Options{Mode: allModes[i%3], Offset: int64(i), DropFD: i%2 == 0}); i % 5 {
		case 0:
			f, err = mmapio.Anonymous(size, nil)
		case 1:
			o.Reserve = 2 * size
			fallthrough
		default:
			f, err = mmapio.OpenFile(path, &o)
		}
		if err != nil {
			t.Fatal(err)
		}
		if i%4 == 0 {
			_ = f.Lock(0, 1) // it may be refused
		}
		if _, err := f.ReadAt(make([]byte, 8), 5); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(prove.FDs(t)); n != fds {
		t.Errorf("%d descriptors, had %d", n, fds)
	}
	if n, _ := prove.MappedFiles(t, path); n != below {
		t.Errorf("%d mappings of the file, had %d", n, below)
	}
	if n := prove.VmLck(t, 0); n != 0 {
		t.Errorf("%d bytes are locked", n)
	}
	const slack = 64 // of the Go heap
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		runtime.GC()
		_, now := prove.MappedFiles(t, path)
		if grown := vmSize(t) - vm; now <= total+slack && grown < cycles*size/8 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%d mappings, had %d, and %d bytes more address space", now, total, grown)
		}
	}
}

// TestErrorPathsUndo: an open that fails after it mapped gives all of it back,
// and what it did to the file.
func TestErrorPathsUndo(t *testing.T) {
	prove.Need(t, prove.AddressLimit)
	if strconv.IntSize == 32 {
		t.Skip(runtime.GOARCH + ", 32 bits: a mapping of 1 TiB is refused before the kernel is asked")
	}
	if res := noAddresses.Run(t, prove.Args(t.TempDir()),
		prove.Limit(prove.AddressSpace, 8<<30, prove.Unlimited)); res.Code != 0 {
		t.Error(res)
	}
}

// noAddresses runs with too few addresses for a mapping of 1 TiB, which the
// kernel refuses after the file has been made so long.
var noAddresses = prove.Register("noAddresses", func(args []string) int {
	t := prove.T()
	prove.LeakCheck(t)
	path, absent := filepath.Join(args[0], "old"), filepath.Join(args[0], "new")
	content := pattern(pageSize+1, 5)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, reserve := range []int64{0, 2 << 40} {
		o := mmapio.Options{Mode: mmapio.ReadWrite, MinSize: 1 << 40, Sparse: true, Reserve: reserve}
		_, err := mmapio.OpenFile(path, &o)
		wantPathError(t, err, "open", path, unix.ENOMEM)
		if want := fmt.Sprintf("%d bytes of address space were asked for, and RLIMIT_AS (ulimit -v) is %d", max(1<<40, reserve), int64(8<<30)); !strings.Contains(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		same(t, "the file", onDisk(t, path), content)
		o.Create = true
		_, err = mmapio.OpenFile(absent, &o)
		wantPathError(t, err, "open", absent, unix.ENOMEM)
		mustNotExist(t, absent)
		_, err = mmapio.Anonymous(1<<40, &mmapio.Options{Reserve: reserve})
		wantPathError(t, err, "anonymous", "anonymous", unix.ENOMEM)
	}
	o := mmapio.Options{Reserve: 1 << 40}
	_, err := mmapio.OpenFile(path, &o)
	wantPathError(t, err, "open", path, unix.ENOMEM)
	return 0
})
