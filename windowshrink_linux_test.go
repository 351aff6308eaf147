package mmapio_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// TestPopulateWhileShrinking: a window of a stream waits for the one before, which
// may not have begun when the File is made smaller.
func TestPopulateWhileShrinking(t *testing.T) {
	defer mmapio.SideBySide(0)()
	path, _ := patternFile(t, 8<<20)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Sparse: true, Reserve: 16 << 20})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				noError(t, "Populate", f.Populate(t.Context(), 0, 7<<20))
			}
		}
	})
	for range 2000 {
		mustResize(t, f, 8<<20+pageSize)
		mustResize(t, f, 8<<20)
	}
	close(stop)
	wg.Wait()
	mustClose(t, f)
}

// A secondErr is a context that calls what is to be done the second time that it is
// asked for its error: before the second window begins.
type secondErr struct {
	context.Context
	asked atomic.Int32
	then  func()
}

func (c *secondErr) Err() error {
	if c.asked.Add(1) == 2 {
		c.then()
	}
	return c.Context.Err()
}

// TestLockWhileShrinking is the same for a lock. The first window is locked already,
// so that nothing is brought in, in a mapping that a growth has left behind; the
// second is in the new one, which is made smaller.
func TestLockWhileShrinking(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Verify)
	needLockOf(t, 8<<20)
	defer mmapio.SideBySide(0)()
	path, _ := patternFile(t, 6<<20)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	check(t, f.Lock(0, 2<<20))
	atWork, goOn := make(chan struct{}), make(chan struct{})
	var holds atomic.Int32
	defer mmapio.SetFailpoint(func(step string) error {
		if step == "hold" && holds.Add(1) == 1 {
			close(atWork)
			<-goOn
		}
		return nil
	})()
	shrunk := make(chan error, 1)
	ctx := &secondErr{Context: t.Context(), then: func() {
		<-atWork
		mustResize(t, f, 8<<20)
		go func() {
			// Not before the second window waits for its turn: it has entered.
			for !mmapio.InCalls(f) {
				time.Sleep(time.Millisecond)
			}
			go func() { shrunk <- f.Resize(7 << 20) }()
			for !mmapio.Excludes(f) {
				time.Sleep(time.Millisecond)
			}
			close(goOn)
		}()
	}}
	noError(t, "LockContext", f.LockContext(ctx, 0, 6<<20, nil))
	noError(t, "Resize", <-shrunk)
	noError(t, "VerifyLocked", f.VerifyLocked(0, 6<<20))
	mustClose(t, f)
}
