package mmapio_test

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// Prefetch returns while the disk does not answer, asks for all of the range
// and not for a read-ahead of it, and what it has brought in is not read again.
func TestPrefetch(t *testing.T) {
	prove.Need(t, prove.Advice)
	prove.Need(t, prove.Root, prove.FUSE)
	const size = 4 << 20
	for _, mode := range []mmapio.Mode{mmapio.ReadOnly, mmapio.CopyOnWrite} {
		for _, call := range []func(f *mmapio.File) error{
			func(f *mmapio.File) error { return f.Prefetch(100, size-200) },
			func(f *mmapio.File) error { return f.Advise(100, size-200, mmapio.AdviceWillNeed) },
		} {
			fs := slowfs.Start(t, slowfs.Options{MaxBackground: 4}) // the fifth read waits
			fs.AddFile("file", size, slowfs.Offsets)
			f := mustOpen(t, fs.Path("file"), &mmapio.Options{Mode: mode})
			advise(t, f, 0, size, mmapio.AdviceRandom) // without it the kernel would read more by itself
			release := fs.Hold(slowfs.OpRead, "file")
			if err := call(f); err != nil {
				t.Fatal(err)
			}
			fs.WaitHeld(1) // and this goroutine has come here
			release()
			waitFor(t, "all of it to be read", func() bool { return fs.Stats().Bytes[slowfs.OpRead] >= size })
			want := make([]byte, size)
			slowfs.Offsets.Bytes(want, 0)
			got := make([]byte, size)
			if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("not what the file has: %v", err)
			}
			if n := fs.Stats().Bytes[slowfs.OpRead]; n != size {
				t.Errorf("%d bytes were read, of %d", n, size)
			}
			mustClose(t, f)
		}
	}
}

// Close does not wait for a Prefetch, and ends it.
func TestPrefetchClose(t *testing.T) {
	prove.Need(t, prove.Advice)
	prove.Need(t, prove.Root, prove.FUSE)
	const size = 1 << 30
	fs := slowfs.Start(t, slowfs.Options{MaxBackground: 4})
	fs.AddFile("file", size, slowfs.Zeros)
	f := mustOpen(t, fs.Path("file"), nil)
	release := fs.Hold(slowfs.OpRead, "file")
	defer release()
	for range 10 {
		if err := f.Prefetch(0, size); err != nil {
			t.Fatal(err)
		}
	}
	fs.WaitHeld(1)
	mustClose(t, f)
	release()
	if n := fs.Stats().Bytes[slowfs.OpRead]; n > size/4 {
		t.Errorf("%d bytes were read for a closed File", n)
	}
	waitFor(t, "the goroutine to end", func() bool {
		all := make([]byte, 1<<20)
		return !bytes.Contains(all[:runtime.Stack(all, true)], []byte("runPrefetch"))
	})
}

// Any number of Prefetches, with Resize and Close beside them, do no harm.
func TestPrefetchStorm(t *testing.T) {
	path, content := patternFile(t, 64*pageSize)
	for range 20 {
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range int64(2000) {
				f.Prefetch((i*7%60)*pageSize, 3*pageSize) //nolint:errcheck // may be closed or shorter
			}
		}()
		for range 5 {
			if err := f.Resize(32 * pageSize); err != nil {
				t.Fatal(err)
			}
			if err := f.Resize(64 * pageSize); err != nil {
				t.Fatal(err)
			}
		}
		if got := contentOf(t, f); !bytes.Equal(got[:32*pageSize], content[:32*pageSize]) {
			t.Fatal("changed")
		}
		mustClose(t, f)
		<-done
	}
}

// What is refused because others have the process prefetch enough leaves nothing
// behind: later there is room again.
func TestPrefetchRefused(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Pagemap)
	prove.Need(t, prove.Root, prove.FUSE)
	const size = 256 << 20
	fs := slowfs.Start(t, slowfs.Options{MaxBackground: 4})
	fs.AddFile("busy", size, slowfs.Zeros)
	fs.AddFile("later", size, slowfs.Zeros)
	release := fs.Hold(slowfs.OpRead, "busy")
	defer release()
	var busy []*mmapio.File
	for range 80 { // more than run at a time
		f := mustOpen(t, fs.Path("busy"), nil)
		check(t, f.Prefetch(0, size))
		busy = append(busy, f)
	}
	later := mustOpen(t, fs.Path("later"), nil)
	for range 200 {
		check(t, later.Prefetch(0, size))
	}
	for _, f := range busy {
		mustClose(t, f)
	}
	release()
	waitFor(t, "room", func() bool {
		check(t, later.Prefetch(0, pageSize))
		r, err := later.Residency(0, pageSize)
		check(t, err)
		return r.Resident == 1
	})
}

// A Prefetch that is over does not keep later ones from beginning.
func TestPrefetchAgain(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Pagemap)
	prove.Need(t, prove.Root, prove.FUSE)
	fs := slowfs.Start(t, slowfs.Options{ReadAhead: -1})
	fs.AddFile("file", 3*pageSize, slowfs.Zeros)
	f := mustOpen(t, fs.Path("file"), nil)
	advise(t, f, 0, f.Size(), mmapio.AdviceRandom)
	for p := range int64(3) {
		check(t, f.Prefetch(p*pageSize, pageSize))
		waitFor(t, "the page", func() bool {
			r, err := f.Residency(p*pageSize, pageSize)
			check(t, err)
			return r.Resident == 1
		})
		waitFor(t, "the goroutine to end", func() bool {
			all := make([]byte, 1<<20)
			return !bytes.Contains(all[:runtime.Stack(all, true)], []byte("runPrefetch"))
		})
	}
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// What was advised to be read at random is not read page by page where a call or a
// loop is about all of it.
func TestReadsOfRandomAreWide(t *testing.T) {
	prove.Need(t, prove.Advice)
	prove.Need(t, prove.Root, prove.FUSE)
	const size, most = 1 << 20, 20 // of 128 KiB, and a loop begins with less
	fs := slowfs.Start(t, slowfs.Options{})
	fs.AddFile("file", size, slowfs.Offsets)
	for name, read := range map[string]func(f *mmapio.File) error{
		"View":   func(f *mmapio.File) error { return f.View(0, size, func([]byte) error { return nil }) },
		"Update": func(f *mmapio.File) error { return f.Update(0, size, func([]byte) error { return nil }) },
		"Region": func(f *mmapio.File) error {
			r, err := f.Region(0, size)
			if err == nil {
				r.Release()
			}
			return err
		},
		"Chunks": func(f *mmapio.File) error {
			for _, err := range f.Chunks(0, size, 64<<10) {
				if err != nil {
					return err
				}
			}
			return nil
		},
		"ReadAt": func(f *mmapio.File) error {
			for range 2 { // the second goes to the mapping
				if _, err := f.ReadAt(make([]byte, size), 0); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		f := mustOpen(t, fs.Path("file"), &mmapio.Options{Mode: mmapio.ReadWrite})
		advise(t, f, 0, size, mmapio.AdviceRandom)
		fs.DropCache("file", 0, 0)
		before := fs.Stats().Count[slowfs.OpRead]
		check(t, read(f))
		if n := fs.Stats().Count[slowfs.OpRead] - before; n < size>>20 || n > most {
			t.Errorf("%s: %d requests", name, n)
		}
		mustClose(t, f)
	}
}
