package prove

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

const mib = 1 << 20

// pressedBody has two private regions, one of them locked, and tells on each line that it reads what is in swap.
var pressedBody = Register("pressed", func([]string) int {
	t := T()
	locked, control := alone(t, 16*mib), alone(t, 16*mib)
	fill(locked)
	fill(control)
	lock(t, locked)
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if in.Text() == "grow" {
			more := alone(t, 112*mib)
			fill(more)
		}
		AssertHeld(t, locked)
		AssertNotHeld(t, control)
		if got, smaps := Count(SwappedPages(t, control)), Mapping(t, control).Swap; int64(got*pageSize) != smaps {
			t.Errorf("pagemap has %d pages in swap, smaps %d bytes", got, smaps)
		}
		fmt.Println("swap", Mapping(t, locked).Swap, Mapping(t, control).Swap)
	}
	return 0
})

// The condition that proves a lock: it must break a region that is not locked, and only that.
func TestSwapTakesTheUnlockedRegionOnly(t *testing.T) {
	NeedE2E(t, SwapFile, MemCgroup, Pagemap)
	for _, how := range []string{"pressure", "force"} {
		t.Run(how, func(t *testing.T) {
			LeakCheck(t)
			Swap(t, 256*mib)
			c := MemoryCgroup(t, 128*mib)
			p := pressedBody.Start(t, In(c))
			p.Expect("ready")
			swapped := func(do string) (locked, control int64) {
				p.Send(do)
				text := p.Expect("swap")
				if _, err := fmt.Sscan(text, &locked, &control); err != nil {
					t.Fatal(text, err)
				}
				return locked, control
			}
			if locked, control := swapped("look"); locked != 0 || control != 0 {
				t.Fatalf("swapped before there is pressure: %d, %d", locked, control)
			}
			if usage := c.Usage(t); usage < 32*mib || usage > 128*mib {
				t.Errorf("the cgroup is charged %d bytes", usage)
			}
			do := "grow"
			if how == "force" {
				c.ForceEmpty(t)
				do = "look"
			}
			if locked, control := swapped(do); locked != 0 || control < mib {
				t.Errorf("in swap: %d bytes of the locked region, %d of the control", locked, control)
			} else {
				t.Logf("in swap: %d bytes of the locked region, %d of the control", locked, control)
			}
			p.CloseStdin()
			if res := p.Wait(); res.Code != 0 {
				t.Error(res)
			}
		})
	}
}

// readerBody reads files, so that their pages are charged to its cgroup, and locks the first.
var readerBody = Register("reader", func(args []string) int {
	t := T()
	lock(t, mappedFile(t, args[0], syscall.PROT_READ, syscall.MAP_SHARED))
	if _, err := os.ReadFile(args[1]); err != nil {
		t.Fatal(err)
	}
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	return 0
})

// drops is how often anyone has dropped this machine's caches.
func drops() (n int) {
	text, _ := os.ReadFile("/proc/vmstat")
	_, rest, _ := strings.Cut(string(text), "\ndrop_pagecache ")
	_, _ = fmt.Sscan(rest, &n)
	return n
}

func TestPageCacheKeepsTheLockedFileOnly(t *testing.T) {
	NeedE2E(t, MemCgroup, CacheDrop, Disk, Pagemap)
	dir := DiskDir(t)
	const pages = 4 * mib
	held, control := NewFile(t, dir, "held", pages), NewFile(t, DiskDir(t), "control", pages)
	before := 0
	want := func(path string, n int) {
		t.Helper()
		if all, resident := Resident(t, path); all != pages/pageSize || resident != n {
			t.Errorf("%s: %d of %d pages are resident, want %d (caches were dropped %d times, by whomever)", path, resident, all, n, drops()-before)
		}
	}
	DropCaches(t)
	before = drops()
	want(held, 0)
	want(control, 0)
	for _, how := range []string{"drop_caches", "force_empty"} {
		c := MemoryCgroup(t, 512*mib) // room: what is dropped is dropped by the test, not by the limit
		p := readerBody.Start(t, In(c), Args(held, control))
		p.Expect("ready")
		want(held, pages/pageSize)
		want(control, pages/pageSize)
		if m := MappingsOf(t, p.PID(), dir); len(m) != 1 || !m[0].IsLocked() || m[0].Rss != pages {
			t.Errorf("mappings of the reader: %v", m)
		}
		if how == "drop_caches" {
			DropCaches(t)
		} else {
			c.ForceEmpty(t)
		}
		want(held, pages/pageSize)
		want(control, 0)
		p.Send("end")
		if res := p.Wait(); res.Code != 0 {
			t.Error(res)
		}
		DropCaches(t) // not locked any more
		want(held, 0)
	}
}

func TestResident(t *testing.T) {
	Need(t, Linux)
	path := NewFile(t, t.TempDir(), "f", int64(3*pageSize+1))
	if all, resident := Resident(t, path); all != 4 || resident > 4 {
		t.Error(all, resident)
	}
	if all, resident := Resident(t, NewFile(t, t.TempDir(), "empty", 0)); all != 0 || resident != 0 {
		t.Error(all, resident)
	}
	fails(t, "no such file", func(t testing.TB) { Resident(t, path+"x") })
	if os.Geteuid() != 0 {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	n, err := minced(f, int64(3*pageSize+1), 4)
	if _, resident := Resident(t, path); err != nil || n != resident {
		t.Errorf("mincore says %d (%v), cachestat %d", n, err, resident)
	}
}

func TestJoinAndComeBack(t *testing.T) {
	NeedE2E(t, MemCgroup)
	before, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("joined", func(t *testing.T) {
		c := MemoryCgroup(t, 1<<30)
		c.Join(t, 0)
		b := mapped(t, -1, 8*mib, rw, private)
		fill(b)
		if usage := c.Usage(t); usage < 8*mib {
			t.Errorf("8 MiB touched, %d charged", usage)
		}
		if err := syscall.Munmap(b); err != nil {
			t.Fatal(err)
		}
	})
	after, _ := os.ReadFile("/proc/self/cgroup")
	if string(after) != string(before) {
		t.Errorf("in %s, was in %s", after, before)
	}
}
