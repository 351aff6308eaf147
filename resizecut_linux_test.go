package mmapio_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// TestProofResizeKeepsLocksBeforeCut: a growth that fails cuts the file where it
// ended, and one that follows others, who made it longer, cuts it where it is
// to end. XFS does that with every growth. The kernel takes all of the folio that
// is cut out of the mapping, also what is locked of it.
func TestProofResizeKeepsLocksBeforeCut(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	needLocks(t)
	t.Run("here", func(t *testing.T) { cutsBehindAllLocks(t, t.TempDir()) })
	for fs, size := range map[string]int64{"xfs": 300 << 20, "btrfs": 128 << 20} {
		t.Run(fs, func(t *testing.T) {
			prove.NeedE2E(t)
			cutsBehindAllLocks(t, prove.LoopFS(t, fs, size).Dir)
		})
	}
}

func cutsBehindAllLocks(t *testing.T, dir string) {
	for _, offset := range []int64{0, pageSize + 100} {
		for _, reserve := range []int64{0, 4 << 20} {
			o := mmapio.Options{Mode: mmapio.ReadWrite, Offset: offset, Reserve: reserve, Lock: mmapio.LockNow}
			for _, step := range []string{"", "map", "lock", "lock tail"} {
				for _, longer := range []int64{0, 40*pageSize + 5} {
					name := fmt.Sprintf("offset %d, reserve %d, others add %d, fails %q", offset, reserve, longer, step)
					t.Run(name, func(t *testing.T) { cutsBehindLocks(t, filepath.Join(dir, "file"), &o, longer, step) })
				}
			}
		}
	}
}

func cutsBehindLocks(t *testing.T, path string, o *mmapio.Options, longer int64, step string) {
	const size, to = 1<<19 + 100, 1<<19 + 30<<12
	check(t, os.WriteFile(path, pattern(o.Offset+1<<20, 1), 0o600))
	f := mustOpen(t, path, o)
	// The kernel cannot split what somebody has in a pipe. So the file ends in
	// the middle of a folio, which the next cut takes out of the mapping.
	undo := inPipe(t, path)
	mustResize(t, f, size)
	undo()
	prove.AssertHeld(t, memoryOf(t, f))
	check(t, appendTo(path, pattern(longer, 3)))

	injected, came := errors.New("injected"), false
	restore := mmapio.SetFailpoint(func(s string) error {
		if s != step {
			return nil
		}
		came = true
		return injected
	})
	err := f.Resize(to)
	restore()
	if want := map[bool]int64{true: size, false: to}[came]; f.Size() != want || came != errors.Is(err, injected) {
		t.Errorf("Size() = %d, want %d: %v", f.Size(), want, err)
	}
	prove.AssertHeld(t, memoryOf(t, f))
	noError(t, "VerifyLocked", f.VerifyLocked(0, f.Size()))
	mustClose(t, f)
}

// TestResizeKeepsLocksFarBehind: so does a shrink, which may end inside of a page that
// lies further behind the start of what is locked than a folio is long.
func TestResizeKeepsLocksFarBehind(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Pagemap)
	const size = 24 * mib
	needLockOf(t, 2*size)
	path, _ := patternFile(t, size)
	f, g := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite}), mustOpen(t, path, nil)
	for _, f := range []*mmapio.File{f, g} {
		check(t, f.LockAll())
	}
	for to := int64(size - 777); to > 9*mib; to -= mib - 3*pageSize - 5 {
		mustResize(t, f, to)
		prove.AssertHeld(t, memoryOf(t, f))
		prove.AssertHeld(t, memoryOf(t, g)[:to])
	}
}

// inPipe puts the start of a file into a pipe, which refers to the page cache.
func inPipe(t *testing.T, path string) (undo func()) {
	t.Helper()
	file, err := os.Open(path)
	check(t, err)
	defer file.Close()
	r, w, err := os.Pipe()
	check(t, err)
	var at int64
	n, err := unix.Splice(int(file.Fd()), &at, int(w.Fd()), nil, 1, 0)
	if n != 1 {
		t.Fatalf("splice: %d, %v", n, err)
	}
	return func() {
		check(t, r.Close())
		check(t, w.Close())
	}
}

// TestProofCutKeepsLocksOfOthers: the kernel takes the folio out of all mappings,
// also of other Files of this process.
func TestProofCutKeepsLocksOfOthers(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	needLockOf(t, 8<<20)
	const locked = 1 << 20
	known := mmapio.Siblings()
	path, _ := patternFile(t, 4<<20)
	open := func(o mmapio.Options) *mmapio.File { return mustOpen(t, path, &o) }
	f := open(mmapio.Options{Mode: mmapio.ReadWrite})
	others := []*mmapio.File{
		open(mmapio.Options{Length: locked}), open(mmapio.Options{Length: locked, DropFD: true}),
		open(mmapio.Options{Mode: mmapio.CopyOnWrite, Length: locked}), open(mmapio.Options{Offset: 5000, Length: locked - 5000}),
		open(mmapio.Options{Mode: mmapio.ReadWrite, Length: locked, Lock: mmapio.LockNow}),
	}
	for _, other := range others {
		check(t, other.LockAll())
	}
	held := func(what string) {
		t.Helper()
		for i, other := range others {
			noError(t, fmt.Sprintf("%s: VerifyLocked of File %d", what, i), other.VerifyLocked(0, other.Size()))
			prove.AssertHeld(t, memoryOf(t, other))
		}
	}
	mustResize(t, f, locked+5*pageSize+1)
	held("shrink")
	undo := inPipe(t, path)
	mustResize(t, f, locked+2*pageSize+1) // the folio stays
	undo()
	restore := mmapio.SetFailpoint(func(step string) error {
		if step == "map" {
			return errInjected
		}
		return nil
	})
	if f.Resize(3<<20) == nil {
		t.Error("it grows")
	}
	restore()
	held("growth that failed")
	for _, other := range others {
		mustClose(t, other)
	}
	mustResize(t, f, 100)
	mustClose(t, f)
	if n := mmapio.Siblings() - known; n > 0 {
		t.Errorf("%d disk files are known still", n)
	}
}

// What the package's comment says of the page in which others have ended a file.
func TestBehindTheEndNothingFails(t *testing.T) {
	prove.Need(t, prove.FileEnd)
	const size, end = 3, 1 // in pages; the file is to end 100 bytes behind
	path, content := patternFile(t, size*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	truncated(t, path, end*pageSize+100)
	b := make([]byte, 10)
	if n, err := f.ReadAt(b, end*pageSize+200); n != len(b) || err != nil || string(b) != string(make([]byte, 10)) {
		t.Errorf("ReadAt: %d, %v, %q", n, err, b)
	}
	if n, err := f.WriteAt([]byte("lost"), end*pageSize+200); n != 4 || err != nil {
		t.Errorf("WriteAt: %d, %v", n, err)
	}
	check(t, f.Sync())
	same(t, "the file", onDisk(t, path), content[:end*pageSize+100])
	if _, err := f.WriteAt([]byte("told"), (end+1)*pageSize); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("WriteAt to the page behind it: %v", err)
	}
	if n, err := f.Refresh(); n != end*pageSize+100 || err != nil {
		t.Errorf("Refresh: %d, %v", n, err)
	}
}
