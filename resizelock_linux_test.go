package mmapio_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// wantLocked compares what the kernel keeps, page by page, with what bytes are
// to be locked; a page is kept if any byte on it is.
func wantLocked(t testing.TB, what string, f *mmapio.File, offset int64, locked []mmapio.Range) {
	t.Helper()
	delta := offset % pageSize
	if b := memoryOf(t, f); len(b) > 0 {
		want := make([]bool, (delta+int64(len(b))+pageSize-1)/pageSize)
		for _, r := range locked {
			for at := r.Off + delta; at < min(r.Off+r.Len, f.Size())+delta; at++ {
				want[at/pageSize] = true
			}
		}
		got := prove.LockedPages(t, b)
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("%s: page %d of %d: the kernel keeps it: %v, want %v", what, i, len(want), got[i], want[i])
			}
		}
	}
	for _, r := range locked {
		if n := min(r.Off+r.Len, f.Size()) - r.Off; n > 0 {
			if err := f.VerifyLocked(r.Off, n); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
}

// TestResizeKeepsLocks: after growth, in place or not, just the same bytes are
// locked; a shrink forgets, and what comes back is not locked again.
func TestResizeKeepsLocks(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Pagemap)
	needLocks(t)
	ps := pageSize
	locked := []mmapio.Range{{Off: 5, Len: 1}, {Off: 2 * ps, Len: ps}, {Off: 4*ps - 1, Len: 2}, {Off: 7 * ps, Len: 1}}
	for _, offset := range []int64{0, 1, ps + 100} {
		for _, reserve := range []int64{0, 64 * ps} {
			for _, hold := range []bool{false, true} {
				what := fmt.Sprintf("offset %d, reserve %d, held %v", offset, reserve, hold)
				path, _ := patternFile(t, offset+8*ps)
				f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Offset: offset, Reserve: reserve})
				for _, r := range locked {
					if err := f.Lock(r.Off, r.Len); err != nil {
						t.Fatal(err)
					}
				}
				wantLocked(t, what, f, offset, locked)
				var r *mmapio.Region
				if hold {
					r = mustRegion(t, f, 0, f.Size())
				}
				for i, size := range []int64{8*ps + 1, 20 * ps, 50 * ps, 1000 * ps} {
					mustResize(t, f, size)
					wantLocked(t, fmt.Sprintf("%s, growth %d", what, i), f, offset, locked)
				}
				if hold {
					// Nothing is locked twice: the old memory has none any more.
					if reserve == 0 {
						prove.AssertNotHeld(t, r.Bytes())
					}
					r.Release()
				}
				mustResize(t, f, 4*ps) // in the middle of the third range
				wantLocked(t, what+", shrunk", f, offset, locked)
				mustResize(t, f, 30*ps)
				cut := []mmapio.Range{locked[0], locked[1], {Off: 4*ps - 1, Len: 1}}
				wantLocked(t, what+", grown again", f, offset, cut)
				if err := f.UnlockAll(); err != nil {
					t.Fatal(err)
				}
				wantLocked(t, what+", unlocked", f, offset, nil)
				mustClose(t, f)
			}
		}
	}
}

// TestResizeKeepsLocksOfCopies: what is private to a mapping is locked as
// firmly as what it shares.
func TestResizeKeepsLocksOfCopies(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	needLocks(t)
	ps := pageSize
	locked := []mmapio.Range{{Off: 0, Len: ps}, {Off: 3 * ps, Len: 2 * ps}}
	path, _ := patternFile(t, 8*ps)
	for name, f := range map[string]*mmapio.File{
		"copy on write": mustOpen(t, path, &mmapio.Options{Mode: mmapio.CopyOnWrite}),
		"anonymous":     opened(t)(mmapio.Anonymous(8*ps, nil)),
	} {
		for _, r := range locked {
			if err := f.Lock(r.Off, r.Len); err != nil {
				t.Fatal(err)
			}
		}
		store(t, f, 5, "a")
		store(t, f, 4*ps, "b")
		store(t, f, 6*ps, "c")
		want := contentOf(t, f)
		if name == "anonymous" {
			mustResize(t, f, 100*ps)
		} else {
			if err := os.Truncate(path, 100*ps); err != nil {
				t.Fatal(err)
			}
			if _, err := f.Refresh(); err != nil {
				t.Fatal(err)
			}
		}
		wantLocked(t, name, f, 0, locked)
		same(t, name, contentOf(t, f), resized(want, 100*ps))
		mustClose(t, f)
	}
}

// TestResizeKeepsLocksOfHugePages: the kernel maps a large folio as one page, and
// unmaps all of it when a lock or a cut of the file splits it. What is not
// mapped is not held.
func TestResizeKeepsLocksOfHugePages(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Pagemap)
	needLocks(t)
	const size = 5 << 20
	for _, lo := range []int64{0, 3 * pageSize, 1<<20 + 5} {
		for _, failing := range []int{0, 1, 4} {
			path, _ := patternFile(t, size)
			f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
			locked := []mmapio.Range{{Off: lo, Len: size - 6*pageSize - lo}}
			if err := f.Lock(locked[0].Off, locked[0].Len); err != nil {
				t.Fatal(err)
			}
			// A limit that leaves no room for much makes small windows.
			n := 0
			restore := mmapio.SetFailpoint(func(step string) error {
				if n++; step == "lock" && n < 12 && failing > 0 {
					return syscall.ENOMEM
				}
				if step == "lock" && failing > 1 && n > 12+failing {
					return syscall.EIO // is no limit
				}
				return nil
			})
			err := f.Resize(size + 1<<20)
			restore()
			if (err != nil) != (failing > 1) {
				t.Fatal(err)
			}
			what := fmt.Sprintf("from %d on, %d", lo, failing)
			wantLocked(t, what, f, 0, locked)
			cut := int64(3<<20 + 777)
			mustResize(t, f, cut)
			locked[0].Len = cut - lo
			wantLocked(t, what+", shrunk", f, 0, locked)
			mustClose(t, f)
		}
	}
}

// asUser are the options of a child that limits bind.
func asUser(opts ...prove.Option) []prove.Option {
	if os.Geteuid() == 0 {
		opts = append(opts, prove.AsNobody())
	}
	return opts
}

// TestResizeUnderLockLimit hands over as much as may be locked, with no room
// beside it, and with a page: both mappings hold the same pages, so a page is
// enough, and none is too little.
func TestResizeUnderLockLimit(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Scan)
	const large = 3 << 20 // most systems allow 8 MiB to everybody
	for _, c := range []struct {
		name string
		lock int64
		room int64 // beyond what is locked
		ok   bool
	}{
		{"no room", 8 * pageSize, 0, true},
		{"no room for much", large, 0, true},
		{"a page", 8 * pageSize, pageSize, true},
		{"a page for much", large, pageSize, true},
		{"three pages", 8 * pageSize, 3 * pageSize, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(prove.PublicDir(t), "file")
			if err := os.WriteFile(path, pattern(c.lock, 1), 0o666); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, 0o666); err != nil {
				t.Fatal(err)
			}
			limit := uint64(c.lock + c.room)
			if os.Geteuid() != 0 {
				var lim syscall.Rlimit
				const memlock = 8 // RLIMIT_MEMLOCK, which package syscall lacks
				if err := syscall.Getrlimit(memlock, &lim); err != nil || lim.Max < limit {
					prove.Unable(t, "the hard limit is less than that, and only root raises it")
				}
			}
			r := lockLimitBody.Run(t, asUser(prove.Args(path, strconv.FormatBool(c.ok)),
				prove.Memlock(limit))...)
			if r.Code != 0 {
				t.Error(r)
			}
		})
	}
}

var lockLimitBody = prove.Register("resize-memlock", func(args []string) int {
	t, path, ok := prove.T(), args[0], args[1] == "true"
	content := onDisk(t, path)
	size := int64(len(content))
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	if err := f.LockAll(); err != nil {
		t.Fatal(err)
	}
	all := []mmapio.Range{{Off: 0, Len: size}}
	handsBack(t, f, path, all)
	for range 3 {
		was := standOf(t, f, path)
		err := f.Resize(size + 40*pageSize)
		if ok {
			if err != nil {
				t.Fatal(err)
			}
			wantLocked(t, "grown", f, 0, all)
			if err := f.VerifyLocked(0, size); err != nil {
				t.Fatal(err)
			}
			break
		}
		var le *mmapio.LockError
		if !errors.As(err, &le) || le.Cause != mmapio.CauseLimit || le.Op != "resize" || le.Limits.Soft != size {
			t.Fatalf("%v: %+v", err, le)
		}
		was.unchanged(t, "what could not be handed over", f, path)
		wantLocked(t, "refused", f, 0, all)
	}
	same(t, "content", contentOf(t, f)[:size], content)
	if got := prove.VmLck(t, 0); got != size {
		t.Errorf("%d bytes are locked, want %d", got, size)
	}
	// Inside of Reserve nothing is handed over, and no room is needed.
	mustClose(t, f)
	f = mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Reserve: 4 * size})
	if err := f.Lock(0, size); err != nil {
		t.Fatal(err)
	}
	mustResize(t, f, 3*size)
	wantLocked(t, "in place", f, 0, all)
	return 0
})

// TestResizeRandomLocks: random locks and sizes, and the kernel asked each time.
func TestResizeRandomLocks(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Pagemap)
	needLocks(t)
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 6 {
		offset := []int64{0, 7, pageSize - 1}[round%3]
		path, _ := patternFile(t, offset+10*pageSize)
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Offset: offset, Reserve: int64(round%2) * 20 * pageSize})
		want := make([]bool, f.Size())
		for range 25 {
			lo := r.Int64N(f.Size() + 1)
			hi := lo + r.Int64N(f.Size()-lo+1)
			switch r.IntN(3) {
			case 0:
				if err := f.Lock(lo, hi-lo); err != nil {
					t.Fatal(err)
				}
				for i := lo; i < hi; i++ {
					want[i] = true
				}
			case 1:
				if err := f.Unlock(lo, hi-lo); err != nil {
					t.Fatal(err)
				}
				clear(want[lo:hi])
			case 2:
				size := r.Int64N(30 * pageSize)
				mustResize(t, f, size)
				next := make([]bool, size)
				copy(next, want)
				want = next
			}
			var ranges []mmapio.Range
			for i, w := range want {
				if w && (i == 0 || !want[i-1]) {
					ranges = append(ranges, mmapio.Range{Off: int64(i)})
				}
				if w {
					ranges[len(ranges)-1].Len++
				}
			}
			wantLocked(t, fmt.Sprintf("round %d", round), f, offset, ranges)
		}
		mustClose(t, f)
	}
}

// TestRefreshKeepsSwappedCopies: a page that was stored to and then went to
// swap is nowhere else.
func TestRefreshKeepsSwappedCopies(t *testing.T) {
	prove.NeedE2E(t, prove.SwapFile, prove.MemCgroup, prove.Disk)
	prove.Swap(t, 64<<20)
	group := prove.MemoryCgroup(t, 256<<20)
	path := prove.NewFile(t, prove.DiskDir(t), "file", 8<<20)
	p := swappedBody.Start(t, prove.Args(path), prove.In(group))
	p.Expect("stored")
	group.ForceEmpty(t)
	p.Send("go")
	if r := p.Wait(); r.Code != 0 {
		t.Error(r)
	}
}

var swappedBody = prove.Register("refresh-swapped", func(args []string) int {
	t, path := prove.T(), args[0]
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.CopyOnWrite})
	want := onDisk(t, path)
	for at := int64(0); at < f.Size(); at += 2 * pageSize {
		store(t, f, at+9, "private")
		copy(want[at+9:], "private")
	}
	fmt.Println("stored")
	var line string
	if _, err := fmt.Scanln(&line); err != nil {
		t.Fatal(err)
	}
	// The kernel may have found the pages too young to go.
	if err := unix.Madvise(memoryOf(t, f), unix.MADV_PAGEOUT); err != nil {
		t.Fatal(err)
	}
	swapped := prove.Count(prove.SwappedPages(t, memoryOf(t, f)))
	if swapped == 0 {
		t.Fatal("no page went to swap")
	}
	if err := appendTo(path, want); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Refresh(); err != nil {
		t.Fatal(err)
	}
	disk := onDisk(t, path)
	same(t, "after Refresh", contentOf(t, f), append(want, disk[len(want):]...))
	fmt.Println("pages in swap:", swapped)
	return 0
})
