package mmapio_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// setReadAhead sets that of the device of a path, in KiB.
func setReadAhead(t *testing.T, path string, kb int) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	dev := uint64(st.Dev) //nolint:unconvert // narrower elsewhere
	at := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(dev), unix.Minor(dev))
	if err := os.WriteFile(at, fmt.Append(nil, kb), 0); err != nil {
		t.Fatal(err)
	}
}

// Where the kernel reads far ahead by itself, a loop leaves it to that, which
// fills the page cache with large pages. Where it does not, the loop asks for
// more than the kernel would read, and the pages are small.
func TestLoopLeavesReadingFarToTheKernel(t *testing.T) {
	const size = 64 << 20
	disk := prove.LoopFS(t, "ext4", 2*size)
	path := filepath.Join(disk.Dir, "file")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	large := func(kb int, read func(f *mmapio.File)) float64 {
		setReadAhead(t, path, kb)
		dropCache(t, path)
		f := mustOpen(t, path, nil) // looks at the read-ahead
		defer mustClose(t, f)
		read(f)
		var pages []bool
		err := f.View(size/2, size/2, func(b []byte) error {
			pages = prove.LargePages(t, b)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return float64(prove.Count(pages)) / float64(len(pages))
	}
	chunks := func(f *mmapio.File) {
		for _, err := range f.Chunks(0, size, 1<<20) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if far := large(8192, func(f *mmapio.File) {
		buf := make([]byte, 1<<20)
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		for off := int64(0); off < size; off += 1 << 20 {
			if _, err := file.ReadAt(buf, off); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Populate(t.Context(), 0, size); err != nil {
			t.Fatal(err)
		}
	}); far < 0.5 {
		prove.Unable(t, "ext4 has no large pages here (Linux 6.16)")
	}
	if far := large(8192, chunks); far < 0.5 {
		t.Errorf("with a read-ahead of 8 MiB %.2f of the pages are parts of large ones", far)
	}
	if near := large(128, chunks); near > 0.5 {
		t.Errorf("with a read-ahead of 128 KiB %.2f of the pages are parts of large ones", near)
	}
}

// UpdateChunks brings in the pieces that are short enough, and nothing of those
// that are not, whatever size it was called with.
func TestUpdateChunksBringsInShortPieces(t *testing.T) {
	prove.Need(t, prove.Advice)
	t.Cleanup(mmapio.KnownFor(time.Hour, time.Hour))
	path, _ := patternFile(t, 100*pageSize)
	for _, c := range []struct {
		n, size int64
		want    []int // pages of each piece that are known when fn is called with it
	}{
		{2 * pageSize, 1 << 62, []int{2}},
		{100 * pageSize, 99 * pageSize, []int{0, 1}},
		{100 * pageSize, 98 * pageSize, []int{0, 2}},
		{100 * pageSize, 97 * pageSize, []int{0, 0}},
	} {
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Prefault: 2 * pageSize})
		known := func(off, n int64) (pages int) {
			for at := off; at < off+n; at += pageSize {
				if load, _ := f.Known(at, 1); load {
					pages++
				}
			}
			return pages
		}
		var got []int
		check(t, f.UpdateChunks(0, c.n, c.size, func(p mmapio.Chunk) error {
			got = append(got, known(p.Off, int64(len(p.Data))))
			return nil
		}))
		if !slices.Equal(got, c.want) {
			t.Errorf("%d bytes in pieces of %d: %v pages of each are known, want %v", c.n, c.size, got, c.want)
		}
		if c.size < c.n && known(0, c.size) > 0 {
			t.Errorf("%d bytes in pieces of %d: %d pages of the first are known afterwards", c.n, c.size, known(0, c.size))
		}
		mustClose(t, f)
	}
}

// A loop brings in more than the piece that it is at. What of it has left by the
// time that the loop comes to it is brought in again, and no instruction waits for it.
func TestLoopLooksAgain(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	prove.Need(t, prove.Advice)
	t.Cleanup(mmapio.KnownFor(time.Hour, time.Hour))
	fs := slowfs.Start(t, slowfs.Options{ReadAhead: -1})
	leave := map[string]func(f *mmapio.File){
		"advice": func(f *mmapio.File) { check(t, f.Advise(0, f.Size(), mmapio.AdviceDontNeed)) },
		"time": func(f *mmapio.File) {
			f.Expire()
			evict(t, f)
		},
		"time, in another loop": func(f *mmapio.File) {
			f.Expire()
			evict(t, f)
			for _, err := range f.Chunks(400*pageSize, 1, 1) {
				check(t, err)
			}
		},
	}
	for name, loop := range loops {
		for how, gone := range leave {
			path := strings.ReplaceAll(name+how, " ", "")
			fs.AddFile(path, 512*pageSize, slowfs.Offsets)
			// View must bring nothing in: see evict.
			f := mustOpen(t, fs.Path(path), &mmapio.Options{Mode: mmapio.ReadWrite, Prefault: pageSize})
			n, read := 0, func() prove.Faults { return prove.Faults{} }
			check(t, loop(f, func(c mmapio.Chunk) error {
				if n++; n == 120 { // in the middle of what came in together
					gone(f)
					read = prove.CountFaults(t)
					return nil
				}
				return touchSlice(c.Data)
			}))
			if got := read(); got.Major > 0 {
				t.Errorf("%s, left by %s: %d major faults", name, how, got.Major)
			}
			mustClose(t, f)
		}
	}
}

// Where nothing is known whatever is done, a loop makes no system call for each
// piece all the same.
func TestLoopWhereNothingIsKnown(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Cachestat)
	prove.Need(t, prove.TmpfsMount)
	t.Cleanup(mmapio.KnownFor(time.Hour, time.Hour))
	const pieces = 512 << 3
	for name, path := range map[string]string{
		"closed": filepath.Join(t.TempDir(), "f"),
		"holes":  filepath.Join(prove.SmallTmpfs(t, 1<<20), "f"),
	} {
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: 512 * pageSize, Sparse: true})
		store(t, f, 0, "x")
		n := 0
		calls := prove.CountSyscalls(t, 0, func() {
			check(t, f.UpdateChunks(0, f.Size(), pageSize>>3, func(mmapio.Chunk) error {
				switch n++; {
				case n == pieces/2 && name == "closed":
					return f.Close()
				case n == pieces/2:
					f.Expire()
				}
				return nil
			}))
		})
		if n != pieces || calls > pieces/8 {
			t.Errorf("%s: %d system calls for %d pieces", name, calls, n)
		}
	}
}

// A device is slow if it takes more than 2 ms for a MiB, over 32 of them, and
// stays so for 256.
func TestLoopTellsSlowDevices(t *testing.T) {
	const mib = 1 << 20
	each := func(d time.Duration, n int) []time.Duration { return slices.Repeat([]time.Duration{d}, n) }
	for _, c := range []struct {
		name string
		took []time.Duration
		want int64
	}{
		{"fast", each(time.Millisecond, 1000), 0},
		{"slow", each(5*time.Millisecond, 16), 30*mib + 256*mib},
		{"not long enough to tell", each(5*time.Millisecond, 15), 0},
		{"one long wait", append(each(time.Millisecond, 100), append(each(40*time.Millisecond, 1), each(time.Millisecond, 100)...)...), 0},
		{"slow, then fast", append(each(5*time.Millisecond, 16), each(time.Millisecond, 1000)...), 30*mib + 256*mib},
	} {
		if got := mmapio.SlowUntil(2*mib, c.took...); got != c.want {
			t.Errorf("%s: until %d, want %d", c.name, got, c.want)
		}
	}
}

// A piece that lies beyond the end of a file that was cut is never handed out.
func TestUpdateChunksOfCutFile(t *testing.T) {
	prove.Need(t, prove.Advice, prove.FileEnd)
	path, _ := patternFile(t, 8*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	check(t, os.Truncate(path, 3*pageSize))
	passed := int64(0)
	err := f.UpdateChunks(0, f.Size(), pageSize, func(mmapio.Chunk) error { passed++; return nil })
	wantFault(t, err, "updatechunks", 3*pageSize, 0, io.ErrUnexpectedEOF)
	if passed != 3 {
		t.Errorf("%d pieces were handed out, want 3", passed)
	}
}
