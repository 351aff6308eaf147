package mmapio_test

import (
	"context"
	"fmt"
	"io"
	"os"
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

// waitWays wait for the disk: for pages that are read, or for the write-back of
// one that was stored to.
var waitWays = map[string]struct {
	op slowfs.Op
	do func(f *mmapio.File) error
}{
	"WriteAt":  {slowfs.OpWrite, func(f *mmapio.File) error { return writeByte(f, 5) }},
	"StoreAt":  {slowfs.OpWrite, func(f *mmapio.File) error { return mmapio.StoreAt[uint64](f, 8, 1) }},
	"ReadAt":   {slowfs.OpRead, func(f *mmapio.File) error { _, err := f.ReadAt(make([]byte, 1), 5); return err }},
	"LoadAt":   {slowfs.OpRead, func(f *mmapio.File) error { _, err := mmapio.LoadAt[uint64](f, 8); return err }},
	"View":     {slowfs.OpRead, func(f *mmapio.File) error { return f.View(0, 9, func(b []byte) error { sum(b); return nil }) }},
	"Populate": {slowfs.OpRead, func(f *mmapio.File) error { return f.Populate(context.Background(), 0, f.Size()) }},
	"Lock":     {slowfs.OpRead, func(f *mmapio.File) error { return f.Lock(0, f.Size()) }},
}

// waitChild waits for the disk in some way, with one processor, and prints how
// often a ticker came round meanwhile.
var waitChild = prove.Register("wait", func(args []string) int {
	runtime.GOMAXPROCS(1)
	t := prove.T()
	f := mustOpen(t, args[1], &mmapio.Options{Mode: mmapio.ReadWrite})
	way := waitWays[args[0]]
	if way.op == slowfs.OpWrite {
		if err := way.do(f); err != nil {
			t.Fatal(err)
		}
		if err := f.StartSync(0, f.Size()); err != nil {
			t.Fatal(err)
		}
	}
	ask(t, "ready")
	var begun atomic.Bool
	done := make(chan error)
	go func() {
		begun.Store(true)
		done <- way.do(f)
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
			if !begun.Load() {
				continue
			}
			// As the runtime does now and then: it must not find the lock of the
			// address space taken.
			mem, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON)
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Munmap(mem); err != nil {
				t.Fatal(err)
			}
			if n++; n == 20 {
				fmt.Println("ticking")
			}
		}
	}
})

// TestOthersGoOn: who waits for a slow disk waits alone, whether for a page to
// come or for the write-back of one that is stored to again. No other goroutine
// waits, not even one that asks for memory.
func TestOthersGoOn(t *testing.T) {
	prove.Need(t, prove.Advice)
	fs := slowfs.Start(t, slowfs.Options{ReadAhead: -1})
	for way := range waitWays {
		t.Run(way, func(t *testing.T) {
			if n := ticksWhileWaiting(t, fs, way, way, "MMAPIO_DEBUG=", 10*time.Second); n < 20 {
				t.Errorf("%d ticks", n)
			}
			if way == "Populate" || way == "Lock" {
				return // they are nothing but the mechanism
			}
			// A few may come between the goroutine's begin and its fault.
			if n := ticksWhileWaiting(t, fs, way, way+"off", "MMAPIO_DEBUG=nopopulate", 300*time.Millisecond); n >= 20 {
				t.Errorf("%d ticks while the only processor was held, so the test shows nothing", n)
			}
		})
	}
}

// ticksWhileWaiting returns how often the ticker of a child came round while it
// waited for the disk, which it does until there were 20, or for so long.
func ticksWhileWaiting(t *testing.T, fs *slowfs.FS, way, name, env string, long time.Duration) int {
	t.Helper()
	fs.AddFile(name, 4*pageSize, slowfs.Offsets)
	op := waitWays[way].op
	release := sync.OnceFunc(fs.Hold(op, name))
	defer release()
	p := waitChild.Start(t, prove.Args(way, fs.Path(name)), prove.Env(env))
	p.Expect("ask ready")
	if op == slowfs.OpWrite {
		fs.WaitHeld(1)
	}
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

// While a Refresh is at what others have added, which has to come from the disk
// where it is to be locked, all that is about what was there goes on.
func TestRefreshKeepsNobodyWaiting(t *testing.T) {
	const size, more = 8 * 4096, 64 << 10
	needLockOf(t, size+more)
	path := prove.NewFile(t, t.TempDir(), "f", size)
	f := mustOpen(t, path, &mmapio.Options{Lock: mmapio.LockNow})
	check(t, os.Truncate(path, size+more))
	within, release := make(chan struct{}), make(chan struct{})
	defer mmapio.SetFailpoint(func(step string) error {
		if step == "lock tail" {
			close(within)
			<-release
		}
		return nil
	})()
	refreshed, done := make(chan error, 1), make(chan struct{})
	go func() {
		_, err := f.Refresh()
		refreshed <- err
	}()
	<-within
	go func() {
		defer close(done)
		_, err := f.ReadAt(make([]byte, size), 0)
		noError(t, "ReadAt", err)
		_, err = mmapio.LoadAt[uint64](f, 8)
		noError(t, "LoadAt", err)
		noError(t, "View", f.View(0, size, touchSlice))
		noError(t, "Prefetch", f.Prefetch(0, size))
		if _, err := f.ReadAt(make([]byte, 1), size); err != io.EOF { //nolint:errorlint // as io.ReaderAt says
			t.Errorf("beyond the end: %v", err)
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("they wait for the Refresh")
	}
	close(release)
	noError(t, "Refresh", <-refreshed)
	<-done
	_, err := f.ReadAt(make([]byte, 1), size)
	noError(t, "beyond the old end", err)
}
