package known_test

import (
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mmapio/mmapio/internal/known"
)

const shift = 12

// TestModel compares a Set with a slice of bools, at its start and where others of
// its tables take over. Its timer never fires.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pages := rapid.SampledFrom([]int{1, 31, 64, 65, 300, 1024, 1025, 5000}).Draw(t, "pages")
		bases := []int{0, known.NearPages - 500, known.NearPages, known.NearPages + known.PartPages - 500}
		if bits.UintSize == 32 {
			bases = bases[:1] // no address lies so far behind another
		}
		base := rapid.SampledFrom(bases).Draw(t, "base")
		locked := make([]bool, pages)
		var s known.Set
		s.Init(base+pages, shift, time.Hour, keeper{base, locked})
		defer s.Stop()
		is := make([]bool, pages)
		was, lapses := make([]bool, pages), s.Lapses()
		between := func() (lo, last int) {
			lo = rapid.IntRange(0, pages-1).Draw(t, "lo")
			return lo, rapid.IntRange(lo, min(pages-1, lo+rapid.SampledFrom([]int{0, 1, 63, 200, pages}).Draw(t, "up to"))).Draw(t, "last")
		}
		fill := func(b []bool, lo, last int, v bool) {
			for i := lo; i <= last; i++ {
				b[i] = v
			}
		}
		resume := func() {}
		paused := false
		t.Repeat(map[string]func(*rapid.T){
			"add": func(*rapid.T) {
				lo, last := between()
				s.Add(base+lo, base+last)
				if !paused {
					fill(is, lo, last, true)
				}
			},
			"forget": func(*rapid.T) {
				lo, last := between()
				s.Forget(base+lo, base+last+1)
				fill(is, lo, last, false)
			},
			"lock": func(*rapid.T) {
				lo, last := between()
				fill(locked, lo, last, true)
			},
			"unlock": func(*rapid.T) {
				lo, last := between()
				fill(locked, lo, last, false)
				s.Unkeep(base+lo, base+last+1)
			},
			"expire": func(*rapid.T) {
				s.Expire()
				for i := range is {
					is[i] = is[i] && locked[i]
				}
			},
			"pause": func(*rapid.T) {
				if paused {
					resume()
				} else {
					resume = s.Pause()
					for i := range is {
						is[i] = is[i] && locked[i]
					}
				}
				paused = !paused
			},
			"": func(*rapid.T) {
				if n := s.Lapses(); n != lapses {
					copy(was, is)
					lapses = n
				}
				for i := range is {
					if was[i] && !is[i] {
						t.Fatalf("%d was forgotten, and that is not counted", i)
					}
					was[i] = is[i]
				}
				lo, last := between()
				first, end, all := last+1, lo-1, true
				for i := lo; i <= last; i++ {
					if !is[i] {
						all, first, end = false, min(first, i), i
					}
				}
				if got := s.Has(base+lo, base+last); got != all {
					t.Fatalf("Has(%d, %d) = %v", lo, last, got)
				}
				within := rapid.IntRange(0, 1<<shift-1).Draw(t, "within the first page")
				n := (last-lo)<<shift - within + rapid.IntRange(1, 1<<shift).Draw(t, "within the last")
				if n > 0 && s.HasBytes((base+lo)<<shift+within, n) != all {
					t.Fatalf("HasBytes(%d<<%d + %d, %d) = %v", lo, shift, within, n, !all)
				}
				a, b := s.Missing(base+lo, base+last)
				a, b = a-base, b-base
				if all != (a > b) || !all && (a != first || b != end) {
					t.Fatalf("Missing(%d, %d) = %d, %d, want %d, %d", lo, last, a, b, first, end)
				}
			},
		})
		resume()
	})
}

// keeper keeps the pages that are true, the first of which is base.
type keeper struct {
	base int
	is   []bool
}

func (k keeper) Keep(lo, hi int, keep func(lo, hi int)) {
	for i := max(lo, k.base); i < min(hi, k.base+len(k.is)); i++ {
		if k.is[i-k.base] {
			keep(i, i+1)
		}
	}
}

// asked keeps nothing, and counts how often it could have.
type asked struct{ atomic.Int32 }

func (a *asked) Keep(int, int, func(lo, hi int)) { a.Add(1) }

// TestWere: what was forgotten by time can be asked for in one go, what was
// forgotten for a reason cannot.
func TestWere(t *testing.T) {
	var s known.Set
	s.Init(1000, shift, time.Hour, nil)
	defer s.Stop()
	s.Add(66, 80)
	s.Add(90, 100)
	s.Forget(70, 71)
	s.Expire()
	word := 100 // as far as one word tells
	if bits.UintSize == 32 {
		word = 95
	}
	for page, want := range map[int]int{66: word, 80: word, 90: word, 100: 100, 65: -1, 70: -1, 81: -1, 999: -1} {
		last, ok := s.Were(page)
		if ok != (want >= 0) || ok && last != want {
			t.Errorf("Were(%d) = %d, %v, want %d", page, last, ok, want)
		}
	}
}

// TestTimer: it fires without being asked, again after each new page, and not
// for a Set that nobody has any more.
func TestTimer(t *testing.T) {
	s := new(known.Set)
	var asked asked
	s.Init(100, shift, time.Millisecond, &asked)
	for range 3 {
		s.Add(3, 70)
		for s.Has(3, 70) || s.Has(3, 3) {
			time.Sleep(time.Millisecond)
		}
	}
	s.Add(1, 1)
	s.Stop()
	time.Sleep(20 * time.Millisecond) // what was under way has ended
	before := asked.Load()
	s.Add(1, 1)
	time.Sleep(20 * time.Millisecond) // a timer would have fired
	if asked.Load() != before {
		t.Error("a timer after Stop")
	}

	gone := make(chan bool)
	func() {
		dropped := new(known.Set)
		dropped.Init(100, shift, time.Hour, nil)
		dropped.Add(1, 1)
		runtime.AddCleanup(dropped, func(c chan bool) { close(c) }, gone)
	}()
	for {
		runtime.GC()
		select {
		case <-gone:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestStop: nothing is known any more, nor will be, be it kept, on its way to be
// forgotten, or new.
func TestStop(t *testing.T) {
	locked := make([]bool, 20000)
	locked[3] = true
	far := known.NearPages + 7
	var s known.Set
	s.Init(far+1, shift, time.Hour, keeper{0, locked})
	s.Add(far, far)
	s.Add(3, 5)
	s.Expire() // page 3 is kept, and 4 and 5 were known
	s.Add(8000, 9000)
	resume := s.Pause()
	s.Stop()
	resume()
	nothing := func(what string) {
		t.Helper()
		first, last := s.Missing(0, 19999)
		_, were := s.Were(4)
		if s.Has(far, far) || s.Has(3, 3) || s.Has(8000, 9000) || s.Has(1, 1) || first != 0 || last != 19999 || were {
			t.Errorf("%s: something is known", what)
		}
	}
	nothing("stopped")
	s.Add(1, 9000)
	nothing("added to")
	s.Expire()
	s.Stop()
	nothing("stopped again")

	for range 200 {
		var s known.Set
		s.Init(known.NearPages+20000, shift, time.Hour, nil)
		var wg sync.WaitGroup
		for _, base := range []int{0, 0, known.NearPages, known.NearPages} {
			wg.Go(func() {
				for i := range 100 {
					s.Add(base+i*97, base+i*97+300)
				}
			})
		}
		s.Stop()
		wg.Wait()
		for page := range 20000 {
			if s.Has(page, page) || s.Has(known.NearPages+page, known.NearPages+page) {
				t.Fatalf("page %d is known after Stop", page)
			}
		}
	}
}

// TestNothingStays: whatever happens side by side, what was added before the
// last expiry is forgotten, and a pause leaves nothing.
func TestNothingStays(t *testing.T) {
	var s known.Set
	s.Init(20000, shift, time.Hour, nil)
	defer s.Stop()
	for range 50 {
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 200 {
					page := (i*97 + g) % 20000
					s.Add(page, min(page+g*50, 19999))
				}
			})
		}
		wg.Go(func() {
			for range 20 {
				s.Expire()
			}
		})
		resume := s.Pause()
		wg.Wait()
		for page := range 20000 {
			if s.Has(page, page) {
				t.Fatalf("page %d is known in a pause", page)
			}
		}
		resume()
		s.Add(5, 15000)
		s.Expire()
		if first, last := s.Missing(0, 19999); first != 0 || last != 19999 || s.Has(5, 5) || s.Has(15000, 15000) {
			t.Fatal("something is known after all was forgotten")
		}
	}
}

func BenchmarkHas(b *testing.B) {
	var s known.Set
	s.Init(1<<20, shift, time.Hour, nil)
	s.Add(0, 1<<20-1)
	for name, n := range map[string]int{"1 page": 1, "2 words": 70, "256 pages": 256} {
		b.Run(name, func(b *testing.B) {
			page := 0
			for b.Loop() {
				if !s.Has(page, page+n-1) {
					b.Fatal(page)
				}
				page = (page + 37) & (1<<19 - 1)
			}
		})
	}
}

// TestTally: the third time counts, whatever lies between, and then it begins
// anew; pages that are met once have no way to add up to it.
func TestTally(t *testing.T) {
	var c known.Tally
	for i, step := range []struct {
		page uint64
		want bool
	}{
		{5, false}, {6, false}, {5, false}, {1 << 40, false}, {5, true}, {5, false}, {6, false}, {6, true}, {5, false}, {5, true},
	} {
		if got := c.Third(step.page); got != step.want {
			t.Errorf("step %d: Third(%d) = %v", i, step.page, got)
		}
	}
	for page := range uint64(1 << 20) {
		if c.Third(page<<12 + 7) {
			t.Fatalf("page %d was met once", page)
		}
	}
	// A page that is met often is found among many that are not.
	again := 0
	for i := range uint64(30_000) {
		c.Third(i + 1<<30)
		if i%1000 == 0 && c.Third(3) {
			again++
		}
	}
	if again < 8 {
		t.Errorf("of 30 times the page was met for the third time %d times", again)
	}
}
