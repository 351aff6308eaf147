package beside

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// begin is for tests in which nothing stands in the way.
func begin(t *testing.T, l *Lock, lo, hi int64) *Change {
	t.Helper()
	l.LockBeside()
	defer l.Unlock()
	c := l.Begin(lo, hi)
	if c == nil {
		t.Fatalf("no change of [%d, %d)", lo, hi)
	}
	return c
}

func changing(l *Lock, lo, hi int64) bool {
	l.LockBeside()
	defer l.Unlock()
	return l.Changing(lo, hi)
}

func TestChanging(t *testing.T) {
	var l Lock
	if changing(&l, 0, 10) {
		t.Error("a change before the first")
	}
	c := begin(t, &l, 4, 6)
	for _, r := range []struct {
		lo, hi int64
		want   bool
	}{{0, 4, false}, {0, 5, true}, {5, 6, true}, {5, 9, true}, {6, 9, false}, {0, 9, true}} {
		if got := changing(&l, r.lo, r.hi); got != r.want {
			t.Errorf("Changing(%d, %d) is %v beside a change of [4, 6)", r.lo, r.hi, got)
		}
	}
	l.End(c)
	if changing(&l, 0, 10) {
		t.Error("a change goes on after its end")
	}
}

// TryLock is refused during a change, and by whoever has the lock.
func TestTryLock(t *testing.T) {
	var l Lock
	try := func(want bool) {
		t.Helper()
		if got := l.TryLock(); got != want {
			t.Errorf("TryLock is %v, want %v", got, want)
		} else if got {
			l.Unlock()
		}
	}
	try(true)
	c := begin(t, &l, 0, 1)
	try(false)
	l.LockBeside() // a TryLock in vain has not kept it
	try(false)
	l.Unlock()
	l.End(c)
	try(true)
}

func TestMost(t *testing.T) {
	var l Lock
	var all []*Change
	for i := range int64(most) {
		all = append(all, begin(t, &l, i, i+1))
	}
	l.LockBeside()
	if l.Begin(most, most+1) != nil {
		t.Errorf("more than %d changes", most)
	}
	l.Unlock()
	l.End(all[3])
	all[3] = begin(t, &l, most, most+1)
	for _, c := range all {
		l.End(c)
	}
	l.Lock()
	l.Unlock() //nolint:staticcheck // it is enough that Lock returns
}

// Lock waits for all changes, lets others look meanwhile, and no change begin.
func TestLockWaits(t *testing.T) {
	var l Lock
	a, b := begin(t, &l, 0, 1), begin(t, &l, 1, 2)
	var locked atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			l.Lock()
			locked.Store(true)
			l.Unlock()
		})
	}
	for l.changes.waiting.Load() < 2 {
		runtime.Gosched()
	}
	l.LockBeside()
	if l.Begin(5, 6) != nil {
		t.Error("a change began before one who waits for all to be over")
	}
	l.Unlock()
	l.End(a)
	if l.TryLock() {
		t.Error("locked during a change")
	}
	if locked.Load() {
		t.Error("Lock did not wait for a change")
	}
	l.End(b)
	wg.Wait()
	l.End(begin(t, &l, 5, 6)) // now that nobody waits
}

// No two change the same, and who has the lock finds no change under way.
func TestStress(t *testing.T) {
	var l Lock
	var pages [4]atomic.Int32
	var wg sync.WaitGroup
	var began atomic.Int64
	for g := range int64(4) {
		wg.Go(func() {
			for i := range int64(2000) {
				lo := (g + i) % int64(len(pages))
				l.LockBeside()
				var c *Change
				if !l.Changing(lo, lo+1) {
					c = l.Begin(lo, lo+1)
				}
				l.Unlock()
				if c == nil {
					l.Lock()
					for i := range pages {
						if n := pages[i].Load(); n != 0 {
							t.Errorf("page %d is being changed by %d, but locked", i, n)
						}
					}
					l.Unlock()
					continue
				}
				began.Add(1)
				if n := pages[lo].Add(1); n != 1 {
					t.Errorf("%d change page %d", n, lo)
				}
				if i%8 == 0 {
					runtime.Gosched()
				}
				pages[lo].Add(-1)
				l.End(c)
			}
		})
	}
	wg.Wait()
	if began.Load() == 0 {
		t.Error("no change was begun")
	}
}
