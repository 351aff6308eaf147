package mmapio_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// collect runs the collector until done is true; false if it never is.
// Cleanups run some time after the collection, and what they let go of is
// found by the next one.
func collect(done func() bool) bool {
	for range 200 {
		runtime.GC()
		if done() {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// mappedNow counts the mappings of a file, and openNow its descriptors.
func mappedNow(t testing.TB, path string) int {
	t.Helper()
	n, _ := prove.MappedFiles(t, path)
	return n
}

func openNow(t testing.TB, path string) (n int) {
	t.Helper()
	for _, name := range prove.FDs(t) {
		if name == path {
			n++
		}
	}
	return n
}

// wantGone checks that the collector takes everything of a file away.
func wantGone(t testing.TB, path string) {
	t.Helper()
	if !collect(func() bool { return mappedNow(t, path) == 0 && openNow(t, path) == 0 }) {
		t.Errorf("%d mappings and %d descriptors are left", mappedNow(t, path), openNow(t, path))
	}
}

// stays checks that the collector leaves the one mapping of a file alone.
func stays(t testing.TB, path string) {
	t.Helper()
	for range 6 {
		runtime.GC()
		time.Sleep(2 * time.Millisecond) // for cleanups, which run after it
		if n := mappedNow(t, path); n != 1 {
			t.Fatalf("%d mappings, want the one", n)
		}
	}
}

// TestDroppedFile drops Files without Close, after all kinds of use.
func TestDroppedFile(t *testing.T) {
	prove.Need(t, prove.Maps)
	uses := map[string]func(f *mmapio.File) error{
		"nothing": func(*mmapio.File) error { return nil },
		"view":    func(f *mmapio.File) error { return f.View(0, 10, func([]byte) error { return nil }) },
		"region": func(f *mmapio.File) error {
			r, err := f.Region(0, 10)
			if err == nil {
				r.Release()
			}
			return err
		},
		"break": func(f *mmapio.File) error {
			for _, err := range f.Pages(0, f.Size()) {
				return err
			}
			return nil
		},
		"section": func(f *mmapio.File) error { _, err := f.Section(0, 10); return err },
		"grow": func(f *mmapio.File) error {
			if err := f.Resize(20 * pageSize); err != nil {
				return err
			}
			return f.Resize(30 * pageSize)
		},
		"shrink": func(f *mmapio.File) error { return f.Resize(pageSize) },
		"fault": func(f *mmapio.File) error {
			// Whatever the fault left, it is not the memory.
			_ = panicOf(func() { _ = f.View(0, 1, func([]byte) error { panic("mine") }) })
			return nil
		},
	}
	for name, use := range uses {
		for _, o := range []mmapio.Options{{Mode: mmapio.ReadWrite}, {Mode: mmapio.ReadWrite, Reserve: 1 << 20}} {
			path, _ := patternFile(t, 4*pageSize)
			func() {
				f, err := mmapio.OpenFile(path, &o)
				if err == nil {
					err = use(f)
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if mappedNow(t, path) == 0 {
					t.Errorf("%s: not mapped at first", name)
				}
				runtime.KeepAlive(f)
			}()
			wantGone(t, path)
		}
	}
}

// TestNotWhileInside has the collector run while a call of a File is under way
// that nobody refers to any more.
func TestNotWhileInside(t *testing.T) {
	prove.Need(t, prove.Maps)
	for name, loop := range map[string]func(f *mmapio.File, fn func(b []byte) error) error{
		"View":           guarded["View"],
		"Update":         guarded["Update"],
		"UpdateChunks":   guarded["UpdateChunks"],
		"Chunks":         guarded["Chunks"],
		"Section.Update": guarded["Section.Update"],
		"Region": func(f *mmapio.File, fn func(b []byte) error) error {
			r, err := f.Region(0, f.Size())
			if err != nil {
				return err
			}
			defer r.Release()
			return fn(r.Bytes())
		},
	} {
		path, content := patternFile(t, 4*pageSize)
		err := loop(justOpened(t, path), func(b []byte) error {
			stays(t, path)
			same(t, name, b, content)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		wantGone(t, path)
	}
}

// justOpened is a File that only the caller refers to.
func justOpened(t testing.TB, path string) *mmapio.File {
	t.Helper()
	f, err := mmapio.OpenFile(path, &mmapio.Options{Mode: mmapio.ReadWrite})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestLastReference makes calls on the last reference to a File, with the
// collector running all the time.
func TestLastReference(t *testing.T) {
	prove.Need(t, prove.Maps)
	path, content := patternFile(t, 64*pageSize)
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			runtime.GC()
		}
	}()
	p, whole := make([]byte, len(content)), [1 << 12]byte(content)
	for range 40 {
		if n, err := justOpened(t, path).ReadAt(p, 0); n != len(p) || err != nil || !bytes.Equal(p, content) {
			t.Fatalf("ReadAt: %d, %v", n, err)
		}
		if n, err := justOpened(t, path).WriteAt(content, 0); n != len(p) || err != nil {
			t.Fatalf("WriteAt: %d, %v", n, err)
		}
		if v, err := mmapio.LoadAt[[1 << 12]byte](justOpened(t, path), 0); err != nil || v != whole {
			t.Fatalf("LoadAt: %v", err)
		}
		if err := mmapio.StoreAt(justOpened(t, path), 0, whole); err != nil {
			t.Fatalf("StoreAt: %v", err)
		}
	}
	stop.Store(true)
	<-done
	same(t, "the file", onDisk(t, path), content)
	wantGone(t, path)
}

// TestHolderKeepsFile holds memory of a File that was dropped: it stays until
// the Release, and no longer.
func TestHolderKeepsFile(t *testing.T) {
	prove.Need(t, prove.Maps)
	for name, take := range takers {
		path, content := patternFile(t, 4*pageSize)
		h, n, bytesOf, err := take(justOpened(t, path), 16)
		if err != nil {
			t.Fatal(err)
		}
		stays(t, path)
		same(t, name, bytesOf(), content[16:16+n])
		h.Release()
		wantGone(t, path)
	}
}

// leaker drops a holder without Release and keeps only the memory of it. What
// it does cannot be undone, so it is a process of its own. Its arguments are the
// name of a taker and a path.
var leaker = prove.Register("leaker", func(args []string) int {
	t, path := prove.T(), args[1]
	want := onDisk(t, path)
	drop := func(release bool) []byte {
		f, err := mmapio.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		h, _, bytesOf, err := takers[args[0]](f, 16)
		if err != nil {
			t.Fatal(err)
		}
		b := bytesOf()
		if release {
			h.Release()
		}
		return b
	}
	if args[2] == "release" {
		drop(true)
		wantGone(t, path)
		return 0
	}
	b := drop(false)
	stays(t, path)
	// Others would get the same addresses, if they were free.
	for i := range 20 {
		other := filepath.Join(filepath.Dir(path), fmt.Sprint("other", i))
		if err := os.WriteFile(other, bytes.Repeat([]byte{0xFF}, len(want)), 0o600); err != nil {
			t.Fatal(err)
		}
		f := mustOpen(t, other, nil)
		same(t, "what is kept", b, want[16:16+len(b)])
		runtime.KeepAlive(f)
	}
	return 0
})

// TestDroppedHolder checks that memory stays when its holder was dropped
// without Release, and that MMAPIO_DEBUG=leaks tells where it was made.
func TestDroppedHolder(t *testing.T) {
	prove.Need(t, prove.Children)
	types := map[string]string{
		"region": "*mmapio.Region of ", "valueat": "*mmapio.Value[[100]uint8] of ", "valuesat": "*mmapio.Values[uint8] of ",
	}
	for name := range takers {
		for _, how := range []string{"leak", "release"} {
			for _, debug := range []string{"leaks", "other,leaks", "", "leak"} {
				if debug != "leaks" && (how == "release" || name != "region") {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%q", name, how, debug), func(t *testing.T) {
					t.Parallel()
					path, _ := patternFile(t, 4*pageSize)
					res := leaker.Run(t, prove.Args(name, path, how), prove.Env("MMAPIO_DEBUG="+debug))
					if res.Code != 0 {
						t.Fatal(res)
					}
					tells := how == "leak" && slices.Contains(strings.Split(debug, ","), "leaks")
					switch {
					case !tells && res.Output != "":
						t.Errorf("says: %s", res.Output)
					case tells && (strings.Count(res.Output, "leaked without Release") != 1 ||
						!strings.Contains(res.Output, types[name]+path+" [16, ") || !strings.Contains(res.Output, "region_test.go:")):
						t.Errorf("does not tell what is leaked and where it was made: %s", res.Output)
					}
				})
			}
		}
	}
}

// TestFileIsSmall: a program may have very many Files, most of them idle. They are
// not opened by mustOpen, since what a test has to remember of each would count too.
func TestFileIsSmall(t *testing.T) {
	needMaps(t)
	const files = 300
	path, _ := patternFile(t, 3*pageSize)
	open := func() *mmapio.File {
		f, err := mmapio.Open(path)
		check(t, err)
		_, err = f.ReadAt(make([]byte, 10), 0)
		check(t, err)
		return f
	}
	all := make([]*mmapio.File, files)
	check(t, open().Close()) // what there is once
	// Twice: Files of the tests before are gone only after the second, and
	// would be taken off what these take.
	runtime.GC()
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range all {
		all[i] = open()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	for _, f := range all {
		check(t, f.Close())
	}
	if n := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / files; n > 3<<10 {
		t.Errorf("an idle File takes %d bytes of heap", n)
	}
}

// TestLateLeave has the collector come by while one who is about to find out that
// the File has moved is in the old memory still: then he is the one to give it back.
func TestLateLeave(t *testing.T) {
	prove.Need(t, prove.Maps, prove.Pagemap)
	path, _ := patternFile(t, 4*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	var old []byte
	if err := f.View(0, f.Size(), func(b []byte) error { old = b; return nil }); err != nil {
		t.Fatal(err)
	}
	leave := mmapio.EnterOnly(f)
	mustResize(t, f, 64*pageSize)
	stillThere := func() bool {
		return slices.ContainsFunc(prove.Mappings(t, old), func(v prove.VMA) bool { return v.Path == path || v.Perms == "---p" })
	}
	collected()
	if !stillThere() {
		t.Fatal("it was given back with somebody inside")
	}
	leave()
	if !collect(func() bool { return !stillThere() }) {
		t.Error("the old memory is never given back")
	}
}
