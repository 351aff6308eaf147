package mmapio_test

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// A stand is all that a change may change, and that must be the same after one
// that failed.
type stand struct {
	size    int64
	at      uintptr
	content []byte
	disk    []byte // nil: no file
	blocks  int64
	spare   int64 // blocks that do not matter
	ranges  []mmapio.Range
	held    []bool   // pages that the kernel keeps
	fds     []string // descriptors
	maps    int      // mappings of the file
}

// standOf looks. The kernel is asked where it can be.
func standOf(t testing.TB, f *mmapio.File, path string) (s stand) {
	t.Helper()
	s.size, s.at, s.ranges = f.Size(), addressOf(t, f), f.LockedRanges()
	s.content = make([]byte, s.size)
	n, err := f.ReadAt(s.content, 0)
	s.content = s.content[:n] // others may have cut the file
	if fe := (*mmapio.FaultError)(nil); err != nil && !errors.As(err, &fe) && s.size > 0 {
		t.Fatal(err)
	}
	if path != "" {
		s.disk = onDisk(t, path)
		if blocksOf != nil {
			s.blocks = blocksOf(t, path)
		}
	}
	if prove.Missing(prove.Pagemap) != "" || runtime.GOOS != "linux" {
		return s
	}
	if err := f.View(0, s.size, func(b []byte) error {
		s.held = prove.LockedPages(t, b)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	s.fds = prove.FDs(t)
	if path != "" {
		s.maps, _ = prove.MappedFiles(t, path)
	}
	return s
}

// unchanged fails the test unless all is as it was.
func (s *stand) unchanged(t testing.TB, what string, f *mmapio.File, path string) {
	t.Helper()
	now := standOf(t, f, path)
	same(t, what+": content", now.content, s.content)
	same(t, what+": the file", now.disk, s.disk)
	switch {
	case now.size != s.size:
		t.Fatalf("%s: Size() = %d, was %d", what, now.size, s.size)
	case now.at != s.at && reserves: // else it may have been unmapped meanwhile
		t.Fatalf("%s: moved from %#x to %#x", what, s.at, now.at)
	case now.blocks < s.blocks || now.blocks > s.blocks+s.spare:
		t.Fatalf("%s: %d blocks, were %d", what, now.blocks, s.blocks)
	case !slices.Equal(now.ranges, s.ranges):
		t.Fatalf("%s: locked are %v, were %v", what, now.ranges, s.ranges)
	case !slices.Equal(now.held, s.held):
		t.Fatalf("%s: the kernel holds %v, held %v", what, now.held, s.held)
	case !slices.Equal(now.fds, s.fds):
		t.Fatalf("%s: descriptors %v, were %v", what, now.fds, s.fds)
	case now.maps != s.maps:
		t.Fatalf("%s: %d mappings, were %d", what, now.maps, s.maps)
	}
}

// A change is a Resize or Refresh in a situation that the test makes.
type change struct {
	name   string
	anon   bool
	o      mmapio.Options
	size   int64                           // at first
	others func(t *testing.T, path string) // what another process does then
	do     func(f *mmapio.File) error
	to     int64 // Size when it succeeds
	steps  []string
	whole  []string // the steps where a file must be unmapped to be cut, if they are others
	cuts   bool     // others shorten the file while it is mapped
	secret bool     // of the options that few systems have
	locked int      // runs of pages that are locked, 0 for the three that open makes
}

// changes are all the ways that Resize and Refresh can take.
func changes() []change {
	ps := pageSize
	size := 5*ps + 100
	room := &mmapio.Options{Mode: mmapio.ReadWrite, Reserve: 40 * ps}
	resize := func(n int64) func(*mmapio.File) error {
		return func(f *mmapio.File) error { return f.Resize(n) }
	}
	refresh := func(f *mmapio.File) error { _, err := f.Refresh(); return err }
	longer := func(t *testing.T, path string) {
		if err := appendTo(path, pattern(9*ps, 3)); err != nil {
			t.Fatal(err)
		}
	}
	cut := func(n int64) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.Truncate(path, n); err != nil {
				t.Fatal(err)
			}
		}
	}
	rw, cow := mmapio.Options{Mode: mmapio.ReadWrite}, mmapio.Options{Mode: mmapio.CopyOnWrite}
	off := mmapio.Options{Mode: mmapio.ReadWrite, Offset: ps + 3}
	locked, lockedRoom := rw, *room
	locked.Lock, lockedRoom.Lock = mmapio.LockNow, mmapio.LockNow
	onFault, lockedCOW := locked, cow
	onFault.Lock, lockedCOW.Lock = mmapio.LockOnFault, mmapio.LockNow
	both := []string{"map", "lock", "lock tail"}
	secret := mmapio.Options{Lock: mmapio.LockNow, NoDump: true, NoFork: true}
	secretRoom := secret
	secretRoom.Reserve = 40 * ps
	sparse := mmapio.Options{Mode: mmapio.ReadWrite, Sparse: true}
	return []change{
		{name: "grow elsewhere", o: rw, size: size, do: resize(20 * ps), to: 20 * ps, steps: []string{"blocks", "map", "lock"}},
		{name: "grow elsewhere, Sparse", o: sparse, size: size, do: resize(20 * ps), to: 20 * ps, steps: []string{"blocks", "map", "lock"}},
		{name: "grow elsewhere, Offset", o: off, size: size, do: resize(20 * ps), to: 20 * ps, steps: []string{"blocks", "map", "lock"}},
		{name: "grow in place", o: *room, size: size, do: resize(20 * ps), to: 20 * ps, steps: []string{"blocks", "map"}},
		{name: "grow in the last page", o: rw, size: size, do: resize(size + 9), to: size + 9, steps: []string{"blocks"}},
		{name: "grow, others had cut it", o: rw, size: size, others: cut(3*ps + 50), do: resize(20 * ps), to: 20 * ps, steps: []string{"blocks", "map", "lock"}, cuts: true},
		{name: "grow, others had more", o: rw, size: size, others: longer, do: resize(12 * ps), to: 12 * ps, steps: []string{"blocks", "map", "lock", "length"}, whole: []string{"blocks", "length"}},
		{name: "grow in place, others had more", o: *room, size: size, others: longer, do: resize(12 * ps), to: 12 * ps, steps: []string{"blocks", "map", "length"}},
		{name: "the same, others had more", o: rw, size: size, others: longer, do: resize(size), to: size, steps: []string{"blocks", "length"}},
		{name: "shrink", o: rw, size: size, do: resize(2*ps + 1), to: 2*ps + 1, steps: []string{"length"}},
		{name: "shrink to nothing", o: off, size: size, do: resize(0), to: 0, steps: []string{"length"}},
		{name: "refresh elsewhere", o: mmapio.Options{}, size: size, others: longer, do: refresh, to: size + 9*ps, steps: []string{"map", "lock"}},
		{name: "refresh in place", o: *room, size: size, others: longer, do: refresh, to: size + 9*ps, steps: []string{"map"}},
		{name: "refresh copy on write", o: cow, size: size, others: longer, do: refresh, to: size + 9*ps, steps: []string{"map", "lock"}},
		{name: "grow elsewhere, Lock", o: locked, size: size, do: resize(20 * ps), to: 20 * ps, steps: append(both, "blocks"), locked: 1},
		{name: "grow in place, Lock", o: lockedRoom, size: size, do: resize(20 * ps), to: 20 * ps, steps: []string{"blocks", "map", "lock tail"}},
		{name: "grow elsewhere, LockOnFault", o: onFault, size: size, do: resize(20 * ps), to: 20 * ps, steps: append(both, "blocks"), locked: 5},
		{name: "grow, Lock, others had more", o: locked, size: size, others: longer, do: resize(12 * ps), to: 12 * ps, steps: append(both, "length"), locked: 1, whole: []string{"blocks", "length"}},
		{name: "refresh, Lock", o: mmapio.Options{Lock: mmapio.LockNow}, size: size, others: longer, do: refresh, to: size + 9*ps, steps: both, locked: 1},
		{name: "refresh copy on write, Lock", o: lockedCOW, size: size, others: longer, do: refresh, to: size + 9*ps, steps: both, locked: 1},
		{name: "anonymous elsewhere, Lock", anon: true, o: mmapio.Options{Lock: mmapio.LockNow}, size: size, do: resize(20 * ps), to: 20 * ps, steps: both, locked: 1},
		{name: "secret elsewhere", anon: true, o: secret, size: size, do: resize(20 * ps), to: 20 * ps, steps: both, locked: 1, secret: true},
		{name: "secret in place", anon: true, o: secretRoom, size: size, do: resize(20 * ps), to: 20 * ps, steps: []string{"map", "lock tail"}, secret: true},
		{name: "secret smaller", anon: true, o: secret, size: size, do: resize(2*ps + 1), to: 2*ps + 1, secret: true},
		{name: "anonymous elsewhere", anon: true, size: size, do: resize(20 * ps), to: 20 * ps, steps: []string{"map", "lock"}},
		{name: "anonymous in place", anon: true, o: mmapio.Options{Reserve: 40 * ps}, size: size, do: resize(20 * ps), to: 20 * ps, steps: []string{"map"}},
	}
}

// open makes the situation: three runs of locked pages, a last page that is not
// a whole one, and stores in all pages.
func (c *change) open(t *testing.T) (f *mmapio.File, path string) {
	t.Helper()
	ps := pageSize
	if c.anon {
		f = opened(t)(mmapio.Anonymous(c.size, &c.o))
	} else {
		path, _ = patternFile(t, c.o.Offset+c.size)
		f = mustOpen(t, path, &c.o)
	}
	if f.Mode() != mmapio.ReadOnly {
		for at := int64(0); at < c.size; at += ps {
			store(t, f, at, fmt.Sprintf("page %d", at/ps))
		}
	}
	for _, r := range []mmapio.Range{{Off: 0, Len: 1}, {Off: 2 * ps, Len: ps}, {Off: c.size - 1, Len: 1}} {
		if err := f.Lock(r.Off, r.Len); err != nil {
			t.Fatal(err)
		}
	}
	return f, path
}

// TestResizeAllOrNothing fails every step of every kind of change, each time
// that it comes, and looks whether anything is left of it. Then nothing fails,
// and all is as it must be.
func TestResizeAllOrNothing(t *testing.T) {
	needMaps(t)
	needLocks(t)
	for _, c := range changes() {
		if (c.o.Reserve > 0 || c.cuts) && !reserves || c.cuts && !cuts || c.o.Lock != mmapio.LockNone && !locksAll ||
			(c.o.Lock == mmapio.LockOnFault || c.secret) && (runtime.GOOS != "linux" || slow) {
			continue
		}
		if c.whole != nil && !reserves {
			c.steps = c.whole
		}
		t.Run(c.name, func(t *testing.T) {
			for _, step := range c.steps {
				nth := 1
				for c.fails(t, step, nth) {
					nth++
				}
				// Each run of pages is locked by itself.
				want := 1
				if step == "lock" {
					want = cmp.Or(c.locked, 3)
				}
				if nth-1 != want {
					t.Errorf("step %q came %d times", step, nth-1)
				}
			}
			c.fails(t, "none", 1)
		})
	}
}

// fails makes the change with the nth time of a step failing, and tries again
// without. It returns false if the step did not come so often.
func (c *change) fails(t *testing.T, step string, nth int) bool {
	t.Helper()
	injected := errors.New("injected")
	f, path := c.open(t)
	defer f.Close()
	if c.others != nil {
		c.others(t, path)
	}
	was, came := standOf(t, f, path), 0
	restore := mmapio.SetFailpoint(func(s string) error {
		if s == step {
			came++
		}
		if s == step && came == nth {
			return injected
		}
		return nil
	})
	err := c.do(f)
	restore()
	if came >= nth {
		if !errors.Is(err, injected) {
			t.Fatalf("step %q failed at time %d, the change did not: %v", step, nth, err)
		}
		was.unchanged(t, fmt.Sprintf("step %q failed at time %d", step, nth), f, path)
		stillStores(t, f)
		err = c.do(f)
	}
	if err != nil || f.Size() != c.to {
		t.Fatalf("Size() = %d, want %d: %v", f.Size(), c.to, err)
	}
	now := standOf(t, f, path)
	n := min(len(was.content), len(now.content))
	same(t, "what was there before", now.content[:n], was.content[:n])
	if path != "" && f.Mode() != mmapio.CopyOnWrite {
		same(t, "the file", now.disk[c.o.Offset:], now.content)
	}
	return came >= nth
}

// stillStores stores what is there to every page that can be had.
func stillStores(t testing.TB, f *mmapio.File) {
	t.Helper()
	if f.Mode() == mmapio.ReadOnly {
		return
	}
	for at := int64(0); at < f.Size(); at += pageSize {
		var b [1]byte
		if n, _ := f.ReadAt(b[:], at); n == 0 {
			return
		}
		if _, err := f.WriteAt(b[:], at); err != nil {
			t.Fatalf("a store after the failure: %v", err)
		}
	}
}
