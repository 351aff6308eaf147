package sys

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio/internal/prove"
)

// everyWayIn runs a test with each way to bring pages in that works here. As it
// changes what other tests use, it is for tests that do not run beside others.
func everyWayIn(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	needs(t, CanPopulate(), "a way to bring pages in")
	for name, way := range map[string]struct {
		populate func(s *Space, at, n int, store bool) error
		is       wayIn
	}{"advice": {(*Space).advisePopulate, byAdvice}, "touch": {(*Space).touch, byTouch}} {
		t.Run(name, func(t *testing.T) {
			works, err := bringsIn(way.populate)
			if err != nil {
				t.Fatal(err)
			}
			needs(t, works, "a kernel that has this way")
			was := in
			t.Cleanup(func() { in = was })
			in = func() wayIn { return way.is }
			test(t)
		})
	}
}

func TestPopulateBeyondEnd(t *testing.T) {
	everyWayIn(t, func(t *testing.T) {
		p := PageSize()
		f := newFile(t, 2*p)
		s := owned(t)(MapFile(f, 0, 2*p, Write))
		if err := f.Truncate(int64(p)); err != nil {
			t.Fatal(err)
		}
		for _, store := range []bool{false, true} {
			if err := s.Populate(0, p, store); err != nil {
				t.Errorf("store %v: %v inside the file", store, err)
			}
			if err := s.Populate(0, 2*p, store); !errors.Is(err, ErrUnreadable) {
				t.Errorf("store %v: %v beyond the end, want ErrUnreadable", store, err)
			}
			if err := s.Populate(p, p, store); !errors.Is(err, ErrUnreadable) {
				t.Errorf("store %v: %v for a page beyond the end, want ErrUnreadable", store, err)
			}
		}
	})
}

func TestPopulateAllocatesOnlyToStore(t *testing.T) {
	everyWayIn(t, func(t *testing.T) {
		f := newFile(t, 0)
		const n = 1 << 20
		if err := f.Truncate(n); err != nil {
			t.Fatal(err)
		}
		s := owned(t)(MapFile(f, 0, n, Write))
		if err := s.Populate(0, n, false); err != nil {
			t.Fatal(err)
		}
		if got := blocks(t, f); got >= n {
			t.Errorf("populating to load allocated %d bytes", got)
		}
		if err := s.Populate(0, n, true); err != nil {
			t.Fatal(err)
		}
		if err := SyncFile(f); err != nil { // with which delayed blocks are given
			t.Fatal(err)
		}
		if got := blocks(t, f); got < n {
			t.Errorf("populating to store allocated %d bytes", got)
		}
	})
}

// More pages than one call takes; and what is there stays as it is.
func TestPopulateMany(t *testing.T) {
	realPages(t)
	prove.Need(t, prove.Pagemap)
	everyWayIn(t, func(t *testing.T) {
		n := (2*touchStep + 3) * PageSize()
		f := newFile(t, n)
		want := content(t, f)
		for _, a := range []Access{Read, Write, Private} {
			s := owned(t)(MapFile(f, 0, n, a))
			if at, err := s.Absent(0, n); at != 0 || err != nil {
				t.Errorf("access %d: Absent = %d, %v before", a, at, err)
			}
			if err := s.Populate(0, n, false); err != nil {
				t.Errorf("access %d: %v", a, err)
			}
			if at, err := s.Absent(0, n); at != -1 || err != nil {
				t.Errorf("access %d: Absent = %d, %v", a, at, err)
			}
			if lo, _, err := s.Private(0, n); err == nil && lo >= 0 {
				t.Errorf("access %d: the page at %d was copied to be read", a, lo)
			}
			if a == Read {
				continue
			}
			if err := s.Populate(0, n, true); err != nil {
				t.Errorf("access %d, to store: %v", a, err)
			}
			if lo, hi, err := s.Private(0, n); err == nil && a == Private && (lo != 0 || hi != n) {
				t.Errorf("of %d bytes made ready to be stored to, [%d, %d) are copies", n, lo, hi)
			}
			if !bytes.Equal(s.Bytes(0, n), want) {
				t.Errorf("access %d: populating changed what is there", a)
			}
		}
		s := owned(t)(MapAnon(n))
		if err := s.Populate(0, n, true); err != nil {
			t.Fatal(err)
		}
		if at, err := s.Absent(0, n); at != -1 || err != nil {
			t.Errorf("memory: Absent = %d, %v", at, err)
		}
	})
}

// A page made ready to be stored to while others store loses nothing.
func TestPopulateBesideStores(t *testing.T) {
	everyWayIn(t, func(t *testing.T) {
		s := owned(t)(MapAnon(PageSize()))
		word := (*uint32)(pointer(s.Addr()))
		end := make(chan error)
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					end <- nil
					return
				default:
				}
				if err := s.Populate(0, PageSize(), true); err != nil {
					end <- err
					return
				}
			}
		}()
		lost := 0
		for i, began := uint32(0), time.Now(); time.Since(began) < 50*time.Millisecond; {
			if *word != i {
				lost++
			}
			i++
			*word = i // a plain store: nobody else may write there
		}
		close(stop)
		if err := <-end; err != nil || lost > 0 {
			t.Errorf("%d stores were lost; %v", lost, err)
		}
	})
}

// Memory that may not be loaded from, or not be stored to.
func TestPopulateForbidden(t *testing.T) {
	everyWayIn(t, func(t *testing.T) {
		p := PageSize()
		s := owned(t)(MapAnon(3 * p))
		if err := s.Clear(p, p); err != nil {
			t.Fatal(err)
		}
		for _, store := range []bool{false, true} {
			if err := s.Populate(0, 3*p, store); err == nil {
				t.Errorf("store %v: no error for what may not be touched", store)
			}
		}
		if err := unix.Mprotect(s.Bytes(0, p), unix.PROT_READ); err != nil {
			t.Fatal(err)
		}
		if err := s.Populate(0, p, false); err != nil {
			t.Errorf("to load: %v", err)
		}
		if err := s.Populate(0, p, true); err == nil {
			t.Error("memory that is only read can be stored to")
		}
	})
}
