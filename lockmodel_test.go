package mmapio_test

import (
	"errors"
	"flag"
	"io/fs"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// A lockModel says of every byte whether it is locked, which is all that there
// is to say about locks.
type lockModel struct {
	locked []bool
}

func (m *lockModel) set(off, n int64, locked bool) {
	for i := off; i < off+n; i++ {
		m.locked[i] = locked
	}
}

// pages says of each page whether a locked byte lies on it.
func (m *lockModel) pages(b []byte) (held []bool) {
	for from, to := pageOf(b, 0); from < to; from, to = pageOf(b, len(held)) {
		on := false
		for i := from; i < to && !on; i++ {
			on = m.locked[i]
		}
		held = append(held, on)
	}
	return held
}

// rapidTB has failures counted by rapid, so that it can look for the shortest
// way to them. *rapid.T is no testing.TB.
type rapidTB struct {
	testing.TB
	r *rapid.T
}

func (t rapidTB) Helper()                      { t.r.Helper() }
func (t rapidTB) Error(args ...any)            { t.r.Error(args...) }
func (t rapidTB) Errorf(f string, args ...any) { t.r.Errorf(f, args...) }
func (t rapidTB) Fatal(args ...any)            { t.r.Fatal(args...) }
func (t rapidTB) Fatalf(f string, args ...any) { t.r.Fatalf(f, args...) }

// Random locks and unlocks, compared with the model after each.
func TestProofLockModel(t *testing.T) {
	const pages = 12
	needLockOf(t, (pages+1)*pageSize)
	t.Cleanup(mmapio.LockAheadFrom(pageSize))
	size := pages*pageSize - 500
	path := fileOf(t, 2*pageSize+size)
	fewer(t, "12")
	steps := 0
	rapid.Check(t, func(r *rapid.T) {
		tb := rapidTB{t, r}
		f, err := drawFile(r, path, size)
		check(tb, err)
		defer f.Close()
		b := memoryOf(tb, f)
		m := lockModel{locked: make([]bool, len(b))}
		// Any byte, and the bytes around page edges more often.
		offset := rapid.OneOf(rapid.Int64Range(0, size), rapid.Custom(func(r *rapid.T) int64 {
			_, edge := pageOf(b, rapid.IntRange(0, pages).Draw(r, "page"))
			return min(max(edge+rapid.Int64Range(-1, 1).Draw(r, "by"), 0), size)
		}))
		between := func(r *rapid.T) (off, n int64) {
			from, to := offset.Draw(r, "from"), offset.Draw(r, "to")
			return min(from, to), max(from, to) - min(from, to)
		}
		r.Repeat(map[string]func(*rapid.T){
			"lock": func(r *rapid.T) {
				off, n := between(r)
				check(tb, f.Lock(off, n))
				m.set(off, n, true)
			},
			"unlock": func(r *rapid.T) {
				off, n := between(r)
				check(tb, f.Unlock(off, n))
				m.set(off, n, false)
			},
			"unlock all": func(r *rapid.T) {
				check(tb, f.UnlockAll())
				m.set(0, size, false)
			},
			"store": func(r *rapid.T) {
				if off := offset.Draw(r, "off"); f.Mode() != mmapio.ReadOnly && off < size {
					_, err := f.WriteAt([]byte{1}, off)
					check(tb, err)
				}
			},
			"": func(r *rapid.T) {
				steps++
				holdsPages(tb, f, m.pages(b))
			},
		})
	})
	t.Logf("%d steps", steps)
}

// fewer makes rapid try less, unless it was told how much to try or there is
// time: each step reads smaps. It also keeps it from writing down what failed:
// with a stub for the lock that is expected, and the seed is in the output.
func fewer(t *testing.T, checks string) {
	set := func(name, value string) {
		f := flag.Lookup(name)
		if f.Value.String() == f.DefValue {
			check(t, f.Value.Set(value))
			t.Cleanup(func() { f.Value.Set(f.DefValue) }) //nolint:errcheck // it was that before
		}
	}
	set("rapid.nofailfile", "true")
	if !prove.E2E() {
		set("rapid.checks", checks)
	}
}

func drawFile(r *rapid.T, path string, size int64) (*mmapio.File, error) {
	mode := mmapio.Mode(rapid.IntRange(0, 3).Draw(r, "mode"))
	if mode > mmapio.CopyOnWrite {
		return mmapio.Anonymous(size, nil)
	}
	offset := rapid.SampledFrom([]int64{0, 1, 500, pageSize - 1, pageSize + 500}).Draw(r, "offset")
	return mmapio.OpenFile(path, &mmapio.Options{Mode: mode, Offset: offset, Length: size})
}

// Several goroutines, each on a range of its own, with edges inside of pages so
// that neighbours share one.
func TestProofLockModelConcurrent(t *testing.T) {
	const pages, workers = 41, 4
	needLockOf(t, pages*pageSize)
	everyMode(t, pages*pageSize-9, func(t *testing.T, f *mmapio.File) {
		b := memoryOf(t, f)
		m := lockModel{locked: make([]bool, len(b))}
		for round := range 8 {
			var wg sync.WaitGroup
			for w := range int64(workers) {
				lo, hi := w*f.Size()/workers+7, (w+1)*f.Size()/workers+7
				rnd := rand.New(rand.NewPCG(uint64(round), uint64(w)))
				wg.Go(func() {
					for range 25 {
						off := lo + rnd.Int64N(hi-lo)
						n := rnd.Int64N(min(hi, f.Size())-off+1) >> rnd.IntN(16)
						call, locked := f.Lock, rnd.IntN(2) == 0
						if !locked {
							call = f.Unlock
						}
						if err := call(off, n); err != nil {
							t.Errorf("%v(%d, %d): %v", locked, off, n, err)
						}
						m.set(off, n, locked)
					}
				})
			}
			wg.Wait()
			holdsPages(t, f, m.pages(b))
		}
	})
}

// whileOpen runs functions over and over, several goroutines each, until one
// says that the File is closed. There must be no other error.
func whileOpen(t *testing.T, wg *sync.WaitGroup, calls ...func() error) {
	for _, call := range calls {
		wg.Go(func() {
			for {
				err := call()
				if errors.Is(err, fs.ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
}

// Locking, unlocking, reading and closing get along.
func TestLockConcurrently(t *testing.T) {
	const n = 512 << 10
	needLockOf(t, n)
	everyMode(t, n, func(t *testing.T, f *mmapio.File) {
		var wg sync.WaitGroup
		for range 4 {
			whileOpen(t, &wg, f.LockAll)
		}
		rnd := func() int64 { return rand.Int64N(n / 2) }
		whileOpen(t, &wg, f.UnlockAll,
			func() error { return f.Unlock(rnd(), rnd()) },
			func() error { _, err := f.ReadAt(make([]byte, 9000), rnd()); return err },
			func() error {
				err := f.VerifyLocked(rnd(), 1)
				if errors.As(err, new(*mmapio.LockError)) || errors.Is(err, errors.ErrUnsupported) {
					return nil // unlocked at the time, or nothing to ask
				}
				return err
			},
			func() error { f.LockedRanges(); f.LockedBytes(); return f.Lock(0, 0) })
		time.Sleep(100 * time.Millisecond)
		check(t, f.Close())
		wg.Wait()
		if n := f.LockedBytes(); n != 0 {
			t.Errorf("%d bytes are locked after Close", n)
		}
		if prove.Missing(prove.LockCharge) == "" && prove.VmLck(t, 0) != 0 {
			t.Errorf("VmLck is %d after Close", prove.VmLck(t, 0))
		}
	})
}

// Close comes while LockAll is under way.
func TestCloseWhileLocking(t *testing.T) {
	const n = 1 << 20
	needLockOf(t, n)
	path := fileOf(t, n)
	for i := range 60 {
		f, err := mmapio.Open(path)
		check(t, err)
		var wg sync.WaitGroup
		whileOpen(t, &wg, f.LockAll, func() error { return f.Unlock(0, n/2) })
		time.Sleep(time.Duration(i*10) * time.Microsecond)
		check(t, f.Close())
		wg.Wait()
	}
}
