package mmapio_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// swapping has a locked and an unlocked region of each private kind, and tells
// on request what of them is in swap.
var swapping = prove.Register("swapping", func(args []string) int {
	const n = 6 * mib
	t := prove.T()
	var names []string
	var files []*mmapio.File
	add := func(kind string, lock mmapio.LockMode, open func(lock mmapio.LockMode) *mmapio.File) {
		names = append(names, "locked "+kind, "control "+kind)
		files = append(files, open(lock), open(mmapio.LockNone))
	}
	explicit := func(f *mmapio.File, lock mmapio.LockMode) *mmapio.File {
		dirty(t, f, 0, n/2)
		if lock != mmapio.LockNone {
			check(t, f.LockAll())
		}
		dirty(t, f, n/2, n/2) // copied only after it was locked
		return f
	}
	grown := func(o mmapio.Options) *mmapio.File {
		f := opened(t)(mmapio.Anonymous(n/2, &o))
		dirty(t, f, 0, n/2)
		mustResize(t, f, n)
		dirty(t, f, n/2, n/2)
		return f
	}
	add("copy", mmapio.LockNow, func(lock mmapio.LockMode) *mmapio.File {
		return explicit(mustOpen(t, args[0], &mmapio.Options{Mode: mmapio.CopyOnWrite, Length: n}), lock)
	})
	add("anonymous", mmapio.LockNow, func(lock mmapio.LockMode) *mmapio.File {
		return explicit(opened(t)(mmapio.Anonymous(n, nil)), lock)
	})
	add("moved", mmapio.LockNow, func(lock mmapio.LockMode) *mmapio.File { return grown(mmapio.Options{Lock: lock}) })
	add("grown in place", mmapio.LockNow, func(lock mmapio.LockMode) *mmapio.File {
		return grown(mmapio.Options{Lock: lock, Reserve: 2 * n})
	})
	add("on fault", mmapio.LockOnFault, func(lock mmapio.LockMode) *mmapio.File { return grown(mmapio.Options{Lock: lock}) })
	add("pinned", mmapio.LockNow, func(lock mmapio.LockMode) *mmapio.File {
		f := grown(mmapio.Options{})
		if lock != mmapio.LockNone {
			p, err := f.Pin(0, n)
			check(t, err)
			t.Cleanup(func() { p.Release() })
			check(t, f.UnlockAll())
		}
		return f
	})
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if in.Text() == "grow" {
			// More than there is room for, and more than once: the kernel may
			// give up what was stored just now before what is older.
			f := opened(t)(mmapio.Anonymous(112*mib, nil))
			for range 3 {
				dirty(t, f, 0, 112*mib)
			}
		}
		for i, f := range files {
			b := memoryOf(t, f)
			if i%2 == 0 {
				prove.AssertHeld(t, b)
				check(t, f.VerifyLocked(0, n))
			} else {
				prove.AssertNotHeld(t, b)
			}
			var swap int64
			for _, v := range prove.Mappings(t, b) {
				swap += v.Swap
			}
			fmt.Println(names[i], swap)
		}
		fmt.Println("done")
	}
	return 0
})

// Under pressure in its cgroup what is locked stays, and what is not is
// swapped out.
func TestProofSwap(t *testing.T) {
	prove.NeedE2E(t, prove.SwapFile, prove.MemCgroup, prove.Pagemap, prove.Disk)
	path := prove.NewFile(t, prove.DiskDir(t), "f", 16*mib)
	prove.Swap(t, 256*mib)
	p := swapping.Start(t, prove.In(prove.MemoryCgroup(t, 128*mib)), prove.Args(path))
	p.Expect("ready")
	ask := func(do string) map[string]int64 {
		p.Send(do)
		swap := map[string]int64{}
		for {
			line, ok := p.Line()
			if !ok {
				t.Fatal(p.Wait())
			}
			if line == "done" {
				return swap
			}
			i := strings.LastIndexByte(line, ' ')
			n, err := strconv.ParseInt(line[i+1:], 10, 64)
			check(t, err)
			swap[line[:i]] = n
		}
	}
	for name, n := range ask("look") {
		if n != 0 {
			t.Fatalf("swapped before there is pressure: %d bytes of the %s", n, name)
		}
	}
	swap := ask("grow")
	t.Log("in swap:", swap)
	for name, n := range swap {
		if locked := strings.HasPrefix(name, "locked"); locked && n != 0 || !locked && n < mib {
			t.Errorf("in swap: %d bytes of the %s", n, name)
		}
	}
	p.CloseStdin()
	if res := p.Wait(); res.Code != 0 {
		t.Error(res)
	}
}

// keeper locks files, each in another way, and reads one more, so that all are
// charged to its cgroup.
var keeper = prove.Register("keeper", func(args []string) int {
	t := prove.T()
	var files []*mmapio.File
	var pins []*mmapio.Pin
	for i, path := range args[:len(args)-1] {
		o := mmapio.Options{Prefault: -1}
		switch heldKinds[i] {
		case "grown":
			o.Mode, o.Lock = mmapio.ReadWrite, mmapio.LockNow
		case "on fault":
			o.Lock = mmapio.LockOnFault
		}
		f := mustOpen(t, path, &o)
		files = append(files, f)
		switch heldKinds[i] {
		case "locked":
			check(t, f.LockAll())
		case "grown":
			mustResize(t, f, 2*f.Size()-5)
		case "on fault":
			_, err := f.ReadAt(make([]byte, f.Size()), 0)
			check(t, err)
		case "pinned":
			p, err := f.Pin(0, f.Size())
			check(t, err)
			pins = append(pins, p)
		}
	}
	_, err := os.ReadFile(args[len(args)-1])
	check(t, err)
	fmt.Println("ready")
	in := bufio.NewReader(os.Stdin)
	_, _ = in.ReadString('\n')
	for _, f := range files {
		prove.AssertHeld(t, memoryOf(t, f))
		check(t, f.VerifyLocked(0, f.Size()))
	}
	for _, p := range pins {
		check(t, p.Release())
	}
	for _, f := range files {
		check(t, f.UnlockAll())
		check(t, f.Sync())
		check(t, f.Close())
	}
	fmt.Println("unlocked")
	_, _ = in.ReadString('\n')
	return 0
})

var heldKinds = []string{"locked", "grown", "on fault", "pinned"}

// The page cache keeps a locked file, and drops one that is neither locked nor
// mapped, whether the whole cache or a cgroup is emptied.
func TestProofDropCaches(t *testing.T) {
	prove.NeedE2E(t, prove.CacheDrop, prove.MemCgroup, prove.Disk, prove.Pagemap)
	const n = 8 * mib
	want := func(when, path string, all bool) {
		t.Helper()
		pages, resident := prove.Resident(t, path)
		if pages != n/int(pageSize)+1 || all && resident != pages || !all && resident != 0 {
			t.Errorf("%s: %d of %d pages of %s are resident", when, resident, pages, filepath.Base(path))
		}
	}
	for _, how := range []string{"drop_caches", "force_empty"} {
		dir := prove.DiskDir(t)
		var held []string
		for _, kind := range heldKinds {
			size := int64(n + 5)
			if kind == "grown" {
				size = n/2 + 5 // it becomes as large as the others
			}
			held = append(held, prove.NewFile(t, dir, kind, size))
		}
		control := prove.NewFile(t, prove.DiskDir(t), "control", n+5)
		prove.DropCaches(t)
		want("at first", control, false)
		c := prove.MemoryCgroup(t, 512*mib)
		p := keeper.Start(t, prove.In(c), prove.Args(append(held, control)...))
		p.Expect("ready")
		wantAll := func(when string, all bool) {
			t.Helper()
			for _, path := range held {
				want(when, path, all)
			}
		}
		wantAll("read", true)
		if pages, resident := prove.Resident(t, control); resident < pages/2 { // nothing keeps any of them there
			t.Errorf("read: %d of %d pages of control are resident", resident, pages)
		}
		empty := func() {
			if how == "drop_caches" {
				prove.DropCaches(t)
			} else {
				c.ForceEmpty(t)
			}
		}
		empty()
		wantAll(how, true)
		want(how, control, false)
		p.Send("unlock")
		p.Expect("unlocked")
		empty()
		wantAll(how+" once unlocked", false)
		p.CloseStdin()
		if res := p.Wait(); res.Code != 0 {
			t.Error(res)
		}
	}
}
