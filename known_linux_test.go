package mmapio_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// evict takes all pages of a file out of memory that f, opened without
// Prefault, maps.
func evict(t testing.TB, f *mmapio.File) {
	t.Helper()
	for range 100 {
		if err := f.View(0, f.Size(), func(b []byte) error { return unix.Madvise(b, unix.MADV_DONTNEED) }); err != nil {
			t.Fatal(err)
		}
		dropCache(t, f.Name())
		if _, in := prove.Resident(t, f.Name()); in == 0 {
			return
		}
	}
	t.Fatal("the pages do not leave")
}

// TestForgotten: a page that leaves memory is brought in by a system call again
// once what was known is forgotten, and by a fault before.
func TestForgotten(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Disk)
	t.Cleanup(mmapio.KnownFor(time.Hour, time.Hour))
	runtime.LockOSThread() // one that the count knows from its beginning
	defer runtime.UnlockOSThread()
	path := filepath.Join(prove.DiskDir(t), "file")
	if err := os.WriteFile(path, pattern(4*pageSize, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range allModes {
		dropCache(t, path)
		f := mustOpen(t, path, &mmapio.Options{Mode: mode, Prefault: -1})
		read := prove.CountFaults(t)
		majors := func(what string, want int64) {
			t.Helper()
			before := read().Major
			if err := readByte(f, 0); err != nil {
				t.Fatal(err)
			}
			if n := read().Major - before; n != want {
				t.Errorf("%v, %s: %d major faults, want %d", mode, what, n, want)
			}
		}
		majors("cold", 0)
		majors("again", 0) // now it is worth a place in the mapping, and known
		evict(t, f)
		majors("gone, and not known to be", 1)
		evict(t, f)
		f.Expire()
		if load, _ := f.Known(0, 1); load {
			t.Errorf("%v: nothing was forgotten", mode)
		}
		majors("gone, and forgotten", 0)
		majors("again", 0)
		if load, _ := f.Known(0, 1); !load {
			t.Errorf("%v: not known after it was read", mode)
		}
		// What stays is found to be there all at once.
		if err := f.Populate(t.Context(), 0, f.Size()); err != nil {
			t.Fatal(err)
		}
		if load, _ := f.Known(0, int(f.Size())); !load {
			t.Errorf("%v: not known after Populate", mode)
		}
		if err := f.View(0, f.Size(), touchSlice); err != nil {
			t.Fatal(err)
		}
		f.Expire()
		majors("still there, and forgotten", 0)
		if load, _ := f.Known(0, int(f.Size())); !load {
			t.Errorf("%v: a look at one page did not tell about its neighbours", mode)
		}
		mustClose(t, f)
	}
}

// TestMappedIfReadAgain: what is read once or twice is read past the mapping and
// takes no place in it, what is read a third time, or again at once, does, and is
// then known. CopyOnWrite has nothing but the mapping.
func TestMappedIfReadAgain(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Disk, prove.Pagemap)
	t.Cleanup(mmapio.KnownFor(time.Hour, time.Hour))
	path := filepath.Join(prove.DiskDir(t), "file")
	if err := os.WriteFile(path, pattern(64*pageSize, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range allModes {
		f := mustOpen(t, path, &mmapio.Options{Mode: mode, Prefault: -1})
		for i, step := range []struct {
			page int64
			want bool
		}{
			{20, false}, {40, false}, {20, false}, {40, false}, {20, true}, {20, true}, {40, true},
			{60, false}, {60, true},
		} {
			if err := readByte(f, step.page*pageSize+int64(i)); err != nil {
				t.Fatal(err)
			}
			load, _ := f.Known(step.page*pageSize, 1)
			if want := step.want || mode == mmapio.CopyOnWrite; load != want {
				t.Errorf("%v: step %d, page %d: known %v, want %v", mode, i, step.page, load, want)
			}
			mapped := slices.Contains(presentPages(t, f), step.page)
			if step.want && !mapped || !step.want && mapped && i < 4 && mode != mmapio.CopyOnWrite {
				t.Errorf("%v: step %d, page %d: mapped in %v", mode, i, step.page, mapped)
			}
		}
		mustClose(t, f)
	}
}

// TestForgetsByItself has the timers do it.
func TestForgetsByItself(t *testing.T) {
	needFaults(t)
	t.Cleanup(mmapio.KnownFor(20*time.Millisecond, time.Millisecond))
	path, _ := patternFile(t, 3*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	store(t, f, 5, "x")
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		load, put := f.Known(5, 1)
		if !load && !put {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("still known: load %v, store %v", load, put)
		}
	}
}

// TestLockedStaysKnown: what is locked in memory is never asked about again, until
// it is unlocked. Then it is forgotten like anything else.
func TestLockedStaysKnown(t *testing.T) {
	prove.Need(t, prove.Advice)
	needLocks(t)
	t.Cleanup(mmapio.KnownFor(time.Hour, time.Hour))
	path, _ := patternFile(t, 6*pageSize)
	for _, mode := range allModes {
		f := mustOpen(t, path, &mmapio.Options{Mode: mode})
		if err := f.Lock(pageSize+1, 2*pageSize); err != nil { // pages 1 to 3
			t.Fatal(err)
		}
		is := func(what string, want string) {
			t.Helper()
			var got strings.Builder
			for p := range int64(6) {
				load, _ := f.Known(p*pageSize, 1)
				got.WriteByte(".#"[map[bool]int{true: 1}[load]])
			}
			if got.String() != want {
				t.Errorf("%v, %s: known are %s, want %s", mode, what, &got, want)
			}
		}
		all := func() {
			t.Helper()
			if err := f.View(0, f.Size(), touchSlice); err != nil {
				t.Fatal(err)
			}
		}
		is("locked", ".###..")
		all()
		is("read", "######")
		for range 3 {
			f.Expire()
			is("forgotten", ".###..")
		}
		if err := f.Unlock(2*pageSize, pageSize); err != nil {
			t.Fatal(err)
		}
		is("one unlocked", ".###..")
		f.Expire()
		is("one unlocked, and forgotten", ".#.#..")
		all()
		f.Expire()
		is("one unlocked, read, and forgotten", ".#.#..")
		check(t, f.UnlockAll())
		is("unlocked", ".#.#..")
		f.Expire()
		is("unlocked, and forgotten", "......")
		mustClose(t, f)
	}
}

// TestLostLockIsForgotten: what VerifyLocked finds to be locked no longer is not
// known for good any more.
func TestLostLockIsForgotten(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Verify)
	needLocks(t)
	t.Cleanup(mmapio.KnownFor(time.Hour, time.Hour))
	path, _ := patternFile(t, 4*pageSize)
	for _, mode := range allModes {
		f := mustOpen(t, path, &mmapio.Options{Mode: mode})
		check(t, f.LockAll())
		check(t, f.View(0, f.Size(), touchSlice))
		f.Expire() // from here on only the lock keeps it known
		check(t, unix.Munlock(memoryOf(t, f)[pageSize:3*pageSize]))
		if err := f.VerifyLocked(0, f.Size()); err == nil {
			t.Fatal("VerifyLocked finds nothing")
		}
		for p, want := range []bool{true, false, false, true} {
			if load, _ := f.Known(int64(p)*pageSize, 1); load != want {
				t.Errorf("%v: page %d is known: %v, want %v", mode, p, load, want)
			}
		}
		mustClose(t, f)
	}
}

// TestKnownWritable: what a sync writes back has to be made ready for stores
// again, and so has everything after a moment, locked or not.
func TestKnownWritable(t *testing.T) {
	prove.Need(t, prove.Advice)
	t.Cleanup(mmapio.KnownFor(time.Hour, time.Hour))
	path, _ := patternFile(t, 4*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	for name, end := range map[string]func() error{
		"Sync":      f.Sync,
		"SyncRange": func() error { return f.SyncRange(0, f.Size()) },
		"StartSync": func() error { return f.StartSync(0, f.Size()) },
		"time":      func() error { f.Expire(); return nil },
	} {
		store(t, f, 5, "x")
		if _, put := f.Known(0, int(pageSize)); !put {
			t.Fatal("a page that was stored to is not known to be ready")
		}
		if _, put := f.Known(0, int(pageSize)+1); put {
			t.Fatal("its neighbour is known, too")
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if _, put := f.Known(5, 1); put {
			t.Errorf("%s: still known to be ready", name)
		}
	}
}

// TestShrinkForgets: what a copier that nobody waits for has found in memory is
// not known if a shrink takes it away before the copier notes it, also when the
// File is as long again by then.
func TestShrinkForgets(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Scan)
	t.Cleanup(mmapio.KnownFor(time.Hour, time.Hour))
	tail := 2*pageSize + 8
	for name, do := range map[string]func(f *mmapio.File) error{
		"LoadAt":  func(f *mmapio.File) error { _, err := mmapio.LoadAt[uint64](f, tail); return err },
		"StoreAt": func(f *mmapio.File) error { return mmapio.StoreAt[uint64](f, tail, 1) },
		"still in": func(f *mmapio.File) error {
			f.Expire()
			_, err := mmapio.LoadAt[uint64](f, tail)
			return err
		},
	} {
		path, _ := patternFile(t, 4*pageSize)
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Reserve: 8 * pageSize})
		if name == "still in" {
			if _, err := mmapio.LoadAt[uint64](f, tail); err != nil {
				t.Fatal(err)
			}
		}
		found := 0
		restore := mmapio.WhenFound(func() {
			found++
			mustResize(t, f, pageSize)
			mustResize(t, f, 4*pageSize)
		})
		err := do(f)
		restore()
		if err != nil || found == 0 {
			t.Fatalf("%s: found %d times, %v", name, found, err)
		}
		if load, put := f.Known(tail, 8); load || put {
			t.Errorf("%s: new pages are known: load %v, store %v", name, load, put)
		}
		mustClose(t, f)
	}
}

// TestPrefault is about which ranges are brought in by those who lend them.
func TestPrefault(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Pagemap)
	const mib = 1 << 20
	path, _ := patternFile(t, 4*mib)
	for _, c := range []struct {
		prefault, n int64
		in          bool
	}{
		{0, mib, true}, {0, mib + 1, false}, {-1, 1, false}, {-1 << 63, 1, false},
		{1, 1, true}, {1, 2, false}, {1<<63 - 1, 4 * mib, true}, {3 * mib, 3*mib + 1, false},
	} {
		lend := map[string]func(f *mmapio.File) error{
			"View":   func(f *mmapio.File) error { return f.View(0, c.n, func([]byte) error { return nil }) },
			"Update": func(f *mmapio.File) error { return f.Update(0, c.n, func([]byte) error { return nil }) },
			"UpdateChunks": func(f *mmapio.File) error {
				return f.UpdateChunks(0, c.n, c.n, func(mmapio.Chunk) error { return nil })
			},
			"Region": func(f *mmapio.File) error {
				r, err := f.Region(0, c.n)
				if err == nil {
					r.Release()
				}
				return err
			},
			"ValuesAt": func(f *mmapio.File) error {
				v, err := mmapio.ValuesAt[byte](f, 0, int(c.n))
				if err == nil {
					v.Release()
				}
				return err
			},
		}
		for name, do := range lend {
			f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Prefault: c.prefault})
			// This View is wide enough not to be brought in, but with the largest limit.
			if err := f.View(0, f.Size(), func(b []byte) error {
				before := prove.Count(prove.PresentPages(t, b))
				if err := do(f); err != nil {
					t.Error(err)
				}
				if all := c.prefault > 4*mib; !all && before != 0 {
					t.Errorf("%d pages are there before", before)
				}
				n := prove.Count(prove.PresentPages(t, b))
				if c.in != (n >= int((c.n+pageSize-1)/pageSize)) || !c.in && n != 0 {
					t.Errorf("Prefault %d, %s of %d bytes: %d pages are there", c.prefault, name, c.n, n)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			mustClose(t, f)
		}
	}
	for _, prefault := range []int64{-5, 0, 5} {
		f := opened(t)(mmapio.Anonymous(pageSize, &mmapio.Options{Prefault: prefault}))
		store(t, f, 0, "anonymous")
		mustClose(t, f)
	}
}

// TestHugeSparse: what is known of a mapping takes memory for what is touched,
// not for what is mapped.
func TestHugeSparse(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Disk)
	if strconv.IntSize == 32 {
		t.Skip(runtime.GOARCH + ": 32 bits have no room for it")
	}
	path := filepath.Join(prove.DiskDir(t), "sparse")
	size := int64(16<<40) - pageSize // the most that ext4 has
	f, err := mmapio.OpenFile(path, &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: size, Sparse: true})
	if errors.Is(err, unix.EFBIG) || errors.Is(err, unix.ENOMEM) {
		prove.Unable(t, "no file of 16 TiB here: %v", err)
	}
	f = opened(t)(f, err)
	before := privateMemory(t)
	for i := range int64(64) {
		off := i * (size / 64)
		store(t, f, off, "x")
		if err := readByte(f, off+3*pageSize); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	if grown := privateMemory(t) - before; grown > 16<<20 {
		t.Errorf("%d bytes of memory more for 128 pages of 16 TiB", grown)
	}
	runtime.KeepAlive(f)
}

// privateMemory is what the process has for itself, in bytes.
func privateMemory(t testing.TB) (n int64) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(status), "RssAnon:")
	if _, err := fmt.Sscanf(rest, "%d kB", &n); !ok || err != nil {
		t.Fatal("no RssAnon: ", err)
	}
	return n << 10
}
