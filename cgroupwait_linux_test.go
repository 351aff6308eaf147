package mmapio_test

import (
	"context"
	"errors"
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
func lockWaits(t testing.TB, ctx context.Context, f *mmapio.File) (ended chan error) {
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
	ended := lockWaits(t, ctx, f)
	cancel(errInjected)
	wantPathError(t, endOf(t, ended), "lockcontext", f.Name(), errInjected)
	prove.AssertNotHeld(t, memoryOf(t, f))
	if fresh, cached := mmapio.Reserved(); fresh != 150*mib || cached != 0 {
		t.Errorf("after a wait that was called off %d and %d bytes are kept, not those of others", fresh, cached)
	}

	// All that wait go on, and what has no room even so is refused then.
	large := of(200 * mib)
	g := of(60 * mib)
	waits := []chan error{lockWaits(t, t.Context(), f), lockWaits(t, t.Context(), g)}
	hopeless := lockWaits(t, t.Context(), large)
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
	prove.Need(t, prove.MemCgroup, prove.Verify)
	path, _ := patternFile(t, 8*mib)
	if res := besideOthers.Run(t, prove.In(prove.MemoryCgroup(t, 192*mib)), prove.Args(path)); res.Code != 0 {
		t.Error(res)
	}
}
