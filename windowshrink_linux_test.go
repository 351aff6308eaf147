package mmapio_test

import (
	"sync"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// TestWindowsWhileShrinking: the windows of a call that is under way and a Resize
// that waits for them must not wait for each other.
func TestWindowsWhileShrinking(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Verify)
	needLockOf(t, 8<<20)
	for name, call := range map[string]func(f *mmapio.File) error{
		"Populate": func(f *mmapio.File) error { return f.Populate(t.Context(), 0, 7<<20) },
		"Lock": func(f *mmapio.File) error {
			if err := f.Lock(0, 7<<20); err != nil {
				return err
			}
			return f.Unlock(0, 7<<20)
		},
	} {
		for _, step := range []int{0, 2} {
			t.Run(name, func(t *testing.T) {
				defer mmapio.SideBySide(step)()
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
							noError(t, name, call(f))
						}
					}
				})
				for range 1000 {
					mustResize(t, f, 8<<20+pageSize)
					mustResize(t, f, 8<<20)
				}
				close(stop)
				wg.Wait()
				mustClose(t, f)
			})
		}
	}
}
