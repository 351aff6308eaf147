// Package fault turns faults on mapped memory into values.
//
// A load or a store on a page that cannot be had (the file was cut, the disk
// failed or is full, the memory is read-only) raises a signal that ends a Go
// program. With [debug.SetPanicOnFault] it becomes a panic of the goroutine,
// whose value says at which address. This package sets that flag, always puts
// it back, and takes only the panics that are meant.
package fault

import (
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/mmapio/mmapio/internal/gate"
)

// A Fault is what the runtime panics with for a fault whose address it knows.
type Fault interface {
	runtime.Error
	Addr() uintptr
}

// Addr returns the address of the fault that a recovered value stands for.
func Addr(recovered any) (uintptr, bool) {
	if e, ok := recovered.(Fault); ok {
		return e.Addr(), true
	}
	return 0, false
}

// Copy copies src to dst, which are equally long, and reports whether it did so
// whole. A fault in [lo, hi) stops it, any other one panics.
func Copy(dst, src []byte, lo, hi uintptr) (ok bool) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if !ok {
			recoverIn(recover(), lo, hi)
		}
	}()
	copy(dst, src)
	return true
}

// recoverIn passes every panic on but the fault that is asked for.
func recoverIn(r any, lo, hi uintptr) {
	if addr, ok := Addr(r); r != nil && (!ok || addr < lo || addr >= hi) {
		panic(r)
	}
}

// Loads reports whether the byte can be loaded.
func Loads(b *byte) (ok bool) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if !ok {
			if _, is := Addr(recover()); !is {
				panic("fault: not a fault")
			}
		}
	}()
	load(b)
	return true
}

// Start returns the address of the first byte of b.
func Start(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// Bad returns the address of the first byte of b that cannot be loaded. It
// tries one byte a page.
func Bad(b []byte, pageSize int) (addr uintptr, bad bool) {
	for i := 0; i < len(b); i += pageSize - int(Start(b[i:])%uintptr(pageSize)) {
		if !Loads(&b[i]) {
			return Start(b[i:]), true
		}
	}
	return 0, false
}

// Touch loads from each page of b, which starts with one, and with store adds
// nothing to each, in one step, so that it has memory of its own. It returns where
// in b the first page starts that cannot be had, or -1.
func Touch(b []byte, pageSize int, store bool) (bad int) {
	at, ok := 0, false
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if !ok {
			first := Start(b[at:])
			recoverIn(recover(), first, first+uintptr(pageSize))
			bad = at
		}
	}()
	for ; at < len(b); at += pageSize {
		load(&b[at]) // first: a build with the race detector survives no fault in the other
		if store {
			atomic.AddUint32((*uint32)(unsafe.Pointer(&b[at])), 0)
		}
	}
	ok = true
	return -1
}

// load is not inlined, so that the compiler cannot drop it.
//
//go:noinline
func load(b *byte) byte { return *b }

// An Area is memory whose faults are ours.
type Area struct {
	Lo, Hi uintptr
	Owner  any
}

// areas is searched only after a fault, so it need not be ordered.
var areas struct {
	sync.Mutex
	m    map[*Area]struct{}
	late []*Area // removed while somebody was guarded, newest last
}

// lateMost is how many areas are known longer than their memory, at most: a guard
// may last as long as the program.
const lateMost = 64

var (
	guarded gate.Gate
	anyLate atomic.Bool
)

// Guarded tells that the caller may ask [Find] for memory that is given back
// meanwhile: a fault runs the deferred calls of what is guarded before the guard
// hears of it, and they may let the memory go. Unguarded ends it.
func Guarded() gate.Pass {
	pass, _ := guarded.Enter() // it is never shut
	return pass
}

// Unguarded ends what Guarded began.
func Unguarded(pass gate.Pass) {
	pass.Leave()
	if !anyLate.Load() {
		return
	}
	areas.Lock()
	defer areas.Unlock()
	if guarded.Empty() {
		areas.late = nil
		anyLate.Store(false)
	}
}

// Add makes an area known to [Find].
func Add(a *Area) {
	areas.Lock()
	defer areas.Unlock()
	if areas.m == nil {
		areas.m = make(map[*Area]struct{})
	}
	areas.m[a] = struct{}{}
}

// AnyGuarded reports whether anybody is guarded: what is let go meanwhile may be asked
// for once more.
func AnyGuarded() bool { return !guarded.Empty() }

// Remove makes Find forget it. While anybody is guarded, Find returns what late
// makes instead, unless that is nil, or the addresses are another area's by then.
func Remove(a *Area, late func() *Area) {
	areas.Lock()
	defer areas.Unlock()
	if _, known := areas.m[a]; !known {
		return // others may have had the addresses since
	}
	delete(areas.m, a)
	if late == nil || !AnyGuarded() {
		return
	}
	if len(areas.late) == lateMost {
		areas.late = areas.late[1:]
	}
	areas.late = append(areas.late, late())
	anyLate.Store(true)
}

// Find returns the area that holds the address.
func Find(addr uintptr) *Area {
	areas.Lock()
	defer areas.Unlock()
	for a := range areas.m {
		if a.Lo <= addr && addr < a.Hi {
			return a
		}
	}
	for _, a := range slices.Backward(areas.late) {
		if a.Lo <= addr && addr < a.Hi {
			return a
		}
	}
	return nil
}
