package mmapio_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// dropCache takes the pages of a file that nobody maps out of memory.
func dropCache(t testing.TB, path string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
}

// diskStride is so wide that to read ahead does not bring in all pages at the
// first fault.
const diskStride = 1 << 19

// coldFile makes a file with nothing of it in memory, nor on the disk: to bring
// a hole in is a major fault as well.
func coldFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(prove.DiskDir(t), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, stallPages*diskStride); err != nil {
		t.Fatal(err)
	}
	if _, in := prove.Resident(t, path); in > 0 {
		t.Fatalf("%d pages stay in memory", in)
	}
	return path
}

// TestNoStall touches cold pages of a file on a disk in every way: no
// instruction waits for the disk, and with the mechanism off some do.
func TestNoStall(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Disk)
	for way := range touchAll {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			if n, _ := stalls(t, way, coldFile(t), diskStride, false); n != 0 {
				t.Errorf("%d major faults", n)
			}
			// The kernel reads ahead, so they are fewer than pages, and may be
			// none in a loop over all.
			if touchAll[way].whole {
				return
			}
			if n, _ := stalls(t, way, coldFile(t), diskStride, true); n < 1 {
				t.Errorf("%d major faults with the mechanism off", n)
			}
		})
	}
}

// TestNoStallFUSE is the same where nothing is read ahead: with the mechanism
// off each page is a fault that waits.
func TestNoStallFUSE(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	prove.Need(t, prove.Advice)
	fs := slowfs.Start(t, slowfs.Options{ReadAhead: -1})
	for way := range touchAll {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			// Whoever waits for another thread's fault has a minor one.
			for off, want := range map[bool]int{false: 0, true: stallPages / 4} {
				name := strings.ReplaceAll(way, " ", "") + fmt.Sprint(off)
				fs.AddFile(name, stallPages*pageSize+100, slowfs.Offsets)
				n, _ := stalls(t, way, fs.Path(name), pageSize, off)
				if n < want || !off && n != 0 {
					t.Errorf("%d major faults, want %d", n, want)
				}
			}
		})
	}
}

// TestNoFaultAtStores: the first store to a page, which would be a minor fault
// that may wait for write-back, is none.
func TestNoFaultAtStores(t *testing.T) {
	if raceBuild() {
		prove.Unable(t, "the race detector has faults of its own")
	}
	prove.Need(t, prove.Advice, prove.Disk)
	for _, way := range []string{"WriteAt", "StoreAt", "WriteAt CopyOnWrite"} {
		if _, n := stalls(t, way, coldFile(t), diskStride, false); n > stallPages/4 {
			t.Errorf("%s: %d minor faults for %d pages", way, n, stallPages)
		}
		if major, n := stalls(t, way, coldFile(t), diskStride, true); major+n < stallPages-1 {
			t.Errorf("%s: %d and %d faults for %d pages with the mechanism off", way, major, n, stallPages)
		}
	}
}

// storeChild stores to a page that is being written back, with one processor,
// and prints how often a ticker came round meanwhile.
var storeChild = prove.Register("store", func(args []string) int {
	runtime.GOMAXPROCS(1)
	t := prove.T()
	f := mustOpen(t, args[1], &mmapio.Options{Mode: mmapio.ReadWrite})
	put := map[string]func() error{
		"WriteAt": func() error { return writeByte(f, 5) },
		"StoreAt": func() error { return mmapio.StoreAt[uint64](f, 8, 1) },
	}[args[0]]
	if err := put(); err != nil {
		t.Fatal(err)
	}
	if err := f.StartSync(0, f.Size()); err != nil {
		t.Fatal(err)
	}
	ask(t, "held")
	var begun atomic.Bool
	done := make(chan error)
	go func() {
		begun.Store(true)
		done <- put()
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := 0; ; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			fmt.Println("ticks", n)
			return 0
		case <-tick.C:
			if begun.Load() {
				if n++; n == 20 {
					fmt.Println("ticking")
				}
			}
		}
	}
})

// TestStoreDuringWriteback: a store to a page that is on its way to a slow disk
// waits, but no other goroutine does. The kernel keeps the lock of the address
// space while it waits, so a runtime that asks for memory just then waits too:
// one try of some has to go well.
func TestStoreDuringWriteback(t *testing.T) {
	prove.Need(t, prove.Advice)
	fs := slowfs.Start(t, slowfs.Options{})
	for _, way := range []string{"WriteAt", "StoreAt"} {
		t.Run(way, func(t *testing.T) {
			for try := 1; ; try++ {
				ticks := ticksDuringWriteback(t, fs, way, fmt.Sprint(way, try), "MMAPIO_DEBUG=", 5*time.Second)
				if ticks >= 20 {
					break
				}
				if try == 5 {
					t.Fatalf("%d ticks while a store waited", ticks)
				}
			}
			// A few may come between the goroutine's begin and its store.
			if n := ticksDuringWriteback(t, fs, way, way+"off", "MMAPIO_DEBUG=nopopulate", 300*time.Millisecond); n >= 20 {
				t.Errorf("%d ticks while the only processor was held, so the test shows nothing", n)
			}
		})
	}
}

// ticksDuringWriteback returns how often the ticker of a child came round while
// its store waited for the disk, which it does until there were 20, or for so
// long.
func ticksDuringWriteback(t *testing.T, fs *slowfs.FS, way, name, env string, long time.Duration) int {
	t.Helper()
	fs.AddFile(name, 4*pageSize, slowfs.Offsets)
	release := sync.OnceFunc(fs.Hold(slowfs.OpWrite, name))
	defer release()
	p := storeChild.Start(t, prove.Args(way, fs.Path(name)), prove.Env(env))
	p.Expect("ask held")
	fs.WaitHeld(1)
	p.Send("done")
	defer time.AfterFunc(long, release).Stop()
	for {
		line, ok := p.Line()
		if line == "ticking" {
			release()
		}
		if n, yes := strings.CutPrefix(line, "ticks "); yes || !ok {
			ticks, err := strconv.Atoi(n)
			if res := p.Wait(); err != nil || res.Code != 0 {
				t.Fatal(err, res)
			}
			return ticks
		}
	}
}
