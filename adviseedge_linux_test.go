package mmapio_test

import (
	"slices"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// The first and the last page of a File leave though there is more in them than the
// File shows, but only with all bytes that it shows.
func TestAdviseDontNeedEdges(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Disk)
	path, whole := inRAM(t, 5, &mmapio.Options{Mode: mmapio.ReadWrite})
	mustClose(t, whole)
	off, n := int64(100), 3*pageSize+50
	for _, c := range []struct {
		cut  [2]int64 // bytes left out at the front and at the end
		want []int64
	}{
		{[2]int64{0, 0}, nil},
		{[2]int64{1, 0}, []int64{0}},
		{[2]int64{0, 1}, []int64{3}},
		{[2]int64{1, 1}, []int64{0, 3}},
	} {
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Prefault: -1, Offset: off, Length: n})
		touch(t, f)
		advise(t, f, c.cut[0], n-c.cut[0]-c.cut[1], mmapio.AdviceDontNeed)
		if got := presentPages(t, f); !slices.Equal(got, c.want) {
			t.Errorf("without %d bytes: pages %d are mapped in, want %d", c.cut, got, c.want)
		}
		mustClose(t, f)
	}
}
