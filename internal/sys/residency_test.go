package sys

import (
	"errors"
	"github.com/mmapio/mmapio/internal/prove"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
)

// Whatever pages there are, bisect finds them, all and in order, and does not
// ask about every page where they lie together.
func TestBisect(t *testing.T) {
	for range 2000 {
		n := 1 + rand.IntN(200)
		first := rand.Int64N(1000)
		pages := make([]bool, n)
		for range rand.IntN(5) {
			lo := rand.IntN(n)
			for i := lo; i < min(n, lo+rand.IntN(40)); i++ {
				pages[i] = true
			}
		}
		asked := 0
		count := func(lo, hi int64) (have int64, err error) {
			asked++
			for _, yes := range pages[lo-first : hi-first] {
				if yes {
					have++
				}
			}
			return have, nil
		}
		have, _ := count(first, first+int64(n))
		found := make([]bool, n)
		at := first
		err := bisect(first, first+int64(n), have, count, func(lo, hi int64) {
			if lo < at || hi <= lo {
				t.Fatalf("run [%d, %d) after %d", lo, hi, at)
			}
			for at = lo; at < hi; at++ {
				found[at-first] = true
			}
		})
		if err != nil || !slices.Equal(found, pages) {
			t.Fatalf("%v\n%v\n%v", err, found, pages)
		}
		if asked > 200 {
			t.Fatalf("asked %d times about %v", asked, pages)
		}
	}
	failed := errors.New("failed")
	err := bisect(0, 4, 2, func(lo, hi int64) (int64, error) { return 0, failed }, func(lo, hi int64) {})
	if err != failed {
		t.Errorf("got %v", err)
	}
}

// What is named was found where it is, whatever comes and goes meanwhile.
func TestBisectMoving(t *testing.T) {
	for range 2000 {
		n := 1 + rand.Int64N(64)
		pages := make([]bool, n)
		never, always := rand.Int64N(n), rand.Int64N(n)
		asked := map[[2]int64]int64{}
		count := func(lo, hi int64) (have int64, err error) {
			for i := range pages {
				pages[i] = rand.IntN(2) == 0
			}
			pages[always], pages[never] = true, false
			for _, yes := range pages[lo:hi] {
				if yes {
					have++
				}
			}
			asked[[2]int64{lo, hi}] = have
			return have, nil
		}
		have, _ := count(0, n)
		err := bisect(0, n, have, count, func(lo, hi int64) {
			if lo <= never && never < hi {
				t.Fatalf("[%d, %d) has page %d, which is never there", lo, hi, never)
			}
			if asked[[2]int64{lo, hi}] != hi-lo {
				t.Fatalf("[%d, %d) was not found to be there", lo, hi)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// All go after the first look, or come.
	for _, c := range []struct{ n, have, then, want int64 }{{2, 1, 0, 0}, {4, 1, 1, 4}} {
		found := int64(0)
		count := func(lo, hi int64) (int64, error) { return c.then * (hi - lo), nil }
		err := bisect(0, c.n, c.have, count, func(lo, hi int64) { found += hi - lo })
		if err != nil || found != c.want {
			t.Errorf("%+v: %d, %v", c, found, err)
		}
	}
	failed := errors.New("failed")
	calls := 0
	err := bisect(0, 2, 1, func(lo, hi int64) (int64, error) {
		if calls++; calls > 1 {
			return 0, failed
		}
		return 0, nil
	}, func(lo, hi int64) {})
	if err != failed {
		t.Errorf("got %v", err)
	}
}

// A file just written is in RAM, whatever the system asks to know it.
func TestResident(t *testing.T) {
	realPages(t)
	ps := int64(PageSize())
	f := newFile(t, 4*int(ps))
	got, err := Resident(f, 0, 4*ps)
	lacks(t, err, "a call that tells what is in RAM")
	if got.Resident == Unknown {
		prove.Unable(t, "%s does not tell", runtime.GOOS)
	}
	if got.Resident != 4 {
		t.Errorf("got %+v of 4 pages", got)
	}
	if got, err := Resident(f, ps+1, 1); err != nil || got.Resident != 1 {
		t.Errorf("one byte: %+v, %v", got, err)
	}
	if got, err := Resident(f, ps, 0); err != nil || got != (Counts{}) {
		t.Errorf("nothing: %+v, %v", got, err)
	}
	runs := func(off, n int64) (all []int64) {
		known, err := ResidentRuns(f, off, n, func(lo, hi int64) {
			for ; lo < hi; lo += ps {
				all = append(all, lo/ps)
			}
		})
		if !known || err != nil {
			t.Errorf("known: %v, %v", known, err)
		}
		return all
	}
	if got := runs(ps-1, ps+1); !slices.Equal(got, []int64{0, 1}) {
		t.Errorf("pages %v", got)
	}
	if got := runs(0, 0); got != nil {
		t.Errorf("pages %v of nothing", got)
	}
}

func TestIncore(t *testing.T) {
	realPages(t)
	ps := PageSize()
	s := owned(t)(MapAnon(4 * ps))
	s.Bytes(ps, 2*ps)[0] = 1
	s.Bytes(2*ps, ps)[0] = 1
	var found []int
	collect := func(lo, hi int) {
		for ; lo < hi; lo += ps {
			found = append(found, lo/ps)
		}
	}
	err := s.Incore(0, 4*ps, collect)
	lacks(t, err, "mincore(2)")
	if !slices.Equal(found, []int{1, 2}) {
		t.Errorf("mincore: pages %v", found)
	}
	for _, c := range [][3]int{{0, 4, 2}, {0, 1, 0}, {2, 2, 1}} {
		if prove.Missing(prove.Pagemap) != "" {
			break // as under an emulator, which passes it on in another order of bytes
		}
		if got, err := s.CountPresent(c[0]*ps, c[1]*ps); err != nil || got != c[2]*ps {
			t.Errorf("of %d pages from %d: %d bytes, %v, want %d", c[1], c[0], got, err, c[2]*ps)
		}
	}
	found = nil
	err = s.Present(0, 4*ps, collect)
	lacks(t, err, "a call that tells what is mapped in")
	if !slices.Equal(found, []int{1, 2}) {
		t.Errorf("scan: pages %v", found)
	}
	for _, c := range [][3]int{{0, 4, 1}, {1, 3, 1}, {2, 2, 2}, {3, 1, -1}, {0, 1, -1}} {
		want := c[2]
		if want >= 0 {
			want *= ps
		}
		if got, err := s.FirstPresent(c[0]*ps, c[1]*ps); err != nil || got != want {
			t.Errorf("first of %d from page %d: %d, %v, want %d", c[1], c[0], got, err, want)
		}
	}
}

// FreeBSD may be set to tell by mincore(2) what is mapped in, and not what is in
// RAM: then it is not asked, about a file or about memory.
func TestIncoreOfMapped(t *testing.T) {
	was := tellsIncore
	t.Cleanup(func() { tellsIncore = was })
	tellsIncore = func() bool { return false }
	f := newFile(t, PageSize())
	for name, s := range map[string]*Space{
		"file": owned(t)(MapFile(f, 0, PageSize(), Read)), "memory": owned(t)(MapAnon(PageSize())),
	} {
		if err := s.Incore(0, PageSize(), func(int, int) { t.Error(name, "has pages") }); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if tells, err := incoreTells(f); tells || !errors.Is(err, ErrUnsupported) {
		t.Errorf("incoreTells: %v, %v", tells, err)
	}
}
