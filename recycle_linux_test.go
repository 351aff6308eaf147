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

// landOn maps a file again and again until it lies at the address.
func landOn(t testing.TB, path string, addr uintptr) *mmapio.File {
	t.Helper()
	for range 500 {
		runtime.GC() // gives addresses back
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
		if addrOf(t, f) == addr {
			return f
		}
	}
	t.Fatalf("nothing ever lands on %x", addr)
	return nil
}

// TestRecycled has another file land on the address of a closed one. No call of
// the closed File, nor of what was made from it, gets at the other's bytes.
func TestRecycled(t *testing.T) {
	prove.Need(t, prove.Linux)
	n := 4 * pageSize
	old, next := filled(t, "old", oldByte, n), filled(t, "new", newByte, n)
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
		g := landOn(t, next, addr)

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
}

func second[T any](_ T, err error) error { return err }

// TestRecycledHeld is the same for memory that is held: it is not given away
// while a View runs and while a Region is there, whatever is mapped meanwhile.
func TestRecycledHeld(t *testing.T) {
	prove.Need(t, prove.Linux)
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
	mustClose(t, landOn(t, next, addr))
}

// TestRecycledInFlight closes Files under calls that are under way, while
// others map another file of the same length, so that it lands where the
// closed ones lay. A call that succeeds has the old file's bytes.
func TestRecycledInFlight(t *testing.T) {
	prove.Need(t, prove.Linux)
	n, cycles := 16*pageSize, 40
	if raceBuild() {
		cycles = 20
	}
	old, next := filled(t, "old", oldByte, n), filled(t, "new", newByte, n)
	landed, calls := 0, atomic.Int64{}
	seen := map[uintptr]bool{}
	for range cycles {
		f := mustOpen(t, old, nil)
		seen[addrOf(t, f)] = true
		var all sync.WaitGroup
		var begun atomic.Int32
		for range 2 {
			all.Go(func() { begun.Add(1); readStale(t, f, n, &calls) })
		}
		for begun.Load() < 2 {
			runtime.Gosched()
		}
		mustClose(t, f)
		for range 4 {
			g, err := mmapio.OpenFile(next, &mmapio.Options{Mode: mmapio.ReadWrite})
			if err != nil {
				t.Fatal(err)
			}
			if seen[addrOf(t, g)] {
				landed++
			}
			mustClose(t, g)
		}
		all.Wait()
		runtime.GC()
	}
	if landed == 0 {
		t.Error("the other file never landed where an old one was: this proves nothing")
	}
	t.Logf("%d calls, landed %d times on an address of before", calls.Load(), landed)
}

// readStale reads from a File until it is closed.
func readStale(t *testing.T, f *mmapio.File, n int64, calls *atomic.Int64) {
	p, want := make([]byte, n), bytes.Repeat([]byte{oldByte}, int(n))
	word, err := [8]byte{}, error(nil)
	for {
		calls.Add(3)
		var k int
		if k, err = f.ReadAt(p, 0); !bytes.Equal(p[:k], want[:k]) || err == nil && int64(k) != n {
			t.Errorf("ReadAt: other bytes, %d of them, %v", k, err)
			return
		}
		if err == nil {
			if word, err = mmapio.LoadAt[[8]byte](f, n-8); err == nil && word != [8]byte(want) {
				t.Errorf("LoadAt: %x", word)
				return
			}
		}
		if err == nil {
			err = f.View(0, n, func(b []byte) error {
				if !bytes.Equal(b, want) {
					t.Error("View: other bytes")
				}
				return nil
			})
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
	prove.Need(t, prove.Linux)
	if strconv.IntSize < 64 {
		t.Skip("1 TiB does not fit")
	}
	small, _ := patternFile(t, pageSize)
	large := filepath.Join(tempDir(t), "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 1<<40); err != nil {
		t.Skip(err)
	}
	for path, times := range map[string]string{small: "20000", large: "600"} {
		if res := exhaust.Run(t, prove.Args(path, times)); res.Code != 0 {
			t.Error(res)
		}
	}
}
