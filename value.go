package mmapio

import (
	"cmp"
	"io/fs"
	"reflect"
	"runtime"
	"sync"
	"unsafe"

	"github.com/mmapio/mmapio/internal/fault"
)

// LoadAt returns the T at offset off. It is a copy; where T has 4 or 8 bytes
// and Options.Offset+off is a multiple of that, it is read in one atomic
// access, on every system.
//
// T is a number of fixed size, an array or struct of those, or a number type
// of sync/atomic. Pointers, bool, int, uint, uintptr, types without a byte and
// those of package sync are refused (fs.ErrInvalid). Values are in the byte
// order of the machine. Options.Offset+off must be a multiple of T's
// alignment, or the error is an [AlignError].
func LoadAt[T any](f *File, off int64) (T, error) {
	const op = "loadat"
	var v T
	n := unsafe.Sizeof(v)
	if checkType[T]() == nil && (f.src.off+off)%int64(unsafe.Alignof(v)) == 0 {
		if g := f.cur.Load(); g.has(off, int(n)) && !g.mem.gated && g.mem.loadable(off, int(n)) {
			ok := fault.Load(unsafe.Pointer(&v), unsafe.Pointer(&g.data[off]), n, g.mem.area.Lo, g.mem.area.Hi)
			runtime.KeepAlive(g)
			if ok {
				return v, nil
			}
		}
	}
	err := f.touch(op, off, typeOf[T](), false, func(g *generation) bool {
		return fault.Load(unsafe.Pointer(&v), unsafe.Pointer(&g.data[off]), n, g.mem.area.Lo, g.mem.area.Hi)
	})
	return v, err
}

// StoreAt stores v at offset off, as LoadAt loads it. ReadOnly: ErrReadOnly.
func StoreAt[T any](f *File, off int64, v T) error {
	const op = "storeat"
	n := unsafe.Sizeof(v)
	if f.src.mode != ReadOnly && checkType[T]() == nil && (f.src.off+off)%int64(unsafe.Alignof(v)) == 0 {
		if g := f.cur.Load(); g.has(off, int(n)) && !g.mem.gated && g.mem.storable(off, int(n)) {
			ok := fault.Store(unsafe.Pointer(&g.data[off]), unsafe.Pointer(&v), n, g.mem.area.Lo, g.mem.area.Hi)
			runtime.KeepAlive(g)
			if ok && f.policy != nil {
				return f.wrote(op, int64(n), 1)
			}
			if ok {
				return nil
			}
		}
	}
	err := f.touch(op, off, typeOf[T](), true, func(g *generation) bool {
		return fault.Store(unsafe.Pointer(&g.data[off]), unsafe.Pointer(&v), n, g.mem.area.Lo, g.mem.area.Hi)
	})
	if err == nil {
		err = f.also(nil, op, int64(n), 1)
	}
	return err
}

// touch is the careful way of LoadAt and StoreAt.
func (f *File) touch(op string, off int64, t valueType, store bool, access func(*generation) bool) error {
	for try := 0; ; try++ {
		g, err := f.now(op, try)
		if err == nil && store {
			err = f.writable(op)
		}
		if err == nil {
			err = f.checkValue(op, g, off, 1, t)
		}
		if err != nil {
			return err
		}
		if g.mem.gated {
			pass, ok := g.mem.copiers.Enter()
			if !ok {
				continue
			}
			if f.cur.Load() != g {
				pass.Leave()
				continue
			}
			bad := f.ready(g, off, int(t.size), toCopy(store))
			if bad != nil || !access(g) {
				err = f.badValue(op, g, off, t.size, store, bad)
			}
			pass.Leave()
			runtime.KeepAlive(g)
			return err
		}
		bad := f.ready(g, off, int(t.size), toCopy(store))
		ok := bad == nil && access(g)
		runtime.KeepAlive(g)
		if ok {
			return nil
		}
		// The memory may have been taken away: look again, once all is quiet.
		if now, err := f.current(op); err != nil || (now == g && try > 0) {
			if err == nil {
				err = f.badValue(op, g, off, t.size, store, bad)
			}
			runtime.KeepAlive(g)
			return err
		}
	}
}

// badValue makes the error for a value that cannot be accessed. bad is what the
// system call said that was to bring it in.
func (f *File) badValue(op string, g *generation, off, n int64, store bool, bad error) error {
	for end := off + n; bad != nil && off < end; {
		step := g.mem.pageStep(off, end)
		if err := f.ready(g, off, step, toCopy(store)); err != nil || off+int64(step) == end {
			return g.mem.faultOf(op, off, cmp.Or(err, bad), store)
		}
		off += int64(step)
	}
	return g.mem.faultIn(op, off, n, store)
}

// A Value is a T in a File's memory that stays mapped until Release, whatever
// Close and Resize do. It is what atomic counters between processes are made
// of: ValueAt[atomic.Uint64]. As for leaks, it is like a [Region].
type Value[T any] struct {
	hold hold
}

// ValueAt holds the T at offset off, in every mode. What T may be, and how off
// must be aligned, is as for [LoadAt]. It is brought into memory first, as by
// [File.Region]. To touch what cannot be had, or to store
// in a ReadOnly File, crashes unless it is done under [Guard].
func ValueAt[T any](f *File, off int64) (*Value[T], error) {
	v := new(Value[T])
	if err := takeValues[T](&v.hold, f, "valueat", off, 1, v); err != nil {
		return nil, err
	}
	return v, nil
}

// Ptr returns where the value is, or nil after Release. The pointer must not be
// used after Release.
func (v *Value[T]) Ptr() *T {
	if h := v.hold.held.Load(); h != nil {
		return (*T)(unsafe.Pointer(&h.data[0]))
	}
	return nil
}

// Release lets go of the memory. It may be called more than once, and from any
// goroutine.
func (v *Value[T]) Release() { v.hold.release() }

// Values is like [Value] for several Ts in a row, a slice in a File's memory.
type Values[T any] struct {
	hold hold
	n    int
}

// ValuesAt holds n Ts from offset off on.
func ValuesAt[T any](f *File, off int64, n int) (*Values[T], error) {
	v := &Values[T]{n: n}
	if err := takeValues[T](&v.hold, f, "valuesat", off, n, v); err != nil {
		return nil, err
	}
	return v, nil
}

// Slice returns the values, or nil after Release. It must not be used after
// Release.
func (v *Values[T]) Slice() []T {
	h := v.hold.held.Load()
	switch {
	case h == nil:
		return nil
	case v.n == 0:
		return []T{}
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&h.data[0])), v.n)
}

// Release lets go of the memory. It may be called more than once, and from any
// goroutine.
func (v *Values[T]) Release() { v.hold.release() }

func takeValues[T any](h *hold, f *File, op string, off int64, n int, owner any) error {
	t := typeOf[T]()
	g, err := f.now(op, 0)
	if err == nil {
		err = f.checkValue(op, g, off, n, t)
	}
	if err != nil {
		return err
	}
	return h.take(f, op, off, int64(n)*t.size, owner)
}

// A valueType is what must be known of a T.
type valueType struct {
	size, align int64
	err         error
}

func typeOf[T any]() valueType {
	var v T
	return valueType{int64(unsafe.Sizeof(v)), int64(unsafe.Alignof(v)), checkType[T]()}
}

// checkValue checks type, alignment and bounds, in this order.
func (f *File) checkValue(op string, g *generation, off int64, n int, t valueType) error {
	if t.err != nil {
		return f.fail(op, t.err)
	}
	if (f.src.off%t.align+off%t.align)%t.align != 0 {
		e := &AlignError{Op: op, Path: f.src.name, Off: off, Align: int(t.align)}
		if f.anonymous() {
			e.lead = f.src.off
		}
		return e
	}
	if n < 0 || int64(n) > maxInt64/t.size {
		return &RangeError{Op: op, Path: f.src.name, Off: off, Len: int64(n), Size: int64(len(g.data))}
	}
	return f.within(op, g, off, int64(n)*t.size)
}

// typeErrors remembers the answers of checkKind: reflect.Type to error or nil.
var typeErrors sync.Map

func checkType[T any]() error {
	t := reflect.TypeFor[T]()
	if err, ok := typeErrors.Load(t); ok {
		if err == nil {
			return nil
		}
		return err.(error)
	}
	var err error
	if why := refusal(t); why != "" {
		err = &sentinel{"type " + t.String() + " cannot lie in mapped memory: " + why, fs.ErrInvalid}
	} else if t.Size() == 0 {
		err = &sentinel{"type " + t.String() + " has no bytes", fs.ErrInvalid}
	}
	typeErrors.Store(t, err)
	return err
}

// refusal says what in a type does not mean the same in every process, or may
// not hold every pattern of bits.
func refusal(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128:
		return ""
	case reflect.Array:
		return refusal(t.Elem())
	case reflect.Struct:
		if p := t.PkgPath(); p == "sync" || p == "internal/sync" {
			return t.String() + " works inside of one process only"
		}
		for i := range t.NumField() {
			if why := refusal(t.Field(i).Type); why != "" {
				return why
			}
		}
		return ""
	case reflect.Bool:
		return "a bool may hold no other bits than 0 and 1"
	case reflect.Int, reflect.Uint, reflect.Uintptr:
		return t.Kind().String() + " has no fixed size"
	}
	if t.Kind() == reflect.Pointer {
		return "it has a pointer"
	}
	return "it has a " + t.Kind().String()
}
