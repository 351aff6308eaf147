package mmapio_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// addrOf is where a File's first byte is mapped.
func addrOf(t testing.TB, f *mmapio.File) (addr uintptr) {
	t.Helper()
	if err := f.View(0, 1, func(b []byte) error { addr = uintptr(unsafe.Pointer(&b[0])); return nil }); err != nil {
		t.Fatal(err)
	}
	return addr
}

// filled makes a file of n equal bytes.
func filled(t testing.TB, name string, c byte, n int64) (path string) {
	t.Helper()
	path = filepath.Join(tempDir(t), name)
	if err := os.WriteFile(path, bytes.Repeat([]byte{c}, int(n)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const oldByte, newByte = 0xAA, 0xBB

// landOn maps a file again and again until it lies where another one lay, in
// part at least, which had the same length. It gives up where the kernel finds
// other gaps for too long.
func landOn(t testing.TB, path string, addr uintptr) (f *mmapio.File, landed bool) {
	t.Helper()
	for range 200 {
		f = justOpened(t, path)
		at, n := addrOf(t, f), uintptr(f.Size())
		if at < addr+n && addr < at+n {
			return f, true
		}
		defer mustClose(t, f) // until then it fills the gap
		runtime.GC()          // gives addresses back
	}
	return justOpened(t, path), false
}

// TestRecycled has another file land on the address of a closed one. No call of
// the closed File, nor of what was made from it, gets at the other's bytes.
func TestRecycled(t *testing.T) {
	prove.Need(t, prove.Recycling)
	n := 4 * pageSize
	old, next := filled(t, "old", oldByte, n), filled(t, "new", newByte, n)
	hits := 0
	for range 5 {
		f := mustOpen(t, old, &mmapio.Options{Mode: mmapio.ReadWrite})
		addr := addrOf(t, f)
		section := mustSection(t, f, 0, n)
		chunks, pages := f.Chunks(0, n, pageSize), f.Pages(0, n)
		r, err := f.Region(0, n)
		if err != nil {
			t.Fatal(err)
		}
		v, err := mmapio.ValueAt[atomic.Uint64](f, 0)
		if err != nil {
			t.Fatal(err)
		}
		mustClose(t, f)
		r.Release()
		v.Release()
		g, landed := landOn(t, next, addr)
		if landed {
			hits++
		}

		p, none := make([]byte, n), func([]byte) error { t.Error("called"); return nil }
		for op, err := range map[string]error{
			"readat":       second(f.ReadAt(p, 0)),
			"writeat":      second(f.WriteAt(p, 0)),
			"view":         f.View(0, n, none),
			"update":       f.Update(0, n, none),
			"updatechunks": f.UpdateChunks(0, n, 1, nil),
			"loadat":       second(mmapio.LoadAt[uint64](f, 0)),
			"storeat":      mmapio.StoreAt(f, 0, uint64(1)),
			"region":       second(f.Region(0, 1)),
			"valueat":      second(mmapio.ValueAt[uint64](f, 0)),
			"valuesat":     second(mmapio.ValuesAt[uint64](f, 0, 1)),
			"section":      second(f.Section(0, 1)),
			"lock":         f.Lock(0, n),
			"sync":         f.Sync(),
			"resize":       f.Resize(0),
		} {
			wantPathError(t, err, op, old, fs.ErrClosed)
		}
		wantPathError(t, second(section.ReadAt(p, 0)), "readat", old, fs.ErrClosed)
		wantPathError(t, errorsOf(t, chunks)[0], "chunks", old, fs.ErrClosed)
		wantPathError(t, errorsOf(t, pages)[0], "pages", old, fs.ErrClosed)
		if !bytes.Equal(p, make([]byte, n)) {
			t.Error("got bytes from a closed File")
		}
		if r.Bytes() != nil || v.Ptr() != nil {
			t.Error("memory after Release")
		}
		same(t, "the other file", contentOf(t, g), bytes.Repeat([]byte{newByte}, int(n)))
		mustClose(t, g)
	}
	if hits == 0 {
		t.Error("the other file never landed on the address: this proves nothing")
	}
}

func second[T any](_ T, err error) error { return err }

// TestRecycledHeld is the same for memory that is held: it is not given away
// while a View runs and while a Region is there, whatever is mapped meanwhile.
func TestRecycledHeld(t *testing.T) {
	prove.Need(t, prove.Recycling)
	n := 4 * pageSize
	old, next := filled(t, "old", oldByte, n), filled(t, "new", newByte, n)
	want := bytes.Repeat([]byte{oldByte}, int(n))
	f := mustOpen(t, old, nil)
	r, err := f.Region(0, n)
	if err != nil {
		t.Fatal(err)
	}
	err = f.View(0, n, func(b []byte) error {
		mustClose(t, f)
		for range 50 {
			runtime.GC()
			g := mustOpen(t, next, nil)
			if addrOf(t, g) == uintptr(unsafe.Pointer(&b[0])) {
				return errors.New("landed on what is held")
			}
			same(t, "the view", b, want)
			same(t, "the region", r.Bytes(), want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	same(t, "the region", r.Bytes(), want)
	addr := uintptr(unsafe.Pointer(&r.Bytes()[0]))
	r.Release()
	if g, landed := landOn(t, next, addr); !landed {
		t.Error("nothing lands on what is released")
	} else {
		mustClose(t, g)
	}
}

// TestRecycledInFlight closes Files under calls that are under way, while
// others map another file of the same length: where the old one lay, if its
// addresses were given back too early. A call that succeeds has the old file's
// bytes. The files are so long that to copy one takes longer than to close and
// to map, and too short for the kernel to align them to large pages.
func TestRecycledInFlight(t *testing.T) {
	prove.Need(t, prove.Maps)
	const n = 2<<20 - 1<<16
	cycles := 20
	if prove.E2E() {
		cycles = 150
	}
	old, next := filled(t, "old", oldByte, n), filled(t, "new", newByte, n)
	want := bytes.Repeat([]byte{oldByte}, n)
	var calls atomic.Int64
	for i := range cycles {
		f := mustOpen(t, old, nil)
		var all sync.WaitGroup
		begun := make(chan struct{}, 2)
		for range 2 {
			all.Go(func() { readStale(t, f, want, i%3 == 0, begun, &calls) })
		}
		<-begun
		<-begun
		mustClose(t, f)
		var others [4]*mmapio.File
		for i := range others {
			others[i] = mustOpen(t, next, &mmapio.Options{Mode: mmapio.ReadWrite})
			if i == 1 && calls.Load()%2 == 0 { // sometimes
				runtime.GC() // what nobody is inside of may go now
			}
		}
		all.Wait()
		for _, g := range others {
			mustClose(t, g)
		}
	}
	t.Logf("%d calls", calls.Load())
}

// readStale reads from a File until it is closed, by copying or by viewing.
func readStale(t *testing.T, f *mmapio.File, want []byte, view bool, begun chan<- struct{}, calls *atomic.Int64) {
	p := make([]byte, len(want))
	for {
		if calls.Add(1); begun != nil {
			begun <- struct{}{}
			begun = nil
		}
		var err error
		if view {
			err = f.View(0, int64(len(want)), func(b []byte) error {
				if !bytes.Equal(b, want) {
					t.Error("View: other bytes")
				}
				return nil
			})
		} else {
			var k int
			if k, err = f.ReadAt(p, 0); !bytes.Equal(p[:k], want[:k]) || err == nil && k != len(p) {
				t.Errorf("ReadAt: other bytes, %d of them, %v", k, err)
				return
			}
		}
		if err == nil {
			var word [8]byte
			if word, err = mmapio.LoadAt[[8]byte](f, 8); err == nil && word != [8]byte(want) {
				t.Errorf("LoadAt: %x", word)
				return
			}
		}
		if errors.Is(err, fs.ErrClosed) {
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// exhaust opens and closes Files with a collector that never runs by itself, so
// that nobody but the library sees to it that addresses are given back. Its
// arguments are a path and how often.
var exhaust = prove.Register("exhaust", func(args []string) int {
	t := prove.T()
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 40)
	times, err := strconv.Atoi(args[1])
	if err != nil {
		t.Fatal(err)
	}
	// Some stay open for a while, so that what was closed is not one piece.
	var open [50]*mmapio.File
	for i := range times {
		f, err := mmapio.Open(args[0])
		if err != nil {
			t.Fatalf("the %d. time: %v", i, err)
		}
		at := i % len(open)
		if open[at] != nil {
			if err := open[at].Close(); err != nil {
				t.Fatal(err)
			}
		}
		open[at] = f
	}
	_, total := prove.MappedFiles(t, args[0])
	fmt.Println(total, "mappings")
	return 0
})

// TestNoExhaustion opens and closes more often than a process may have
// mappings, and more bytes than it may have addresses.
func TestNoExhaustion(t *testing.T) {
	prove.Need(t, prove.Recycling)
	if strconv.IntSize < 64 {
		t.Skip(runtime.GOARCH + ": 1 TiB does not fit into 32 bits")
	}
	small, _ := patternFile(t, pageSize)
	large := filepath.Join(tempDir(t), "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 1<<40); err != nil {
		prove.Unable(t, "%v", err)
	}
	often := map[string]string{small: "20000", large: "300"}
	if raceBuild() {
		often[small] = "4000" // each takes ten times as long
	}
	for path, times := range often {
		if res := exhaust.Run(t, prove.Args(path, times)); res.Code != 0 {
			t.Error(res)
		}
	}
}
