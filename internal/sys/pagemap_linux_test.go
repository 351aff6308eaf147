package sys

import (
	"slices"
	"testing"

	"github.com/mmapio/mmapio/internal/prove"
)

// Copies are told by the scan of Linux 6.7 and by the pagemap alike.
func TestCopies(t *testing.T) {
	realPages(t)
	prove.Need(t, prove.Verify)
	p := PageSize()
	const pages = 9000 // more than one read of the pagemap takes
	for name, s := range map[string]*Space{
		"file":   owned(t)(MapFile(newFile(t, pages*p), 0, pages*p, Private)),
		"memory": owned(t)(MapAnon(pages * p)),
	} {
		stored := []int{1, 2, 6, 8190, 8191, 8192, pages - 1}
		for _, i := range stored {
			s.Bytes(i*p, 1)[0]++
		}
		if name == "file" {
			sink = s.Bytes(4*p, 1)[0] // mapped in, and the file's
		}
		want := []int{1, 3, 6, 7, 8190, 8193, pages - 1, pages}
		for way, ask := range map[string]func(at, n int, run func(lo, hi int, present bool)) error{
			"Copies": s.Copies, "pagemap": s.copiesByPagemap,
		} {
			var got []int
			err := ask(0, pages*p, func(lo, hi int, present bool) {
				if n := len(got); n > 0 && got[n-1] == lo/p {
					got = got[:n-1] // runs may touch
					lo = hi
				}
				if lo < hi {
					got = append(got, lo/p)
				}
				got = append(got, hi/p)
				if !present {
					t.Errorf("%s, %s: the pages at %d are in swap", name, way, lo)
				}
			})
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s, %s: %v, %v, want %v", name, way, got, err, want)
			}
		}
		for way, ask := range map[string]func(at, n int) (lo, hi int, err error){
			"Private": s.Private, "pagemap": s.privateByPagemap,
		} {
			for _, tt := range []struct{ from, n, lo, hi int }{{0, pages, 1, 3}, {2, 2, 2, 3}, {3, 3, -1, -1}, {7, 100, -1, -1}, {6, 1, 6, 7}} {
				lo, hi, err := ask(tt.from*p, tt.n*p)
				wantLo, wantHi := tt.lo*p, tt.hi*p
				if tt.lo < 0 {
					wantLo, wantHi = -1, -1
				}
				if err != nil || lo != wantLo || hi != wantHi {
					t.Errorf("%s, %s of [%d, +%d): [%d, %d), %v; want pages [%d, %d)", name, way, tt.from, tt.n, lo, hi, err, tt.lo, tt.hi)
				}
			}
		}
	}
}
