package mmapio_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// A waitContext tells when somebody waits for it to end.
type waitContext struct {
	context.Context
	waited chan struct{}
}

func (c waitContext) Done() <-chan struct{} {
	select {
	case c.waited <- struct{}{}:
	default:
	}
	return c.Context.Done()
}

// lockWaits begins to lock a File, which has to wait for others.
func lockWaits(ctx context.Context, t testing.TB, f *mmapio.File) (ended chan error) {
	t.Helper()
	c := waitContext{ctx, make(chan struct{}, 1)}
	ended = make(chan error, 1)
	go func() { ended <- f.LockContext(c, 0, f.Size(), nil) }()
	select {
	case <-c.waited:
	case err := <-ended:
		t.Fatalf("it did not wait for others: %v", err)
	}
	return ended
}

// endOf is the result of a call that is to end now.
func endOf(t testing.TB, ended chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("it waits on")
		return nil
	}
}

func nothingReserved(t testing.TB, what string) {
	t.Helper()
	if fresh, cached := mmapio.Reserved(); fresh != 0 || cached != 0 {
		t.Errorf("%s: %d and %d bytes of room are still kept", what, fresh, cached)
	}
}

// besideOthers locks in a cgroup of 192 MiB of which other calls keep a part.
var besideOthers = prove.Register("lock beside others in a cgroup", func(args []string) int {
	t := prove.T()
	of := func(n int64) *mmapio.File { return opened(t)(mmapio.Anonymous(n, nil)) }
	release := mmapio.Reserve(150*mib, 0)

	ctx, cancel := context.WithCancelCause(t.Context())
	f := of(60 * mib)
	ended := lockWaits(ctx, t, f)
	cancel(errInjected)
	wantPathError(t, endOf(t, ended), "lockcontext", f.Name(), errInjected)
	prove.AssertNotHeld(t, memoryOf(t, f))
	if fresh, cached := mmapio.Reserved(); fresh != 150*mib || cached != 0 {
		t.Errorf("after a wait that was called off %d and %d bytes are kept, not those of others", fresh, cached)
	}

	// All that wait go on, and what has no room even so is refused then.
	large := of(200 * mib)
	g := of(60 * mib)
	waits := []chan error{lockWaits(t.Context(), t, f), lockWaits(t.Context(), t, g)}
	hopeless := lockWaits(t.Context(), t, large)
	release()
	for _, ended := range waits {
		check(t, endOf(t, ended))
	}
	if le := (*mmapio.LockError)(nil); !errors.As(endOf(t, hopeless), &le) || le.Cause != mmapio.CauseCgroup {
		t.Errorf("what does not fit: %+v", le)
	}
	for _, f := range []*mmapio.File{f, g} {
		check(t, f.VerifyLocked(0, f.Size()))
		mustClose(t, f)
	}
	nothingReserved(t, "locks")

	// To move memory takes room that is given back early.
	f = of(20 * mib)
	check(t, f.LockAll())
	mustResize(t, f, 21*mib)
	nothingReserved(t, "a growth")
	mustClose(t, f)

	// So does what is cached already, where the kernel says that it is.
	f = mustOpen(t, args[0], nil)
	check(t, f.LockAll())
	nothingReserved(t, "a lock of what is cached")
	return 0
})

// A lock for which a cgroup has no room beside what others are about to bring in waits
// for them, or for its context, and gives back what room it had.
func TestLockInCgroupBesideOthers(t *testing.T) {
	prove.Need(t, prove.MemCgroup, prove.Verify, prove.Pagemap)
	path, _ := patternFile(t, 8*mib)
	if res := besideOthers.Run(t, prove.In(prove.MemoryCgroup(t, 192*mib)), prove.Args(path)); res.Code != 0 {
		t.Error(res)
	}
}

// secretInCgroup has a secret grow in a cgroup of 256 MiB.
var secretInCgroup = prove.Register("a secret grows in a cgroup", func([]string) int {
	t := prove.T()
	const size = 64 * mib
	f := newSecret(t, size, secretOptions)
	sum := func() (h [sha256.Size]byte) { // a copy would take room itself
		check(t, f.View(0, size, func(b []byte) error { h = sha256.Sum256(b); return nil }))
		return h
	}
	was := sum()
	grow := func(n int64) error {
		ended := make(chan error, 1)
		go func() { ended <- f.Resize(size + n) }()
		return endOf(t, ended)
	}
	// What is added fits, but not beside what it moves away from.
	if le := (*mmapio.LockError)(nil); !errors.As(grow(150*mib), &le) || le.Cause != mmapio.CauseCgroup {
		t.Errorf("150 MiB more: %+v", le)
	}
	nothingReserved(t, "a growth that was refused")
	if sum() != was {
		t.Error("it is changed by a growth that was refused")
	}
	check(t, grow(8*mib))
	nothingReserved(t, "a growth")
	if sum() != was {
		t.Error("it is changed by a growth")
	}
	check(t, f.VerifyLocked(0, f.Size()))
	return 0
})

// A secret that has no room to grow in its cgroup is told so, and does not wait for the
// room that it keeps itself.
func TestProofSecretGrowsInCgroup(t *testing.T) {
	prove.Need(t, prove.MemCgroup, prove.Verify, prove.Pagemap)
	if res := secretInCgroup.Run(t, prove.In(prove.MemoryCgroup(t, 256*mib))); res.Code != 0 {
		t.Error(res)
	}
}

// refusedInCgroup locks a file of which too little is in memory to fit, and what takes
// no memory yet.
var refusedInCgroup = prove.Register("lock what does not fit a cgroup", func(args []string) int {
	t := prove.T()
	f := mustOpen(t, args[0], nil)
	if le := (*mmapio.LockError)(nil); !errors.As(f.LockAll(), &le) || le.Cause != mmapio.CauseCgroup {
		t.Errorf("a file of which a part is cached: %+v", le)
	}
	f = opened(t)(mmapio.Anonymous(200*mib, nil))
	check(t, f.LockContext(t.Context(), 0, f.Size(), &mmapio.LockOptions{OnFault: true}))
	return 0
})

// What is cached counts once; a lock on fault brings nothing in, so it needs no room.
func TestLockInCgroupCountsOnce(t *testing.T) {
	prove.Need(t, prove.MemCgroup, prove.Pagemap, prove.Advice, prove.Cachestat, prove.Disk)
	path := prove.NewFile(t, prove.PublicDir(t), "f", 200*mib)
	dropCache(t, path)
	file, err := os.Open(path)
	check(t, err)
	defer file.Close()
	_, err = io.CopyN(io.Discard, file, 80*mib)
	check(t, err)
	if res := refusedInCgroup.Run(t, prove.In(prove.MemoryCgroup(t, 100*mib)), prove.Args(path)); res.Code != 0 {
		t.Error(res)
	}
}

// Of what others have cached already a cgroup is charged what it was charged before,
// and no more than that once it is locked.
func TestCgroupOverfull(t *testing.T) {
	const none, ps = -1, 4096
	all := func(limit, usage, inactive, active int64) mmapio.CgroupState {
		return mmapio.CgroupState{Limit: limit * mib, Usage: usage * mib, Inactive: inactive * mib, Active: active * mib}
	}
	// 250 pages take one for page tables and the like, whatever is needed 1 MiB more.
	const slack = mib + 1
	for _, c := range []struct {
		name                                     string
		groups                                   []mmapio.CgroupState
		fresh, cached, othersFresh, othersCached int64
		full                                     int // which of them, or none
	}{
		{"no limit", []mmapio.CgroupState{{Limit: -1, Usage: 1 << 40}}, 1 << 40, 0, 0, 0, none},
		{"just fits", []mmapio.CgroupState{all(10, 8, 0, 0)}, mib - 5*ps, 0, 0, 0, none},
		{"does not", []mmapio.CgroupState{all(10, 8, 0, 0)}, mib, 0, 0, 0, 0},
		{"beside others", []mmapio.CgroupState{all(10, 8, 0, 0)}, mib / 2, 0, mib/2 - 5*ps, 0, none},
		{"not beside others", []mmapio.CgroupState{all(10, 8, 0, 0)}, mib / 2, 0, mib / 2, 0, 0},
		{"nothing, but for slack", []mmapio.CgroupState{{Limit: 10 * mib, Usage: 10*mib - slack}}, 0, 0, 0, 0, none},
		{"nothing, without it", []mmapio.CgroupState{{Limit: 10 * mib, Usage: 10*mib - slack + 1}}, 0, 0, 0, 0, 0},
		{"droppable is room", []mmapio.CgroupState{all(10, 10, 3, 4)}, 5 * mib, 0, 0, 0, none},
		{"cached elsewhere", []mmapio.CgroupState{all(10, 8, 0, 0)}, 0, 100 * mib, 0, 100 * mib, none},
		{"cached here", []mmapio.CgroupState{all(10, 9, 3, 4)}, mib / 2, 6 * mib, 0, 0, none},
		{"cached here, and no room", []mmapio.CgroupState{all(10, 9, 3, 4)}, mib / 2, 7 * mib, 0, 0, 0},
		{"cached here by two", []mmapio.CgroupState{all(10, 9, 3, 4)}, mib / 2, 4 * mib, 0, 3 * mib, 0},
		{"the fullest", []mmapio.CgroupState{all(10, 9, 0, 0), all(20, 20, 0, 0), all(30, 29, 0, 0)}, mib, 0, 0, 0, 1},
	} {
		if got := mmapio.Overfull(c.groups, [2]int64{c.fresh, c.cached}, [2]int64{c.othersFresh, c.othersCached}); got != c.full {
			t.Errorf("%s: cgroup %d is too full, want %d", c.name, got, c.full)
		}
	}
}
