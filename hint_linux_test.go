package mmapio_test

import (
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// cachedAfter loops over [0, end) in pieces of n bytes, stops with the first that ends
// at stop or behind it, and returns up to where the file is in memory, or asked for,
// by then, without a gap.
func cachedAfter(t testing.TB, f *mmapio.File, end, n, stop int64) (upTo int64) {
	t.Helper()
	for c, err := range f.Chunks(0, end, n) {
		check(t, err)
		if c.Off+int64(len(c.Data)) >= stop {
			break
		}
	}
	ranges, err := f.ResidentRanges(0, f.Size())
	check(t, err)
	if len(ranges) == 0 || ranges[0].Off != 0 {
		t.Fatalf("in memory are %v", ranges)
	}
	if len(ranges) > 1 {
		t.Errorf("there are gaps: in memory are %v", ranges)
	}
	return ranges[0].Len
}

// A loop asks the kernel for more than it brings in, once it has come so far that it
// is likely to go on: two requests of the device's, within reason, of its own range.
func TestLoopHints(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Cachestat, prove.Pagemap)
	const size = 96 * mib
	for _, c := range []struct {
		name          string
		offset        int64
		huge          bool
		readAhead     int // of the device; negative: none
		end, n, stop  int64
		atLeast, most int64
	}{
		{"one piece", 0, false, -1, size / 2, pageSize, pageSize, pageSize, mib},
		{"far", 0, false, -1, size / 2, mib, 20 * mib, 22 * mib, 28 * mib},
		{"far, with an offset", pageSize + 5, false, -1, size / 2, mib, 20 * mib, 22 * mib, 28 * mib},
		{"near the end, behind a gap", mib + 5, true, -1, 22 * mib, mib, 20 * mib, 22*mib - pageSize, 22 * mib},
		{"near the end", 0, false, -1, 22 * mib, mib, 20 * mib, 22*mib - pageSize, 22 * mib},
		// A device that reads far, of what is read at random: else it is left to the kernel.
		{"much at once", 0, false, 8 * mib, size, mib, 20 * mib, 28 * mib, 41 * mib},
		{"no more than that", 0, false, 32 * mib, size, mib, 20 * mib, 28 * mib, 41 * mib},
	} {
		disk := slowfs.Start(t, slowfs.Options{ReadAhead: c.readAhead})
		disk.AddFile("f", c.offset+size, slowfs.Zeros)
		f := mustOpen(t, disk.Path("f"), &mmapio.Options{Offset: c.offset, HugePages: c.huge})
		check(t, f.Advise(0, f.Size(), mmapio.AdviceRandom)) // the kernel reads nothing by itself
		got := cachedAfter(t, f, c.end, c.n, c.stop)
		t.Logf("%s: up to %.2f MiB", c.name, float64(got)/mib)
		if got < c.atLeast || got > c.most+pageSize {
			t.Errorf("%s: after %d bytes %d are in memory or asked for, want from %d to %d", c.name, c.stop, got, c.atLeast, c.most)
		}
		mustClose(t, f)
		disk.Stop()
	}
}
