package mmapio_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// countCrowds counts the reads that find the processors taken by others.
func countCrowds(t testing.TB) *atomic.Int32 {
	var n atomic.Int32
	t.Cleanup(mmapio.SetFailpoint(func(step string) error {
		if step == "crowd" {
			n.Add(1)
		}
		return nil
	}))
	return &n
}

// crowdRefused reads page by page where others wait, and counts how often it asks for
// what it cannot have.
var crowdRefused = prove.Register("crowd-refused", func(args []string) int {
	t := prove.T()
	f := mustOpen(t, args[0], nil)
	asked := 0
	mmapio.SetFailpoint(func(step string) error {
		if step == "crowd" {
			asked++
		}
		return nil
	})
	defer mmapio.Crowd(int64(runtime.GOMAXPROCS(0)))()
	b := make([]byte, pageSize)
	for i := range int64(8) {
		_, err := f.ReadAt(b, 2*i*pageSize)
		check(t, err)
		same(t, "ReadAt", b, pattern(16*pageSize, 3)[2*i*pageSize:][:pageSize])
	}
	fmt.Println(asked)
	return 0
})

// TestReadAtCrowdRefused: a call that a filter refuses is not tried again and again.
func TestReadAtCrowdRefused(t *testing.T) {
	prove.Need(t, prove.Disk, prove.Filters)
	path := filepath.Join(prove.DiskDir(t), "f")
	check(t, os.WriteFile(path, pattern(16*pageSize, 3), 0o600))
	for _, errno := range []syscall.Errno{syscall.ENOSYS, syscall.EOPNOTSUPP, syscall.EPERM, syscall.EINVAL} {
		res := crowdRefused.Run(t, prove.Args(path), prove.Refuse(unix.SYS_PREADV2, int(errno)))
		if res.Code != 0 || strings.TrimSpace(res.Output) != "1" {
			t.Errorf("%v: asked %v times, want once", errno, res)
		}
	}
}

// Where more reads wait than there are processors, a read has the kernel begin, and
// lets the others run: what it returns is the same, and it is read once.
func TestReadAtCrowd(t *testing.T) {
	prove.Need(t, prove.Disk, prove.Linux) // qemu has no preadv2 with flags
	path := filepath.Join(prove.DiskDir(t), "f")
	size := 64*pageSize + 100
	content := pattern(size, 3)
	check(t, os.WriteFile(path, content, 0o600))
	crowds := countCrowds(t)
	for _, cached := range []bool{false, true} {
		f := mustOpen(t, path, nil)
		dropCache(t, path)
		if cached {
			_, err := os.ReadFile(path)
			check(t, err)
		}
		read := func(off, n int64) {
			t.Helper()
			b := make([]byte, n)
			_, err := f.ReadAt(b, off)
			check(t, err)
			same(t, "ReadAt", b, content[off:off+n])
		}
		read(0, 10)
		if n := crowds.Swap(0); n != 0 {
			t.Fatalf("%d reads found a crowd where there is none", n)
		}
		leave := mmapio.Crowd(int64(runtime.GOMAXPROCS(0)))
		read(3*pageSize, pageSize)         // a page
		read(9*pageSize+5, 3*pageSize)     // some
		read(61*pageSize-1, 3*pageSize+90) // to the end, almost
		if n := crowds.Swap(0); n != 3 {
			t.Errorf("of 3 reads in a crowd %d knew", n)
		}
		view := func(off, n int64) {
			t.Helper()
			check(t, f.View(off, n, func(b []byte) error { same(t, "View", b, content[off:off+n]); return nil }))
		}
		view(20*pageSize, pageSize)
		view(30*pageSize+10, pageSize) // two pages
		view(40*pageSize, 8*pageSize)  // worth the wait
		leave()
		if n := crowds.Swap(0); n != 3 {
			t.Errorf("a View of a page and one of two asked for %d pages", n)
		}
		mustClose(t, f)
	}
	if n := mmapio.Waiting(); n != 0 {
		t.Errorf("%d reads wait for ever", n)
	}
}

// A file system that can only be waited for is asked once whether it can do else, or
// by the few who come before its answer.
func TestReadAtCrowdFUSE(t *testing.T) {
	prove.Need(t, prove.Root, prove.FUSE, prove.Linux, prove.Cachestat) // by which it is told what FUSE does
	const pages = 40
	disk := slowfs.Start(t, slowfs.Options{})
	disk.AddFile("f", 4*pages*pageSize, slowfs.Offsets)
	f := mustOpen(t, disk.Path("f"), nil)
	advise(t, f, 0, f.Size(), mmapio.AdviceRandom)
	for range 2 { // by now it is known that a read is as good as the mapping
		_, err := f.ReadAt(make([]byte, pageSize), 2*pageSize)
		check(t, err)
	}
	crowds := countCrowds(t)
	goOn := disk.Hold(slowfs.OpRead, "f")
	var wg sync.WaitGroup
	for i := range int64(pages) {
		wg.Go(func() {
			b, want := make([]byte, pageSize), make([]byte, pageSize)
			off := 4 * i * pageSize
			_, err := f.ReadAt(b, off)
			noError(t, "ReadAt", err)
			slowfs.Offsets.Bytes(want, off)
			same(t, "ReadAt", b, want)
		})
	}
	// All of them, or those who come later may never be a crowd.
	for end := time.Now().Add(20 * time.Second); mmapio.Waiting() < pages && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	waited := mmapio.Waiting()
	goOn()
	wg.Wait()
	if waited != pages {
		t.Errorf("%d of %d reads waited", waited, pages)
	}
	if n := crowds.Load(); n < 1 || n > pages/2 {
		t.Errorf("%d reads asked", n)
	}
	mustClose(t, f)
}
