package mmapio_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// open is OpenFile for children, which have no use for closing.
func open(t testing.TB, path string, mode mmapio.Mode) *mmapio.File {
	t.Helper()
	f, err := mmapio.OpenFile(path, &mmapio.Options{Mode: mode})
	check(t, err)
	return f
}

func anonymous(t testing.TB, n int64) *mmapio.File {
	t.Helper()
	f, err := mmapio.Anonymous(n, nil)
	check(t, err)
	return f
}

// store makes the pages of a part of a private File its own.
func storeByte(t testing.TB, f *mmapio.File, off, n int64) {
	t.Helper()
	check(t, f.Update(off, n, func(b []byte) error {
		for i := range b {
			b[i] = byte(i * 7) // not what any compression of swap makes nothing of
		}
		return nil
	}))
}

// swapping has a locked and an unlocked region of each private kind, and tells
// on request what of them is in swap.
var swapping = prove.Register("swapping", func(args []string) int {
	const n = 16 * mib
	t := prove.T()
	names := []string{"locked copy", "control copy", "locked anonymous", "control anonymous"}
	files := []*mmapio.File{
		open(t, args[0], mmapio.CopyOnWrite), open(t, args[0], mmapio.CopyOnWrite), anonymous(t, n), anonymous(t, n),
	}
	for i, f := range files {
		storeByte(t, f, 0, n/2)
		if i%2 == 0 {
			check(t, f.LockAll())
		}
		storeByte(t, f, n/2, n/2) // copied only after it was locked
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if in.Text() == "grow" {
			storeByte(t, anonymous(t, 112*mib), 0, 112*mib)
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

// keeper locks one file and reads another, so that both are charged to its
// cgroup.
var keeper = prove.Register("keeper", func(args []string) int {
	t := prove.T()
	f := open(t, args[0], mmapio.ReadOnly)
	check(t, f.LockAll())
	_, err := os.ReadFile(args[1])
	check(t, err)
	fmt.Println("ready")
	in := bufio.NewReader(os.Stdin)
	_, _ = in.ReadString('\n')
	prove.AssertHeld(t, memoryOf(t, f))
	check(t, f.VerifyLocked(0, f.Size()))
	check(t, f.UnlockAll())
	check(t, f.Close())
	fmt.Println("unlocked")
	_, _ = in.ReadString('\n')
	return 0
})

// The page cache keeps a locked file, and drops one that is neither locked nor
// mapped, whether the whole cache or a cgroup is emptied.
func TestProofDropCaches(t *testing.T) {
	prove.NeedE2E(t, prove.CacheDrop, prove.MemCgroup, prove.Disk, prove.Pagemap)
	const n = 16 * mib
	held, control := prove.NewFile(t, prove.DiskDir(t), "held", n+5), prove.NewFile(t, prove.DiskDir(t), "control", n+5)
	want := func(when, path string, all bool) {
		t.Helper()
		pages, resident := prove.Resident(t, path)
		if pages != n/int(pg)+1 || all && resident != pages || !all && resident != 0 {
			t.Errorf("%s: %d of %d pages of %s are resident", when, resident, pages, filepath.Base(path))
		}
	}
	prove.DropCaches(t)
	want("at first", held, false)
	for _, how := range []string{"drop_caches", "force_empty"} {
		c := prove.MemoryCgroup(t, 512*mib)
		p := keeper.Start(t, prove.In(c), prove.Args(held, control))
		p.Expect("ready")
		want("read", held, true)
		want("read", control, true)
		empty := func() {
			if how == "drop_caches" {
				prove.DropCaches(t)
			} else {
				c.ForceEmpty(t)
			}
		}
		empty()
		want(how, held, true)
		want(how, control, false)
		p.Send("unlock")
		p.Expect("unlocked")
		empty()
		want(how+" once unlocked", held, false)
		p.CloseStdin()
		if res := p.Wait(); res.Code != 0 {
			t.Error(res)
		}
	}
}

const fewMaps = 6000

// comb locks every other page until that is refused, and unlocks every other
// page of what is locked whole.
var comb = prove.Register("comb", func([]string) int {
	t := prove.T()
	f := anonymous(t, fewMaps*pg)
	// live does what ends a Go program that can have no more mappings.
	live := func(when string) {
		if n := len(prove.Mappings(t, memoryOf(t, f))) - 1; n > fewMaps/2 || n < fewMaps/2-2 {
			t.Errorf("%s: locks take %d mappings, half of vm.max_map_count is %d", when, n, fewMaps/2)
		}
		done := make(chan bool)
		for range 50 {
			go func() {
				runtime.LockOSThread() // and never unlock it: each needs a thread and its stack
				done <- len(make([]byte, 4*mib)) > 0
			}()
		}
		for range 50 {
			<-done
		}
		runtime.GC()
	}
	want := make([]bool, fewMaps)
	var err error
	for i := int64(0); i < fewMaps && err == nil; i += 2 {
		if err = f.Lock(i*pg, pg); err == nil {
			want[i] = true
		}
	}
	var e *mmapio.LockError
	if !errors.As(err, &e) || e.Cause != mmapio.CauseMapCount || !errors.Is(err, syscall.ENOMEM) {
		t.Fatal("locking every other page: ", err)
	}
	text := fmt.Sprintf("%d would be in use for them, half of vm.max_map_count (%d) is allowed", fewMaps/2+1, fewMaps)
	if !strings.Contains(err.Error(), text) {
		t.Errorf("%q does not say %q", err, text)
	}
	live("locked")
	prove.AssertHeldPages(t, memoryOf(t, f), want)

	check(t, f.Unlock(2*pg, pg)) // makes room for another
	check(t, f.Lock((fewMaps-9)*pg, pg))
	if err := f.Lock((fewMaps-5)*pg, pg); !errors.As(err, &e) || e.Cause != mmapio.CauseMapCount {
		t.Error("locking one more page: ", err)
	}
	check(t, f.LockAll()) // takes fewer mappings, not more
	prove.AssertHeld(t, memoryOf(t, f))

	// At the wall an unlock keeps what it cannot cut out, and says so …
	for i := int64(0); i < fewMaps; i += 2 {
		check(t, f.Unlock(i*pg, pg))
	}
	live("unlocked")
	held := make([]bool, fewMaps)
	for _, r := range f.LockedRanges() {
		for i := r.Off / pg; i < (r.Off+r.Len)/pg; i++ {
			held[i] = true
		}
	}
	prove.AssertHeldPages(t, memoryOf(t, f), held)
	if n := prove.Count(held); n < fewMaps/2+1000 || held[0] || !held[1] {
		t.Errorf("%d of %d pages are held", n, fewMaps)
	}
	// … until others make room.
	for i := int64(1); i < fewMaps; i += 2 {
		check(t, f.Unlock(i*pg, pg))
	}
	prove.AssertNotHeld(t, memoryOf(t, f))
	prove.Mapping(t, memoryOf(t, f)) // one again
	return 0
})

// Locks in separate places need a mapping each. They are refused at half of
// what a process may have: at the whole of it Go itself dies.
func TestProofLockMapCount(t *testing.T) {
	prove.NeedE2E(t, prove.SysctlRW, prove.Pagemap)
	prove.Sysctl(t, "vm.max_map_count", strconv.Itoa(fewMaps))
	if res := comb.Run(t); res.Code != 0 {
		t.Error(res)
	}
}

// crowd tries to lock more than its cgroup has room for.
var crowd = prove.Register("crowd", func(args []string) int {
	const n = 96 * mib
	t := prove.T()
	if args[0] == "plain" {
		b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		check(t, err)
		fmt.Println("mlock", unix.Mlock(b))
		return 0
	}
	check(t, os.Truncate(args[1], n))
	for _, f := range []*mmapio.File{
		anonymous(t, n), open(t, args[1], mmapio.ReadOnly), open(t, args[1], mmapio.ReadWrite), open(t, args[1], mmapio.CopyOnWrite),
	} {
		want := make([]bool, n/pg)
		for i := range 8 * mib / pg {
			want[i] = true
		}
		check(t, f.Lock(0, 8*mib))
		var e *mmapio.LockError
		err := f.LockAll()
		if !errors.As(err, &e) || e.Cause != mmapio.CauseCgroup || !errors.Is(err, syscall.ENOMEM) {
			t.Fatal(err)
		}
		for _, text := range []string{args[2], "(limit 67108864, in use ", "MemoryMax="} {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%q does not say %q", err, text)
			}
		}
		prove.AssertHeldPages(t, memoryOf(t, f), want)
		check(t, f.Close())
	}
	// What is in memory already needs no more room.
	f := anonymous(t, 40*mib)
	storeByte(t, f, 0, 40*mib)
	check(t, f.LockAll())
	prove.AssertHeld(t, memoryOf(t, f))
	return 0
})

// A cgroup answers with SIGKILL and not with an error, so what does not fit is
// not tried.
func TestProofLockCgroup(t *testing.T) {
	prove.NeedE2E(t, prove.MemCgroup, prove.Pagemap, prove.Disk)
	file := filepath.Join(prove.DiskDir(t), "f")
	check(t, os.WriteFile(file, nil, 0o600))
	c := prove.MemoryCgroup(t, 64*mib)
	if res := crowd.Run(t, prove.In(c), prove.Args("lock", file, c.Dir)); res.Code != 0 {
		t.Error(res)
	}
	if res := crowd.Run(t, prove.In(c), prove.Args("plain")); res.Signal != syscall.SIGKILL {
		t.Errorf("plain mlock(2): %v", res)
	}
}

// A page that cannot be read is an error at once, where mlock(2) spins in the
// kernel; all others can be locked.
func TestProofLockUnreadable(t *testing.T) {
	prove.NeedE2E(t, prove.FUSE, prove.Pagemap)
	const pages, bad = 64, 40
	slow := slowfs.Start(t, slowfs.Options{})
	slow.AddFile("f", pages*pg, slowfs.Offsets)
	for _, mode := range []mmapio.Mode{mmapio.ReadOnly, mmapio.ReadWrite, mmapio.CopyOnWrite} {
		t.Run(mode.String(), func(t *testing.T) {
			slow.DropCache("f", 0, 0)
			heal := slow.FailReads("f", bad*pg, pg, syscall.EIO)
			f := openFile(t, slow.Path("f"), &mmapio.Options{Mode: mode})
			want := make([]bool, pages)
			for _, r := range []mmapio.Range{{0, pages * pg}, {bad*pg + 1, 1}, {(bad - 1) * pg, 3 * pg}} {
				began := time.Now()
				var e *mmapio.LockError
				err := f.Lock(r.Off, r.Len)
				if took := time.Since(began); !errors.As(err, &e) || !errors.Is(err, syscall.EIO) || took > time.Second {
					t.Fatalf("Lock(%d, %d): %v after %v", r.Off, r.Len, err, took)
				}
				text := fmt.Sprintf("lock %s [%d, %d): the page at offset %d cannot be read: input/output error", f.Name(), r.Off, r.Off+r.Len, bad*pg)
				if err.Error() != text || e.Cause != mmapio.CauseUnknown {
					t.Errorf("got %v, %v, want %s", e.Cause, err, text)
				}
				holdsPages(t, f, want)
				want[bad-1] = true
				check(t, f.Lock((bad-1)*pg, pg))
			}
			check(t, f.Lock(0, bad*pg))
			check(t, f.Lock((bad+1)*pg, (pages-bad-1)*pg))
			for i := range want {
				want[i] = i != bad
			}
			holdsPages(t, f, want)
			heal()
			check(t, f.LockAll())
			holds(t, f, strings.Repeat("#", pages))
		})
	}
}
