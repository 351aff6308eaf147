package mmapio_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// A page that was seen in memory a moment ago is locked by one call, without
// another that brings it in: it is enough to look.
func TestPinKnownIsOneCall(t *testing.T) {
	if raceBuild() {
		prove.Unable(t, "the race detector makes calls of its own")
	}
	prove.NeedE2E(t, prove.Verify, prove.Populating)
	path, _ := patternFile(t, 64*pageSize)
	f := mustOpen(t, path, nil)
	f.Expire()
	pin := func() {
		for i := range int64(64) {
			p, err := f.Pin(i*pageSize, pageSize)
			check(t, err)
			check(t, f.VerifyLocked(i*pageSize, pageSize))
			check(t, p.Release())
		}
	}
	if calls := prove.CountCalls(t, "madvise", pin); calls < 64 {
		t.Errorf("pages that nothing is known of were asked for %d times, want 64", calls)
	}
	if calls := prove.CountCalls(t, "madvise", pin); calls != 0 {
		t.Errorf("known pages were asked for %d times", calls)
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
	prove.Need(t, prove.Verify, prove.FileEnd, prove.BusAddress)
	path, _ := patternFile(t, 8*pageSize)
	f := mustOpen(t, path, nil)
	check(t, f.Populate(t.Context(), 0, f.Size()))
	prove.Truncate(t, path, 5*pageSize)
	_, err := f.Pin(4*pageSize, 3*pageSize)
	var le *mmapio.LockError
	if !errors.As(err, &le) || le.Cause != mmapio.CauseBeyondEOF {
		t.Errorf("a pin of what was cut off: %v", err)
	}
	if n := f.LockedBytes(); n != 0 {
		t.Errorf("%d bytes are locked after the error", n)
	}
	p, err := f.Pin(3*pageSize, 2*pageSize)
	check(t, err)
	check(t, f.VerifyLocked(3*pageSize, 2*pageSize))
	check(t, p.Release())
}

// More goroutines pin than may wait awake; all get their turn, and what they let go
// of is let go.
func TestPinCrowd(t *testing.T) {
	path, _ := patternFile(t, 64*pageSize)
	f := mustOpen(t, path, nil)
	var wg sync.WaitGroup
	for g := range int64(64) {
		wg.Go(func() {
			for i := range int64(50) {
				p, err := f.Pin((g+i)%64*pageSize, pageSize)
				if err != nil {
					t.Error(err)
					return
				}
				check(t, p.Release())
			}
		})
	}
	wg.Wait()
	if n := f.LockedBytes(); n != 0 {
		t.Errorf("%d bytes are locked after all was released", n)
	}
}
