package mmapio_test

import (
	"fmt"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// swapStallChild has memory with no file behind it swapped out, loads each page
// of it, and prints how many faults had to read from the swap file.
var swapStallChild = prove.Register("swap stall", func(args []string) int {
	t, way := prove.T(), touchAll[args[0]]
	const pages = 512
	// The program's own pages are to stay, and not to be taken for the File's.
	if err := unix.Mlockall(unix.MCL_CURRENT); err != nil {
		t.Fatal(err)
	}
	f := opened(t)(mmapio.Anonymous(pages*pageSize, nil))
	for i := range int64(pages) {
		if err := writeByte(f, i*pageSize); err != nil {
			t.Fatal(err)
		}
	}
	var memory []byte
	f.View(0, f.Size(), func(b []byte) error { memory = b; return nil }) //nolint:errcheck // nothing can fail
	if err := unix.Madvise(memory, unix.MADV_PAGEOUT); err != nil {
		t.Fatal(err)
	}
	ask(t, "empty") // what was written stays in memory for a while
	if n := prove.Count(prove.SwappedPages(t, memory)); n < pages*3/4 {
		t.Fatalf("%d of %d pages in swap", n, pages)
	}
	f.Expire()
	read := prove.CountFaults(t)
	before := read()
	for i := range int64(pages) {
		if err := way.do(f, i*211%pages*pageSize); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println("major", read().Major-before.Major)
	mustClose(t, f)
	return 0
})

// TestNoStallSwap: memory that was swapped out is brought in by system calls.
func TestNoStallSwap(t *testing.T) {
	if raceBuild() {
		prove.Unable(t, "the race detector has faults of its own")
	}
	prove.Need(t, prove.Pagemap)
	prove.Need(t, prove.Advice)
	prove.Swap(t, 64<<20)
	group := prove.MemoryCgroup(t, 256<<20)
	for _, way := range []string{"ReadAt", "WriteAt", "LoadAt", "StoreAt", "View", "Update", "Region"} {
		t.Run(way, func(t *testing.T) {
			var faults [2]int
			for i, env := range []string{"MMAPIO_DEBUG=", "MMAPIO_DEBUG=nopopulate"} {
				p := swapStallChild.Start(t, prove.Args(way), prove.Env(env), prove.In(group))
				p.Expect("ask empty")
				group.ForceEmpty(t)
				p.Send("done")
				n, err := strconv.Atoi(p.Expect("major "))
				if err != nil {
					t.Fatal(err)
				}
				faults[i] = n
				if res := p.Wait(); res.Code != 0 {
					t.Error(res)
				}
			}
			// The program's own pages may be taken as well, so there are some.
			if faults[0] > 20 || faults[1] < 256 {
				t.Errorf("%d major faults for 512 pages, %d with the mechanism off", faults[0], faults[1])
			}
		})
	}
}
