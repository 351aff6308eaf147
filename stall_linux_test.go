package mmapio_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// dropCache takes the pages of a file that nobody maps out of memory.
func dropCache(t testing.TB, path string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
}

// diskStride is so wide that to read ahead does not bring in all pages at the
// first fault.
const diskStride = 1 << 19

// coldFile makes a file with nothing of it in memory, nor on the disk: to bring
// a hole in is a major fault as well.
func coldFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(prove.DiskDir(t), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, stallPages*diskStride); err != nil {
		t.Fatal(err)
	}
	if _, in := prove.Resident(t, path); in > 0 {
		t.Fatalf("%d pages stay in memory", in)
	}
	return path
}

// TestNoStall touches cold pages of a file on a disk in every way: no
// instruction waits for the disk, and with the mechanism off some do.
func TestNoStall(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Disk)
	for way := range touchAll {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			if n, _ := stalls(t, way, coldFile(t), diskStride, false); n != 0 {
				t.Errorf("%d major faults", n)
			}
			// The kernel reads ahead, so they are fewer than pages, and may be
			// none in a loop over all.
			if touchAll[way].whole || touchAll[way].calls {
				return
			}
			if n, _ := stalls(t, way, coldFile(t), diskStride, true); n < 1 {
				t.Errorf("%d major faults with the mechanism off", n)
			}
		})
	}
}

// TestNoStallFUSE is the same where nothing is read ahead: with the mechanism
// off each page is a fault that waits.
func TestNoStallFUSE(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	prove.Need(t, prove.Advice)
	fs := slowfs.Start(t, slowfs.Options{ReadAhead: -1})
	for way := range touchAll {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			// Whoever waits for another thread's fault has a minor one.
			for off, want := range map[bool]int{false: 0, true: stallPages / 4} {
				name := strings.ReplaceAll(way, " ", "") + fmt.Sprint(off)
				fs.AddFile(name, stallPages*pageSize+100, slowfs.Offsets)
				n, _ := stalls(t, way, fs.Path(name), pageSize, off)
				if n < want && !touchAll[way].calls || !off && n != 0 {
					t.Errorf("%d major faults, want %d", n, want)
				}
			}
		})
	}
}

// TestNoFaultAtStores: the first store to a page, which would be a minor fault
// that may wait for write-back, is none.
func TestNoFaultAtStores(t *testing.T) {
	if raceBuild() {
		prove.Unable(t, "the race detector has faults of its own")
	}
	prove.Need(t, prove.Advice, prove.Disk)
	for _, way := range []string{"WriteAt", "StoreAt", "WriteAt CopyOnWrite"} {
		if _, n := stalls(t, way, coldFile(t), diskStride, false); n > stallPages/4 {
			t.Errorf("%s: %d minor faults for %d pages", way, n, stallPages)
		}
		if major, n := stalls(t, way, coldFile(t), diskStride, true); major+n < stallPages-1 {
			t.Errorf("%s: %d and %d faults for %d pages with the mechanism off", way, major, n, stallPages)
		}
	}
}

// TestCutOffIsNotKnown: what a shrink has taken away is not known to be in memory when
// other pages are in its place.
func TestCutOffIsNotKnown(t *testing.T) {
	prove.Need(t, prove.Advice)
	t.Cleanup(mmapio.KnownFor(time.Hour, time.Hour))
	path, _ := patternFile(t, 4*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Reserve: 8 * pageSize})
	for p := range int64(4) {
		store(t, f, p*pageSize, "x")
	}
	if load, put := f.Known(0, int(f.Size())); !load || !put {
		t.Fatalf("nothing is known: load %v, store %v", load, put)
	}
	mustResize(t, f, pageSize+8)
	mustResize(t, f, 4*pageSize)
	for p, want := range []bool{true, true, false, false} {
		if load, put := f.Known(int64(p)*pageSize, 8); load != want || put != want {
			t.Errorf("page %d: load %v, store %v, want %v", p, load, put, want)
		}
	}
}
