package mmapio_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// A page that was seen in memory a moment ago is locked by one call, without another
// that brings it in: it is enough to look. Of a page or two that nothing is known of the
// page cache is asked, if it is all that a look depends on.
func TestFewAreFewCalls(t *testing.T) {
	if raceBuild() {
		prove.Unable(t, "the race detector makes calls of its own")
	}
	prove.NeedE2E(t, prove.Verify, prove.Populating, prove.Disk)
	t.Cleanup(mmapio.KnownFor(time.Hour, time.Hour))
	const pins = 32
	const stray = 8 // the Go runtime gives memory back meanwhile, by madvise
	// So far behind the start that to read ahead of a fault does not reach back to it.
	const far = 32 << 20
	for _, c := range []struct {
		name   string
		dir    func(testing.TB) string
		opts   mmapio.Options
		lock   bool // not pinned
		cold   bool // nothing is in the page cache
		pages  int64
		asks   string // the call that is made for each of so many pages
		number int
	}{
		{name: "one page", pages: 1, asks: "preadv2", number: 1},
		{name: "two pages", pages: 2, asks: "preadv2", number: 1},
		{name: "lock", lock: true, pages: 1, asks: "preadv2", number: 1},
		{name: "three pages", pages: 3, asks: "madvise", number: 1},
		{name: "ReadWrite", opts: mmapio.Options{Mode: mmapio.ReadWrite}, pages: 1, asks: "preadv2", number: 1},
		{name: "Offset", opts: mmapio.Options{Offset: far + 5}, pages: 1, asks: "preadv2", number: 1},
		{name: "CopyOnWrite", opts: mmapio.Options{Mode: mmapio.CopyOnWrite}, pages: 1, asks: "madvise", number: 1},
		{name: "DropFD", opts: mmapio.Options{DropFD: true}, pages: 1, asks: "madvise", number: 1},
		{name: "cold", cold: true, pages: 1, asks: "madvise", number: 1},
		{name: "tmpfs", dir: func(t testing.TB) string { return prove.SmallTmpfs(t, 64<<20) }, pages: 1, asks: "madvise", number: 1}, // may be in swap
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.dir == nil {
				c.dir = prove.DiskDir
			}
			path := prove.NewFile(t, c.dir(t), "f", far+pins*3*pageSize)
			f := mustOpen(t, path, &c.opts)
			each := 3 * pageSize
			if c.cold {
				each = far / pins // further than the kernel reads ahead of a page
			}
			pin := func() {
				for i := range int64(pins - 1) {
					off, n := i*each, c.pages*pageSize-c.opts.Offset%pageSize
					if c.lock {
						check(t, f.Lock(off, n))
						check(t, f.VerifyLocked(off, n))
						check(t, f.Unlock(off, n))
						continue
					}
					check(t, mustPin(t, f, off, n).Release())
				}
			}
			forget := func() {
				f.Expire()
				f.Expire() // what was known a moment ago is not, either
				if c.cold {
					check(t, unix.Madvise(memoryOf(t, f), unix.MADV_DONTNEED))
				}
				dropCache(t, path) // but for what is mapped
			}
			pin() // the first of a File asks what the file system is
			for _, call := range []string{"madvise", "preadv2"} {
				forget()
				want := 0
				if call == c.asks {
					want = (pins - 1) * c.number
				}
				if c.cold {
					want /= 2 // the disk may be faster
				}
				if n := prove.CountCalls(t, call, pin); n < want || want == 0 && n > stray && !c.cold {
					t.Errorf("pages that nothing is known of: %d calls of %s, want %d", n, call, want)
				}
			}
			pin()
			for _, call := range []string{"madvise", "preadv2"} {
				if n := prove.CountCalls(t, call, pin); n > stray {
					t.Errorf("known pages: %d calls of %s", n, call)
				}
			}
		})
	}
}

// A page that is known, but that the kernel has taken out of the mapping since, or out
// of memory altogether, is brought back.
func TestProofPinKnownAndGone(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Disk)
	path := filepath.Join(prove.DiskDir(t), "f")
	check(t, os.WriteFile(path, pattern(64*pageSize, 1), 0o600))
	file, err := os.Open(path)
	check(t, err)
	defer func() { check(t, file.Close()) }()
	check(t, file.Sync())
	f := mustOpen(t, path, nil)
	b := memoryOf(t, f)
	for _, evict := range []bool{false, true} {
		check(t, f.Populate(t.Context(), 0, f.Size()))
		check(t, unix.Madvise(b, unix.MADV_DONTNEED))
		if evict {
			check(t, unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED))
		}
		for off := int64(0); off < f.Size(); off += 8 * pageSize {
			p, err := f.Pin(off+5, pageSize)
			check(t, err)
			heldAs(t, fmt.Sprintf("evicted %v", evict), f, true, mmapio.Range{Off: off, Len: 2 * pageSize})
			check(t, p.Release())
			heldAs(t, "released", f, true)
		}
	}
}

// A page that is known and gone is missed, not believed in.
func TestProofPinKnownAndCut(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.FileEnd, prove.BusAddress)
	path, _ := patternFile(t, 8*pageSize)
	f := mustOpen(t, path, nil)
	check(t, f.Populate(t.Context(), 0, f.Size()))
	prove.Truncate(t, path, 5*pageSize)
	_, err := f.Pin(4*pageSize, 3*pageSize)
	var le *mmapio.LockError
	if !errors.As(err, &le) || le.Cause != mmapio.CauseBeyondEOF {
		t.Errorf("a pin of what was cut off: %v", err)
	}
	heldAs(t, "refused", f, true)
	p, err := f.Pin(3*pageSize, 2*pageSize)
	check(t, err)
	check(t, f.VerifyLocked(3*pageSize, 2*pageSize))
	check(t, p.Release())
}

// Some pin and let go of the same few pages all the time, and one looks whether those
// that he has pinned are kept meanwhile. In the end nothing is.
func TestProofPinCrowd(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	path, _ := patternFile(t, 3*pageSize)
	f := mustOpen(t, path, nil)
	check(t, f.Populate(t.Context(), 0, f.Size()))
	var wg sync.WaitGroup
	var enough atomic.Bool
	for g := range int64(3) {
		wg.Go(func() {
			for i := g; !enough.Load(); i++ {
				p, err := f.Pin(i%2*pageSize, 1+i/2%2*pageSize) // of each other one the page behind as well
				if err != nil {
					t.Error(err)
					return
				}
				check(t, p.Release())
			}
		})
	}
	for i := range int64(3000) {
		p, err := f.Pin(i%3*pageSize, pageSize)
		check(t, err)
		if err := f.VerifyLocked(i%3*pageSize, pageSize); err != nil {
			t.Error(err)
			break
		}
		check(t, p.Release())
	}
	enough.Store(true)
	wg.Wait()
	if n := f.LockedBytes(); n != 0 {
		t.Errorf("%d bytes are locked after all was released", n)
	}
	heldAs(t, "released", f, true)
}

// The mappings that a pin of a known page costs are counted as long as it lasts.
func TestPinKnownCountsMappings(t *testing.T) {
	prove.Need(t, prove.Populating)
	path, _ := patternFile(t, 8*pageSize)
	f := mustOpen(t, path, nil)
	check(t, f.Populate(t.Context(), 0, f.Size()))
	before := mmapio.Splits()
	for _, want := range []int64{2, 1} { // in the middle, at the start
		p, err := f.Pin((want-1)*3*pageSize, pageSize)
		check(t, err)
		if n := mmapio.Splits() - before; n != want {
			t.Errorf("a pin costs %d mappings by the books, want %d", n, want)
		}
		check(t, p.Release())
		if n := mmapio.Splits() - before; n != 0 {
			t.Errorf("%d mappings are counted after it was released", n)
		}
	}
}

// So are those of pins that touch: the page that is let go was not alone.
func TestPinsThatTouchCountMappings(t *testing.T) {
	prove.Need(t, prove.Populating)
	path, _ := patternFile(t, 9*pageSize)
	f := mustOpen(t, path, nil)
	check(t, f.Populate(t.Context(), 0, f.Size()))
	before := mmapio.Splits()
	var pins []*mmapio.Pin
	for _, page := range []int64{3, 5, 4} {
		p, err := f.Pin(page*pageSize, pageSize)
		check(t, err)
		pins = append(pins, p)
	}
	for i, want := range []int64{2, 2, 0} { // pages 4 and 5, page 4
		check(t, pins[i].Release())
		if n := mmapio.Splits() - before; n != want {
			t.Errorf("%d mappings are counted when %d pins of 3 are released, want %d", n, i+1, want)
		}
	}
}

// A page of which the page cache has some blocks only is brought in by a call, as to
// load from it would wait for the disk.
func TestPinOfSomeBlocks(t *testing.T) {
	if raceBuild() {
		prove.Unable(t, "the race detector makes calls of its own")
	}
	prove.NeedE2E(t, prove.Populating, prove.Ext4)
	path := prove.NewFile(t, prove.LoopFS(t, "ext4", 64<<20).Dir, "f", 16<<20) // a small one has small blocks
	var st unix.Statfs_t
	check(t, unix.Statfs(path, &st))
	block := int64(st.Bsize) //nolint:unconvert // narrower elsewhere
	if block >= pageSize {
		prove.Unable(t, "the blocks of a small file system are no smaller than pages")
	}
	dropCache(t, path)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	defer file.Close()
	f := mustOpen(t, path, nil)
	const pins = 16
	each := f.Size() / pins
	for i := range int64(pins) {
		_, err := file.WriteAt(make([]byte, block), i*each)
		check(t, err)
	}
	n := prove.CountCalls(t, "madvise", func() {
		for i := range int64(pins) {
			check(t, mustPin(t, f, i*each, pageSize).Release())
		}
	})
	if n < pins {
		t.Errorf("%d calls of madvise for %d pages of which a block is there", n, pins)
	}
}

// A pin of a known page that the limit refuses leaves nothing, in the books or the kernel.
var pinOverLimit = prove.Register("pin over limit", func(args []string) int {
	t := prove.T()
	f := mustOpen(t, args[0], nil)
	check(t, f.Populate(t.Context(), 0, f.Size()))
	p, err := f.Pin(0, 2*pageSize)
	check(t, err)
	for range 2 {
		_, err = f.Pin(5*pageSize, 2*pageSize)
		var le *mmapio.LockError
		if !errors.As(err, &le) || le.Cause != mmapio.CauseLimit || !errors.Is(err, syscall.ENOMEM) {
			t.Errorf("a pin over the limit: %v", err)
		}
		heldAs(t, "refused", f, true, mmapio.Range{Off: 0, Len: 2 * pageSize})
		heldBytes(t, f, 2*pageSize)
	}
	if _, err = f.Pin(pageSize, 3*pageSize); err == nil { // of this a part is pinned
		t.Error("a pin over the limit was not refused")
	}
	heldBytes(t, f, 2*pageSize)
	check(t, p.Release())
	p, err = f.Pin(5*pageSize, 2*pageSize)
	check(t, err)
	heldAs(t, "pinned", f, true, mmapio.Range{Off: 5 * pageSize, Len: 2 * pageSize})
	check(t, p.Release())
	heldBytes(t, f, 0)
	return 0
})

func TestProofPinOverLimit(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Scan)
	path := prove.NewFile(t, prove.PublicDir(t), "f", 8*pageSize)
	check(t, os.Chmod(path, 0o644)) // whatever the umask
	limit := prove.Limit(prove.LockedMemory, uint64(3*pageSize), uint64(3*pageSize))
	if res := pinOverLimit.Run(t, asUser(limit, prove.Args(path))...); res.Code != 0 {
		t.Error(res)
	}
}
