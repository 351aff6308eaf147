package mmapio_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// moves are the Files that are copied to grow. They open one of so many bytes, of
// the file if there is one, and make it a page longer.
var moves = map[string]struct {
	open func(path string, n int64) (*mmapio.File, error)
	grow func(f *mmapio.File, path string) error
}{
	"Resize Anonymous": {
		func(_ string, n int64) (*mmapio.File, error) { return mmapio.Anonymous(n, nil) },
		func(f *mmapio.File, _ string) error { return f.Resize(f.Size() + pageSize) },
	},
	"Refresh CopyOnWrite": {
		func(path string, _ int64) (*mmapio.File, error) {
			return mmapio.OpenFile(path, &mmapio.Options{Mode: mmapio.CopyOnWrite})
		},
		func(f *mmapio.File, path string) error {
			err := appendTo(path, make([]byte, pageSize))
			_, refreshErr := f.Refresh()
			return errors.Join(err, refreshErr)
		},
	},
}

// moveStallChild stores to pages of a File, has their memory swapped out or the
// file's pages dropped, lets the File grow, and prints how many faults had to read.
// Each page stored to has a copy afterwards, and no other has.
var moveStallChild = prove.Register("move stall", func(args []string) int {
	t, move, path := prove.T(), moves[args[0]], args[1]
	pages, err := strconv.ParseInt(args[2], 10, 64)
	stride, err2 := strconv.ParseInt(args[3], 10, 64)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	// The program's own pages are to stay, and not to be taken for the File's.
	if err := unix.Mlockall(unix.MCL_CURRENT); err != nil {
		t.Fatal(err)
	}
	f := opened(t)(move.open(path, pages*stride))
	check(t, f.Advise(0, f.Size(), mmapio.AdviceRandom)) // or the kernel reads far around a page
	for i := range pages {
		if err := writeByte(f, i*stride); err != nil {
			t.Fatal(err)
		}
	}
	if args[4] == "swap" {
		memory := memoryOf(t, f)
		if err := unix.Madvise(memory, unix.MADV_PAGEOUT); err != nil {
			t.Fatal(err)
		}
		ask(t, "empty") // what was written stays in memory for a while
		if n := prove.Count(prove.SwappedPages(t, memory)); n < int(pages)*3/4 {
			t.Fatalf("%d of %d pages in swap", n, pages)
		}
	} else {
		ask(t, "empty")
		if _, in := prove.Resident(t, path); in > 0 {
			t.Fatalf("%d pages stay in memory", in)
		}
	}
	read := prove.CountFaults(t)
	before := read()
	if err := move.grow(f, path); err != nil {
		t.Fatal(err)
	}
	fmt.Println("major", read().Major-before.Major)
	copies := int64(0)
	for _, m := range prove.Mappings(t, memoryOf(t, f)) {
		copies += m.Anonymous
	}
	if copies != pages*pageSize {
		t.Errorf("%d pages are copies, %d were stored to", copies/pageSize, pages)
	}
	for i := range pages {
		if b, err := mmapio.LoadAt[byte](f, i*stride); b != 1 || err != nil {
			t.Fatalf("page %d: %d, %v", i*stride/pageSize, b, err)
		}
	}
	mustClose(t, f)
	if t.Failed() {
		return 1
	}
	return 0
})

// stallsMoved has a child let a File grow, with the mechanism and without.
func stallsMoved(t *testing.T, args []string, empty func(), opts ...prove.Option) (major [2]int) {
	t.Helper()
	for i, env := range []string{"MMAPIO_DEBUG=", "MMAPIO_DEBUG=nopopulate"} {
		p := moveStallChild.Start(t, append(opts, prove.Args(args...), prove.Env(env))...)
		p.Expect("ask empty")
		empty()
		p.Send("done")
		n, err := strconv.Atoi(p.Expect("major "))
		if err != nil {
			t.Fatal(err)
		}
		major[i] = n
		if res := p.Wait(); res.Code != 0 {
			t.Error(res)
		}
	}
	return major
}

// TestNoStallRefresh: what a CopyOnWrite File copies to grow waits for no disk,
// though the file's pages below the copies have left memory, and each copy is
// made from one.
func TestNoStallRefresh(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	prove.Need(t, prove.Advice, prove.Disk)
	path := coldFile(t)
	args := []string{"Refresh CopyOnWrite", path, strconv.Itoa(stallPages), strconv.Itoa(diskStride), "disk"}
	n := stallsMoved(t, args, func() { dropCache(t, path) })
	if n[0] != 0 || n[1] < stallPages-1 {
		t.Errorf("%d major faults for %d pages, %d with the mechanism off", n[0], stallPages, n[1])
	}
}

// TestNoStallMove is the same with the copies in swap.
func TestNoStallMove(t *testing.T) {
	if raceBuild() {
		prove.Unable(t, "the race detector has faults of its own")
	}
	prove.Need(t, prove.Pagemap)
	prove.Need(t, prove.Advice, prove.Disk)
	prove.Swap(t, 64<<20)
	const pages = 1024 // at a fault the kernel reads eight
	group := prove.MemoryCgroup(t, 256<<20)
	for how := range moves {
		t.Run(how, func(t *testing.T) {
			path := prove.NewFile(t, prove.DiskDir(t), filepath.Base(t.Name()), pages*pageSize)
			args := []string{how, path, strconv.Itoa(pages), strconv.FormatInt(pageSize, 10), "swap"}
			n := stallsMoved(t, args, func() { group.ForceEmpty(t) }, prove.In(group))
			// The program's own pages may be taken as well, so there are some.
			if n[0] > 20 || n[1] < pages/16 {
				t.Errorf("%d major faults for %d pages, %d with the mechanism off", n[0], pages, n[1])
			}
		})
	}
}

// TestRefreshUnreadable: a page of the file that cannot be read below a copy fails
// the Refresh and is named, wherever it is in a long run; nothing is lost, and the
// pages around it still wait for no disk. One below no copy is nobody's concern.
func TestRefreshUnreadable(t *testing.T) {
	prove.NeedE2E(t, prove.Linux, prove.Root, prove.FUSE)
	prove.Need(t, prove.Advice)
	const pages, bad, after = 700, 300, 640 // in the second and the third step
	fs := slowfs.Start(t, slowfs.Options{})
	for _, offset := range []int64{0, 5} {
		name := fmt.Sprint("file", offset)
		fs.AddFile(name, (pages+10)*pageSize, slowfs.Offsets)
		f := mustOpen(t, fs.Path(name), &mmapio.Options{Mode: mmapio.CopyOnWrite, Offset: offset})
		check(t, f.Advise(0, f.Size(), mmapio.AdviceRandom))
		want := pattern(pages*pageSize-offset, 7)
		store(t, f, 0, string(want))
		check(t, appendTo(fs.Path(name), make([]byte, pageSize)))
		fs.FailReads(name, (pages+2)*pageSize, pageSize, syscall.EIO)
		healFirst := fs.FailReads(name, bad*pageSize, pageSize, syscall.EIO)
		healSecond := fs.FailReads(name, after*pageSize, pageSize, syscall.EIO)
		read := prove.CountFaults(t)
		for _, c := range []struct {
			page int64
			heal func()
		}{{bad, healFirst}, {after, healSecond}} {
			fs.DropCache(name, 0, 0)
			before, faults := f.Size(), read().Major
			size, err := f.Refresh()
			faults = read().Major - faults
			wantFault(t, err, "refresh", c.page*pageSize, offset, syscall.EIO)
			if size != before || f.Size() != before {
				t.Errorf("%d bytes after a Refresh that failed, were %d", size, before)
			}
			if faults > 20 {
				t.Errorf("%d major faults before page %d", faults, c.page)
			}
			same(t, "the copies", memoryOf(t, f)[:len(want)], want)
			c.heal()
		}
		if size, err := f.Refresh(); size != (pages+11)*pageSize-offset || err != nil {
			t.Fatal(size, err)
		}
		same(t, "the copies", memoryOf(t, f)[:len(want)], want)
		mustClose(t, f)
	}
}
