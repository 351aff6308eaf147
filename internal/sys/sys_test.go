package sys

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"unsafe"

	"github.com/mmapio/mmapio/internal/prove"
)

// newFile makes a file of n bytes, each telling its page.
func newFile(t *testing.T, n int) *os.File {
	t.Helper()
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(1 + i/PageSize())
	}
	name := filepath.Join(prove.TempDir(t), "file")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// owned frees a Space at the end, before the file goes that it maps.
func owned(t *testing.T) func(s *Space, err error) *Space {
	return func(s *Space, err error) *Space {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Free() }) //nolint:errcheck // the test is over
		return s
	}
}

func content(t *testing.T, f *os.File) []byte {
	t.Helper()
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// faults reports whether loading from or storing to the first byte faults.
func faults(b []byte, store bool) (faulted bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { faulted = recover() != nil }()
	if store {
		b[0] = 1
	}
	sink = b[0]
	return false
}

var sink byte

// lacks ends a test where the platform has no such thing.
func lacks(t *testing.T, err error, what string) {
	t.Helper()
	if errors.Is(err, ErrUnsupported) {
		prove.Unable(t, "%s lacks %s", runtime.GOOS, what)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// realPages skips a test of what the kernel says about single pages where the
// build believes in larger ones.
func realPages(t *testing.T) {
	t.Helper()
	if PageSize() != os.Getpagesize() {
		prove.Unable(t, "the kernel's pages are not the ones that this build believes in")
	}
}

func TestSizes(t *testing.T) {
	p, g := PageSize(), Granularity()
	if p < 4096 || p&(p-1) != 0 || g < p || g%p != 0 {
		t.Errorf("PageSize %d, Granularity %d", p, g)
	}
}

func TestMapRead(t *testing.T) {
	g := Granularity()
	f := newFile(t, 2*g+10)
	s := owned(t)(MapFile(f, int64(g), g+10, Read))
	if got, want := s.Size(), g+PageSize(); got != want {
		t.Errorf("Size = %d, want %d", got, want)
	}
	b := s.Bytes(0, g+10)
	if !bytes.Equal(b, content(t, f)[g:]) {
		t.Error("the mapping does not read as the file")
	}
	if len(b) != g+10 || cap(b) != len(b) {
		t.Errorf("len %d, cap %d, want both %d", len(b), cap(b), g+10)
	}
	if rest := s.Bytes(g+10, os.Getpagesize()-10); !bytes.Equal(rest, make([]byte, len(rest))) {
		t.Error("the rest of the last page is not zero")
	}
	if uintptr(unsafe.Pointer(&b[0])) != s.Addr() {
		t.Error("Bytes does not start at Addr")
	}
	if Faults && !faults(b, true) {
		t.Error("storing to a Read mapping does not fault")
	}
}

func TestMapOutlivesFile(t *testing.T) {
	f := newFile(t, 100)
	s := owned(t)(MapFile(f, 0, 100, Read))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if b := s.Bytes(0, 100); b[99] != 1 {
		t.Errorf("byte 99 = %d, want 1", b[99])
	}
}

func TestMapWrite(t *testing.T) {
	f := newFile(t, PageSize()+10)
	s, err := MapFile(f, 0, PageSize()+10, Write)
	lacks(t, err, "writable mappings")
	s = owned(t)(s, err)
	s.Bytes(PageSize()+5, 1)[0] = 77
	if err := s.Flush(PageSize(), 10); err != nil {
		t.Errorf("Flush: %v", err)
	}
	if err := SyncFile(f); err != nil {
		t.Errorf("SyncFile: %v", err)
	}
	got := content(t, f)
	if len(got) != PageSize()+10 || got[PageSize()+5] != 77 || got[PageSize()+4] != 2 {
		t.Errorf("file of %d bytes has %v at the end", len(got), got[PageSize():])
	}
}

func TestMapPrivate(t *testing.T) {
	f := newFile(t, PageSize())
	s := owned(t)(MapFile(f, 0, PageSize(), Private))
	b := s.Bytes(0, PageSize())
	if b[3] != 1 {
		t.Errorf("byte 3 = %d, want 1", b[3])
	}
	b[3] = 99
	if b[3] != 99 || content(t, f)[3] != 1 {
		t.Error("a store to a Private mapping is lost or reached the file")
	}
}

// A mapping of more than there is must not make the file longer.
func TestMapBeyondEnd(t *testing.T) {
	g := Granularity()
	for _, tt := range []struct {
		name   string
		length int
	}{{"empty", 0}, {"short", 10}} {
		for _, a := range []Access{Read, Write, Private} {
			f := newFile(t, tt.length)
			s, err := MapFile(f, 0, 3*g, a)
			switch {
			case CanReserve:
				owned(t)(s, err)
				if b := s.Bytes(g, 1); !faults(b, false) {
					t.Errorf("%s, access %d: no fault beyond the end", tt.name, a)
				}
			case errors.Is(err, ErrUnsupported) && a == Write:
			case !errors.Is(err, io.ErrUnexpectedEOF):
				t.Errorf("%s, access %d: error %v, want ErrUnexpectedEOF", tt.name, a, err)
			}
			if n := len(content(t, f)); n != tt.length {
				t.Errorf("%s, access %d: the file has %d bytes now", tt.name, a, n)
			}
		}
	}
}

func TestMapAnon(t *testing.T) {
	s := owned(t)(MapAnon(PageSize() + 1))
	if s.Size() != 2*PageSize() || s.Addr() == 0 || s.Addr()%uintptr(PageSize()) != 0 {
		t.Errorf("Size %d, Addr %#x", s.Size(), s.Addr())
	}
	b := s.Bytes(0, s.Size())
	if !bytes.Equal(b, make([]byte, len(b))) {
		t.Error("not zeroed")
	}
	b[0], b[len(b)-1] = 1, 2
	if b[0] != 1 || b[len(b)-1] != 2 {
		t.Error("stores are lost")
	}
}

func TestFree(t *testing.T) {
	s := owned(t)(MapFile(newFile(t, 100), 0, 100, Read))
	for range 2 {
		if err := s.Free(); err != nil {
			t.Errorf("Free: %v", err)
		}
	}
	if s.Addr() != 0 || s.Size() != 0 {
		t.Errorf("after Free: Addr %#x, Size %d", s.Addr(), s.Size())
	}
	if err := new(Space).Free(); err != nil {
		t.Errorf("Free of a zero Space: %v", err)
	}
}

func TestLock(t *testing.T) {
	p := PageSize()
	f := newFile(t, 3*p)
	for _, tt := range []struct {
		name string
		s    *Space
	}{
		{"Read", owned(t)(MapFile(f, 0, 3*p, Read))},
		{"Private", owned(t)(MapFile(f, 0, 3*p, Private))},
		{"anonymous", owned(t)(MapAnon(3 * p))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lacks(t, tt.s.Lock(p, p+1), "locks")
			if err := tt.s.Lock(p, p); err != nil {
				t.Errorf("Lock again: %v", err)
			}
			// The first page was never locked, the last two were.
			for range 2 {
				if err := tt.s.Unlock(0, 3*p); err != nil {
					t.Errorf("Unlock: %v", err)
				}
			}
			if err := tt.s.Lock(0, 3*p); err != nil {
				t.Error(err)
			}
			if err := tt.s.Free(); err != nil {
				t.Errorf("Free of a locked Space: %v", err)
			}
		})
	}
}

func TestReserve(t *testing.T) {
	p := PageSize()
	s, err := Reserve(4 * p)
	if !Faults {
		if !errors.Is(err, ErrUnsupported) {
			t.Errorf("Reserve: %v, want ErrUnsupported", err)
		}
		return
	}
	s = owned(t)(s, err)
	if !faults(s.Bytes(0, 1), false) {
		t.Error("reserved space can be read")
	}
	if !CanReserve {
		if err := s.PlaceAnon(p, 2*p); err != nil {
			t.Fatal(err)
		}
		b := s.Bytes(p, 2*p)
		if b[0], b[2*p-1] = b[0]+50, b[2*p-1]+51; b[0] != 50 || b[2*p-1] != 51 {
			t.Errorf("placed pages are not zero: %d, %d", b[0], b[2*p-1])
		}
		if !faults(s.Bytes(0, p)[p-1:], false) || !faults(s.Bytes(3*p, 1), false) {
			t.Error("PlaceAnon made more accessible than it placed")
		}
		return
	}
	f := newFile(t, 2*p)
	if err := s.Place(f, int64(p), p, p, Write); err != nil {
		t.Fatal(err)
	}
	if err := s.PlaceAnon(2*p, p); err != nil {
		t.Fatal(err)
	}
	b := s.Bytes(p, 2*p)
	if b[0] != 2 || b[p] != 0 {
		t.Errorf("placed pages start with %d and %d, want 2 and 0", b[0], b[p])
	}
	b[0], b[p] = 50, 51
	if got := content(t, f)[p]; got != 50 {
		t.Errorf("the file has %d, want 50", got)
	}
	if !faults(s.Bytes(0, 1), false) || !faults(s.Bytes(3*p, 1), false) {
		t.Error("Place made more accessible than it placed")
	}
	if err := s.Clear(p, 2*p); err != nil {
		t.Fatal(err)
	}
	if !faults(b, false) || !faults(b[p:], false) {
		t.Error("cleared pages can be read")
	}
	if got := content(t, f)[p]; got != 50 {
		t.Errorf("after Clear the file has %d, want 50", got)
	}
}

func TestPopulate(t *testing.T) {
	p := PageSize()
	f := newFile(t, 2*p)
	s := owned(t)(MapFile(f, 0, 2*p, Private))
	err := s.Populate(0, 2*p, false)
	if CanPopulate() != !errors.Is(err, ErrUnsupported) {
		t.Errorf("CanPopulate = %v, Populate: %v", CanPopulate(), err)
	}
	lacks(t, err, "a populating call")
	if err := s.Populate(0, 2*p, true); err != nil {
		t.Errorf("Populate to store: %v", err)
	}
	if content(t, f)[0] != 1 {
		t.Error("Populate changed the file")
	}
}

func TestAdvise(t *testing.T) {
	s := owned(t)(MapAnon(2 * PageSize()))
	for _, h := range []Hint{NoDump, NoFork} {
		if err := s.Advise(0, PageSize(), h); errors.Is(err, ErrUnsupported) == Advises(h) {
			t.Errorf("hint %d: Advises = %v, Advise: %v", h, Advises(h), err)
		}
	}
}
