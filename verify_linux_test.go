package mmapio_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// The first page that is not held is named, for whichever reason.
func TestProofVerifyLockedNamesTheFirst(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	needLockOf(t, 8*pageSize)
	prove.Need(t, prove.Verify)
	for _, mode := range allModes {
		t.Run(mode.String(), func(t *testing.T) {
			path := fileOf(t, 8*pageSize)
			f := mustOpen(t, path, &mmapio.Options{Mode: mode})
			check(t, f.LockAll())
			check(t, f.VerifyLocked(0, f.Size()))
			away := func(page int64) { // present no longer, but locked
				check(t, unix.Munlock(memoryOf(t, f)[page*pageSize:(page+1)*pageSize]))
				check(t, unix.Madvise(memoryOf(t, f)[page*pageSize:(page+1)*pageSize], unix.MADV_DONTNEED))
				mlockOnFault(t, memoryOf(t, f)[page*pageSize:(page+1)*pageSize])
			}
			check(t, unix.Munlock(memoryOf(t, f)[5*pageSize:6*pageSize]))
			away(2)
			wantNotHeld(t, f, f.VerifyLocked(0, 8*pageSize), 2)
			wantNotHeld(t, f, f.VerifyLocked(3*pageSize, 5*pageSize), 5)
			wantNotHeld(t, f, f.VerifyLocked(2*pageSize+1, 1), 2)
			check(t, f.VerifyLocked(0, 2*pageSize))
			check(t, f.VerifyLocked(6*pageSize, 2*pageSize))
			wantNotHeld(t, f, f.VerifyLocked(0, 8*pageSize), 2) // and again
			check(t, f.LockAll())
			holds(t, f, "########")
			away(7)
			check(t, f.Unlock(3*pageSize, pageSize))
			wantNotHeld(t, f, f.VerifyLocked(0, 8*pageSize), 3)
			if prove.Missing(prove.Scan) == "" { // else all that may be a part of a huge page was brought back
				wantNotHeld(t, f, f.VerifyLocked(4*pageSize, 4*pageSize), 7)
			}
		})
	}
}

// mlockOnFault locks memory past the library.
func mlockOnFault(t testing.TB, b []byte) {
	t.Helper()
	start, n := prove.PagesOf(b)
	_, _, errno := unix.Syscall(unix.SYS_MLOCK2, start, uintptr(n)*uintptr(pageSize), 1)
	if errno == unix.ENOSYS {
		prove.Unable(t, "this Linux has no mlock2(2)")
	}
	if errno != 0 {
		t.Fatal(errno)
	}
}

// A file that another process cut and made longer again has locks on pages
// that are gone. Lock alone believes the books; whatever looks at the kernel
// first brings the pages back.
func TestProofLockAfterTruncation(t *testing.T) {
	needLockOf(t, 64*pageSize)
	prove.Need(t, prove.Pagemap)
	const pages = 16
	repairs := []struct {
		name string
		do   func(t *testing.T, f *mmapio.File)
	}{
		{"LockAll", func(t *testing.T, f *mmapio.File) {
			check(t, f.LockAll())
			if prove.Count(prove.PresentPages(t, memoryOf(t, f))) == pages {
				t.Error("LockAll has looked: then say so in its comment")
			}
			if err := f.VerifyLocked(0, f.Size()); err == nil {
				t.Fatal("VerifyLocked finds nothing")
			}
			if err := f.VerifyLocked(0, f.Size()); err == nil {
				t.Fatal("VerifyLocked finds nothing the second time")
			}
			check(t, f.LockAll())
		}},
		{"Pin", func(t *testing.T, f *mmapio.File) {
			if err := f.VerifyLocked(0, f.Size()); err == nil {
				t.Fatal("VerifyLocked finds nothing")
			}
			check(t, pin(t, f, 0, f.Size()).Release())
		}},
		{"Refresh", func(t *testing.T, f *mmapio.File) {
			_, err := f.Refresh()
			check(t, err)
		}},
		{"Refresh of more", func(t *testing.T, f *mmapio.File) {
			check(t, appendTo(f.Name(), make([]byte, 2*pageSize)))
			_, err := f.Refresh()
			check(t, err)
		}},
	}
	for _, mode := range allModes {
		for _, cut := range []int64{0, 5 * pageSize, 5*pageSize + 100} {
			for _, r := range repairs {
				for _, reserve := range []int64{0, 64 * pageSize} {
					t.Run(fmt.Sprint(mode, " ", cut, " ", r.name, " ", reserve), func(t *testing.T) {
						path := fileOf(t, pages*pageSize)
						f := mustOpen(t, path, &mmapio.Options{Mode: mode, Lock: mmapio.LockNow, Reserve: reserve})
						truncated(t, path, cut)
						truncated(t, path, pages*pageSize)
						r.do(t, f)
						check(t, f.VerifyLocked(0, f.Size()))
						prove.AssertHeld(t, memoryOf(t, f))
					})
				}
			}
		}
	}
}

// Resize puts back what others have cut off, locked.
func TestProofResizeAfterTruncation(t *testing.T) {
	needLockOf(t, 64*pageSize)
	prove.Need(t, prove.Pagemap)
	for _, reserve := range []int64{0, 64 * pageSize} {
		for _, size := range []int64{16, 20} {
			path := fileOf(t, 16*pageSize)
			f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Reserve: reserve})
			check(t, f.LockAll())
			truncated(t, path, 3*pageSize+9)
			mustResize(t, f, size*pageSize)
			check(t, f.VerifyLocked(0, 16*pageSize))
			prove.AssertHeld(t, memoryOf(t, f)[:16*pageSize])
		}
	}
}

// What a Resize puts back that others have cut off is locked all the way, and not
// only so far before a cut as the kernel takes pages out for that.
func TestProofWideResizeAfterTruncation(t *testing.T) {
	const size = 24 << 20
	needLockOf(t, 28<<20)
	prove.Need(t, prove.Pagemap)
	for _, reserve := range []int64{0, 64 << 20} {
		for _, to := range []int64{20 << 20, size, 28 << 20} {
			path := fileOf(t, size)
			f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Reserve: reserve})
			check(t, f.LockAll())
			truncated(t, path, 3*pageSize+9)
			mustResize(t, f, to)
			check(t, f.VerifyLocked(0, min(size, to)))
			prove.AssertHeld(t, memoryOf(t, f)[:min(size, to)])
			mustClose(t, f)
		}
	}
}

// What is locked on fault need not be there, unless a pin wants it.
func TestProofVerifyLockedOnFault(t *testing.T) {
	needLockOf(t, 8*pageSize)
	prove.Need(t, prove.Advice, prove.Verify)
	f := mustOpen(t, fileOf(t, 4*pageSize), &mmapio.Options{Lock: mmapio.LockOnFault})
	check(t, f.VerifyLocked(0, f.Size()))
	p := pin(t, f, 2*pageSize, 1)
	check(t, f.VerifyLocked(0, f.Size()))
	truncated(t, f.Name(), pageSize)
	truncated(t, f.Name(), 4*pageSize)
	wantNotHeld(t, f, f.VerifyLocked(0, f.Size()), 2)
	check(t, f.LockContext(context.Background(), 0, f.Size(), &mmapio.LockOptions{OnFault: true}))
	wantNotHeld(t, f, f.VerifyLocked(0, f.Size()), 2)
	release(t, p)
	check(t, f.VerifyLocked(0, f.Size()))
	check(t, f.UnlockAll())
	wantNotHeld(t, f, f.VerifyLocked(0, f.Size()), 0)
}

// unprivileged verifies as a user to whom smaps and the files of others say
// nothing.
var unprivileged = prove.Register("unprivileged", func(args []string) int {
	t := prove.T()
	f := mustOpen(t, args[0], &mmapio.Options{Lock: mmapio.LockNow})
	check(t, f.VerifyLocked(0, f.Size()))
	fmt.Println("locked")
	var line string
	fmt.Scanln(&line) //nolint:errcheck // its end is what counts
	e := wantNotHeld(t, f, f.VerifyLocked(0, f.Size()), 1)
	if e.Cause != mmapio.CauseBeyondEOF {
		t.Error(e)
	}
	return 0
})

// It takes no privilege to find out that another process cut the file.
func TestProofVerifyUnprivileged(t *testing.T) {
	prove.Need(t, prove.Linux)
	needLockOf(t, 4*pageSize)
	path := filepath.Join(prove.PublicDir(t), "f")
	check(t, os.WriteFile(path, nil, 0o600))
	for i := range int64(4) { // in folios of one page
		check(t, appendTo(path, pattern(pageSize, i)))
	}
	check(t, os.Chmod(path, 0o444))
	p := unprivileged.Start(t, asUser(prove.Args(path))...)
	p.Expect("locked")
	check(t, os.Truncate(path, pageSize))
	p.Send("cut")
	if r := p.Wait(); r.Code != 0 {
		t.Error(r)
	}
}

const manyFiles = 60_000

// thousands opens 60,000 Files, has some of their files cut, and verifies all.
var thousands = prove.Register("thousands", func(args []string) int {
	t, dir := prove.T(), args[0]
	const each = 100 // of one file on the disk
	var files []*mmapio.File
	for i := range manyFiles / each {
		path := filepath.Join(dir, strconv.Itoa(i))
		check(t, os.WriteFile(path, pattern(2*pageSize, int64(i)), 0o600))
		for range each {
			f, err := mmapio.OpenFile(path, &mmapio.Options{DropFD: true, Lock: mmapio.LockNow, Length: pageSize + 1})
			if err != nil {
				t.Fatalf("%d Files are open: %v", len(files), err)
			}
			files = append(files, f)
		}
	}
	if below, _ := prove.MappedFiles(t, dir); below < manyFiles/2 {
		t.Errorf("%d mappings of %d Files", below, len(files))
	}
	began := time.Now()
	for _, f := range files {
		check(t, f.VerifyLocked(0, f.Size()))
	}
	t.Logf("%d Files verified in %v", len(files), time.Since(began))
	for i := 0; i < len(files)/each; i += 10 {
		check(t, os.Truncate(filepath.Join(dir, strconv.Itoa(i)), pageSize))
	}
	bad := 0
	for i, f := range files {
		if err := f.VerifyLocked(0, f.Size()); (err != nil) != (i/each%10 == 0) {
			t.Fatalf("File %d: %v", i, err)
		} else if err != nil {
			bad++
		}
	}
	if bad != manyFiles/10 {
		t.Errorf("%d Files are not held, want %d", bad, manyFiles/10)
	}
	for i := 0; i < len(files)/each; i += 10 {
		check(t, os.Truncate(filepath.Join(dir, strconv.Itoa(i)), 2*pageSize))
		for _, f := range files[i*each : (i+1)*each] {
			check(t, f.LockAll())
		}
	}
	fmt.Println("ready")
	var line string
	fmt.Scanln(&line) //nolint:errcheck // its end is what counts
	for _, f := range files {
		check(t, f.VerifyLocked(0, f.Size()))
	}
	fmt.Println("verified")
	fmt.Scanln(&line) //nolint:errcheck // as above
	return 0
})

// Sixty thousand Files at once, none with a descriptor, and three system calls
// for each that is verified.
func TestProofVerifyThousands(t *testing.T) {
	prove.NeedE2E(t, prove.SysctlRW, prove.Pagemap)
	prove.Sysctl(t, "vm.max_map_count", "262144")
	dir := prove.PublicDir(t)
	p := thousands.Start(t, prove.Args(dir), prove.Timeout(4*time.Minute))
	p.Expect("ready")
	calls := prove.CountSyscalls(t, p.PID(), func() {
		p.Send("go")
		p.Expect("verified")
	})
	t.Logf("%d system calls to verify %d Files", calls, manyFiles)
	if calls > 3*manyFiles+manyFiles/10 || calls < manyFiles {
		t.Errorf("%d system calls to verify %d Files", calls, manyFiles)
	}
	p.Send("end")
	if r := p.Wait(); r.Code != 0 {
		t.Error(r)
	} else {
		t.Log(r.Output)
	}
}

// Nothing is reported of a File whose locks move to another mapping meanwhile:
// no byte of what is asked about is ever unlocked. However often they move, there
// is an end to it.
func TestVerifyLockedWhileMoving(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Scan)
	const size = 1 << 20
	needLockOf(t, 4*size)
	f := opened(t)(mmapio.Create(filepath.Join(t.TempDir(), "f"), size))
	check(t, f.Lock(0, size))
	looks, done := 0, make(chan struct{})
	defer mmapio.SetFailpoint(func(step string) error {
		if step != "verify" {
			return nil
		}
		if looks++; looks <= 3 {
			mustResize(t, f, f.Size()+size)
			return nil
		}
		// By now a Resize waits.
		go func() {
			defer close(done)
			mustResize(t, f, f.Size()+size)
		}()
		return nil
	})()
	check(t, f.VerifyLocked(0, size))
	<-done
	if looks != 4 {
		t.Errorf("looked %d times", looks)
	}
}

// TestRefreshThatFailedForgetsNothing: the one that succeeds brings back what left
// before the one that did not.
func TestRefreshThatFailedForgetsNothing(t *testing.T) {
	prove.Need(t, prove.Verify)
	const pages = 3000 // more than what is looked at in any case
	needLockOf(t, pages*pageSize)
	path, _ := patternFile(t, pages*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	check(t, f.LockAll())
	truncated(t, path, 0)
	check(t, os.Truncate(path, (pages-1)*pageSize))
	// So long ago that it cannot have been changed since unnoticed.
	past := time.Now().Add(-time.Minute)
	check(t, os.Chtimes(path, past, past))
	r := mustRegion(t, f, 0, 1)
	if _, err := f.Refresh(); !errors.Is(err, mmapio.ErrBusy) {
		t.Fatalf("Refresh: %v, want ErrBusy", err)
	}
	r.Release()
	_, err := f.Refresh()
	noError(t, "Refresh", err)
	noError(t, "VerifyLocked", f.VerifyLocked(0, f.Size()))
	mustClose(t, f)
}

// TestAdviseInsideOfLocked: where advice begins a mapping ends, and the huge page
// that was there.
func TestProofAdviseInsideOfLocked(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	needLockOf(t, 8<<20)
	path, _ := patternFile(t, 8<<20)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	check(t, f.LockAll())
	for i, a := range []mmapio.Advice{mmapio.AdviceRandom, mmapio.AdviceSequential, mmapio.AdviceNormal} {
		check(t, f.Advise(int64(i+1)<<20+4096, 3<<20+1, a))
		prove.AssertHeld(t, memoryOf(t, f))
	}
	check(t, f.Unlock(0, 8<<20))
	mustClose(t, f)
}

// TestLockBesideCollapse is for the race detector.
func TestLockBesideCollapse(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Verify)
	needLockOf(t, 5<<20)
	path, _ := patternFile(t, 8<<20)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	check(t, f.Lock(4<<20, 4<<20))
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 100 {
			f.Advise(4<<20, 1, mmapio.AdviceCollapse) //nolint:errcheck // it may not be there
		}
	})
	for range 100 {
		check(t, f.Lock(0, 1<<20))
		check(t, f.Unlock(0, 1<<20))
	}
	wg.Wait()
	noError(t, "VerifyLocked", f.VerifyLocked(4<<20, 4<<20))
	mustClose(t, f)
}
