//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package fault_test

import (
	"errors"
	"runtime"
	"runtime/debug"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio/internal/fault"
	"github.com/mmapio/mmapio/internal/prove"
)

var pageSize = prove.PageSize()

// pages maps memory of which the pages in bad cannot be touched, and those in
// readOnly not stored to.
func pages(t *testing.T, n int, bad, readOnly []int) (b []byte, lo, hi uintptr) {
	t.Helper()
	prove.Need(t, prove.FaultAddress)
	b, err := unix.Mmap(-1, 0, n*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(b); err != nil {
			t.Error(err)
		}
	})
	for i := range b {
		b[i] = byte(i/pageSize + i)
	}
	for prot, list := range map[int][]int{unix.PROT_NONE: bad, unix.PROT_READ: readOnly} {
		for _, i := range list {
			if err := unix.Mprotect(b[i*pageSize:(i+1)*pageSize], prot); err != nil {
				t.Fatal(err)
			}
		}
	}
	lo = uintptr(unsafe.Pointer(&b[0]))
	return b, lo, lo + uintptr(len(b))
}

// known is what the processor tells of the address of a fault.
func known(addr uintptr) uintptr {
	if runtime.GOARCH == "s390x" {
		return addr &^ uintptr(pageSize-1) // only the page
	}
	return addr
}

func panicOf(fn func()) (r any) {
	defer func() { r = recover() }()
	fn()
	return nil
}

// keepsFlag runs fn with the runtime's flag set and not, and checks that it
// comes back as it was.
func keepsFlag(t *testing.T, what string, fn func()) {
	t.Helper()
	for _, set := range []bool{false, true} {
		old := debug.SetPanicOnFault(set)
		fn()
		if got := debug.SetPanicOnFault(old); got != set {
			t.Errorf("%s: the flag is %v, was %v", what, got, set)
		}
	}
}

func TestCopy(t *testing.T) {
	b, lo, hi := pages(t, 4, []int{2}, []int{3})
	heap := make([]byte, 3*pageSize)
	for _, c := range []struct {
		name     string
		dst, src []byte
		ok       bool
	}{
		{"nothing", nil, b[2*pageSize : 2*pageSize], true},
		{"good pages", heap[:2*pageSize], b[:2*pageSize], true},
		{"a bad tail", heap, b[:3*pageSize], false},
		{"a bad byte", heap[:1], b[2*pageSize:][:1], false},
		{"a read-only source", heap[:pageSize], b[3*pageSize:], true},
		{"a read-only target", b[3*pageSize:], heap[:pageSize], false},
		{"a bad target", b[pageSize : 3*pageSize], heap[:2*pageSize], false},
	} {
		keepsFlag(t, c.name, func() {
			if ok := fault.Copy(c.dst, c.src, lo, hi); ok != c.ok {
				t.Errorf("%s: %v", c.name, ok)
			}
		})
		if c.ok && string(c.dst) != string(c.src) {
			t.Errorf("%s: other bytes", c.name)
		}
	}
	// A fault elsewhere is none of ours, be it beside by a byte.
	at := known(lo + 2*uintptr(pageSize) + 7)
	for _, area := range [][2]uintptr{{0, 0}, {lo, at}, {at + 1, hi}} {
		keepsFlag(t, "elsewhere", func() {
			r := panicOf(func() { fault.Copy(heap[:1], b[2*pageSize+7:][:1], area[0], area[1]) })
			if addr, ok := fault.Addr(r); !ok || addr != at {
				t.Errorf("outside of %x: panicked with %v, want a fault at %x", area, r, at)
			}
		})
	}
	if !panicsNot(func() bool { return fault.Copy(heap[:1], b[2*pageSize+7:][:1], at, at+1) }) {
		t.Error("a fault in an area of one byte was passed on")
	}
}

// panicsNot says whether fn reported a fault, and did so without a panic.
func panicsNot(fn func() bool) bool {
	ok := true
	return panicOf(func() { ok = fn() }) == nil && !ok
}

// TestTouch: no page is left out, none is changed, and the first bad one is found.
func TestTouch(t *testing.T) {
	b, _, _ := pages(t, 6, []int{4}, nil)
	was := string(b[:4*pageSize])
	for _, c := range []struct {
		from, n int
		store   bool
		bad     int
	}{
		{0, 0, false, -1},
		{0, 1, true, -1},
		{0, 4 * pageSize, false, -1},
		{0, 4*pageSize + 1, false, 4 * pageSize},
		{3, 3 * pageSize, false, pageSize},
		{0, 4 * pageSize, true, -1},
		{2, 4 * pageSize, true, 2 * pageSize},
		{5, 1, true, -1},
	} {
		keepsFlag(t, "Touch", func() {
			part := b[c.from*pageSize:][:c.n]
			if bad := fault.Touch(part, pageSize, c.store); bad != c.bad {
				t.Errorf("%d bytes from page %d, store %v: %d, want %d", c.n, c.from, c.store, bad, c.bad)
			}
		})
	}
	if string(b[:4*pageSize]) != was {
		t.Error("other bytes")
	}
}

// TestValues loads and stores every length, at and beside its own multiple.
func TestValues(t *testing.T) {
	b, lo, hi := pages(t, 3, []int{2}, nil)
	for n := 1; n <= 17; n++ {
		for at := range 9 {
			src := append([]byte(nil), b[at:at+n]...)
			dst := make([]byte, n)
			if !fault.Load(unsafe.Pointer(&dst[0]), unsafe.Pointer(&b[at]), uintptr(n), lo, hi) || string(dst) != string(src) {
				t.Errorf("Load of %d bytes at %d: %x, want %x", n, at, dst, src)
			}
			for i := range dst {
				dst[i] = ^dst[i]
			}
			around := [2]byte{b[pageSize+at], b[pageSize+at+n+1]}
			if !fault.Store(unsafe.Pointer(&b[pageSize+at+1]), unsafe.Pointer(&dst[0]), uintptr(n), lo, hi) || string(b[pageSize+at+1:][:n]) != string(dst) {
				t.Errorf("Store of %d bytes at %d: %x, want %x", n, at+1, b[pageSize+at+1:][:n], dst)
			}
			if around != [2]byte{b[pageSize+at], b[pageSize+at+n+1]} {
				t.Errorf("Store of %d bytes at %d changed a neighbour", n, at+1)
			}
		}
		edge := 2*pageSize - n + 1 // the last byte is bad
		v := make([]byte, n)
		keepsFlag(t, "values", func() {
			for _, at := range []int{2 * pageSize, 2*pageSize + 8, edge} {
				p := unsafe.Pointer(&b[at])
				if !panicsNot(func() bool { return fault.Load(unsafe.Pointer(&v[0]), p, uintptr(n), lo, hi) }) {
					t.Errorf("Load of %d bytes at %d is fine", n, at)
				}
				if !panicsNot(func() bool { return fault.Store(p, unsafe.Pointer(&v[0]), uintptr(n), lo, hi) }) {
					t.Errorf("Store of %d bytes at %d is fine", n, at)
				}
				if r := panicOf(func() { fault.Load(unsafe.Pointer(&v[0]), p, uintptr(n), 0, 1) }); r == nil {
					t.Errorf("Load of %d bytes at %d took a fault elsewhere", n, at)
				}
				if r := panicOf(func() { fault.Store(p, unsafe.Pointer(&v[0]), uintptr(n), 0, 1) }); r == nil {
					t.Errorf("Store of %d bytes at %d took a fault elsewhere", n, at)
				}
			}
		})
	}
}

// TestReadOnlyStore stores where loading works.
func TestReadOnlyStore(t *testing.T) {
	b, lo, hi := pages(t, 1, nil, []int{0})
	v := [16]byte{}
	for _, n := range []uintptr{1, 4, 8, 16} {
		if !panicsNot(func() bool { return fault.Store(unsafe.Pointer(&b[0]), unsafe.Pointer(&v), n, lo, hi) }) {
			t.Errorf("Store of %d bytes is fine", n)
		}
	}
	if !fault.Loads(&b[0]) {
		t.Error("it cannot be loaded")
	}
}

func TestLoads(t *testing.T) {
	b, _, _ := pages(t, 3, []int{1}, []int{2})
	for i, want := range []bool{true, false, true} {
		keepsFlag(t, "Loads", func() {
			if got := fault.Loads(&b[i*pageSize]); got != want {
				t.Errorf("page %d: %v", i, got)
			}
			if got := fault.Loads(&b[(i+1)*pageSize-1]); got != want {
				t.Errorf("the end of page %d: %v", i, got)
			}
		})
	}
}

// fake looks like a fault, and is none.
type fake struct{}

func (fake) Error() string { return "fake" }
func (fake) Addr() uintptr { return 1 }

func TestAddr(t *testing.T) {
	b, lo, _ := pages(t, 2, []int{1}, nil)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	r := panicOf(func() { b[pageSize+5] = 1 })
	if addr, ok := fault.Addr(r); !ok || addr != known(lo+uintptr(pageSize)+5) {
		t.Errorf("%v: %x, %v", r, addr, ok)
	}
	var nowhere *int
	var empty []int
	for _, fn := range []func(){
		func() {}, func() { panic("x") }, func() { panic(errors.New("x")) }, func() { panic(fake{}) },
		func() { *nowhere = 1 }, func() { empty[len(b)] = 1 },
	} {
		r := panicOf(fn)
		if addr, ok := fault.Addr(r); ok {
			t.Errorf("%v (%T) is a fault at %x", r, r, addr)
		}
	}
	if _, ok := r.(runtime.Error); !ok {
		t.Errorf("%T", r)
	}
}

func TestFind(t *testing.T) {
	a, b := &fault.Area{Lo: 1000, Hi: 2000, Owner: "a"}, &fault.Area{Lo: 2000, Hi: 3000, Owner: "b"}
	is := func(addr uintptr, want *fault.Area) {
		t.Helper()
		if got := fault.Find(addr); got != want {
			t.Errorf("at %d: %+v", addr, got)
		}
	}
	is(1500, nil)
	fault.Add(a)
	fault.Add(b)
	is(999, nil)
	is(1000, a)
	is(1999, a)
	is(2000, b)
	is(2999, b)
	is(3000, nil)
	fault.Remove(a, nil)
	is(1000, nil)
	is(2000, b)
	// Who is guarded finds what is removed meanwhile, until others have the place.
	outer, inner := fault.Guarded(), fault.Guarded()
	late := &fault.Area{Lo: 2000, Hi: 3000, Owner: "late"}
	fault.Remove(b, func() *fault.Area { return late })
	is(2000, late)
	fault.Add(b)
	is(2000, b)
	fault.Unguarded(inner)
	fault.Remove(b, func() *fault.Area { return late })
	fault.Remove(b, func() *fault.Area { return b }) // which it is no longer
	is(2000, late)
	for range 100 {
		fault.Add(a)
		fault.Remove(a, nil)
	}
	is(2000, late)
	for range 100 {
		fault.Add(a)
		fault.Remove(a, func() *fault.Area { return &fault.Area{Lo: 5000, Hi: 6000} })
	}
	is(2000, nil)
	fault.Add(b)
	fault.Remove(b, func() *fault.Area { return late })
	is(2000, late)
	fault.Unguarded(outer)
	is(2000, nil)
	fault.Remove(b, nil)
	is(2000, nil)
}

func TestAllocs(t *testing.T) {
	b, lo, hi := pages(t, 1, nil, nil)
	heap, v := make([]byte, 64), uint64(0)
	n := testing.AllocsPerRun(100, func() {
		fault.Copy(heap, b[:64], lo, hi)
		fault.Load(unsafe.Pointer(&v), unsafe.Pointer(&b[8]), 8, lo, hi)
		fault.Store(unsafe.Pointer(&b[8]), unsafe.Pointer(&v), 8, lo, hi)
		fault.Loads(&b[0])
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
