package mmapio_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"github.com/mmapio/mmapio"
)

// panicOf is what fn panics with.
func panicOf(fn func()) (r any) {
	defer func() { r = recover() }()
	fn()
	return nil
}

// sum touches every byte. Inlined it would be dropped where nobody wants the
// result.
//
//go:noinline
func sum(b []byte) (n int) {
	for _, c := range b {
		n += int(c)
	}
	return n
}

// raceBuild says whether the race detector is built in.
var raceBuild = sync.OnceValue(func() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
})

// wantFault checks the error of a fault at a page of the file.
func wantFault(t testing.TB, err error, op string, fileOff, offset int64, is error) {
	t.Helper()
	fe, ok := err.(*mmapio.FaultError) //nolint:errorlint // it must be the outermost
	switch {
	case !ok:
		t.Errorf("%s: %v is a %T, not a *FaultError", op, err, err)
	case fe.Op != op || fe.FileOff != fileOff || fe.Off != fileOff-offset || !errors.Is(err, is):
		t.Errorf("%+v, want %s at %d (%d in the file): %v", *fe, op, fileOff-offset, fileOff, is)
	}
}

// guarded are the calls that run the caller's code, with some bytes of f.
var guarded = map[string]func(f *mmapio.File, fn func(b []byte) error) error{
	"View":         func(f *mmapio.File, fn func([]byte) error) error { return f.View(0, f.Size(), fn) },
	"Update":       func(f *mmapio.File, fn func([]byte) error) error { return f.Update(0, f.Size(), fn) },
	"UpdateChunks": chunkwise(func(f *mmapio.File, fn func(mmapio.Chunk) error) error { return f.UpdateChunks(0, f.Size(), 1<<20, fn) }),
	"Guard": func(f *mmapio.File, fn func([]byte) error) error {
		r, err := f.Region(0, f.Size())
		if err != nil {
			return err
		}
		defer r.Release()
		return mmapio.Guard(func() error { return fn(r.Bytes()) })
	},
	"Chunks": func(f *mmapio.File, fn func([]byte) error) error {
		for c, err := range f.Chunks(0, f.Size(), 1<<20) {
			if err != nil {
				return err
			}
			return fn(c.Data)
		}
		return nil
	},
	"Section.View": func(f *mmapio.File, fn func([]byte) error) error {
		s, err := f.Section(0, f.Size())
		if err != nil {
			return err
		}
		return s.View(0, s.Size(), fn)
	},
	"Section.Update": func(f *mmapio.File, fn func([]byte) error) error {
		s, err := f.Section(0, f.Size())
		if err != nil {
			return err
		}
		return s.Update(0, s.Size(), fn)
	},
}

func chunkwise(call func(*mmapio.File, func(mmapio.Chunk) error) error) func(*mmapio.File, func([]byte) error) error {
	return func(f *mmapio.File, fn func([]byte) error) error {
		return call(f, func(c mmapio.Chunk) error { return fn(c.Data) })
	}
}

// fakeFault is an error that has an address, and is none of the runtime's.
type fakeFault struct{ addr uintptr }

func (fakeFault) Error() string   { return "fake" }
func (f fakeFault) Addr() uintptr { return f.addr }

// TestPassesOn has everything that is not a fault on mapped memory pass through
// the guarded calls: errors and panics come out as the very value that went in,
// the runtime's flag is what it was, and nobody is left inside.
func TestPassesOn(t *testing.T) {
	needFaults(t)
	var (
		wanted  = errors.New("mine")
		value   = &struct{ n int }{1}
		nowhere *int
		empty   []int
		one     = 1
	)
	isError := func(text string) func(r any) bool {
		return func(r any) bool {
			e, ok := r.(runtime.Error)
			return ok && e.Error() == text
		}
	}
	panics := map[string]struct {
		do   func(b []byte)
		want func(r any) bool
	}{
		"value": {func([]byte) { panic(value) }, func(r any) bool { return r == any(value) }},
		"error": {func([]byte) { panic(wanted) }, func(r any) bool { return r == any(wanted) }},
		"nil":   {func([]byte) { panic(nil) }, func(r any) bool { _, ok := r.(*runtime.PanicNilError); return ok }}, //nolint:govet // meant
		"nil pointer": {
			func([]byte) { *nowhere = 1 },
			isError("runtime error: invalid memory address or nil pointer dereference"),
		},
		"index":  {func([]byte) { empty[one] = 1 }, isError("runtime error: index out of range [1] with length 0")},
		"divide": {func([]byte) { one /= len(empty) }, isError("runtime error: integer divide by zero")},
		// The address is ours, but no fault was there.
		"fake": {
			func(b []byte) { panic(fakeFault{uintptr(unsafe.Pointer(&b[0]))}) },
			func(r any) bool { _, ok := r.(fakeFault); return ok },
		},
	}
	for _, set := range []bool{false, true} {
		for name, call := range guarded {
			t.Run(fmt.Sprintf("%s/%v", name, set), func(t *testing.T) {
				path, _ := patternFile(t, 2*pageSize)
				f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
				defer debug.SetPanicOnFault(debug.SetPanicOnFault(set))
				flag := func(after string) {
					t.Helper()
					if got := debug.SetPanicOnFault(set); got != set {
						t.Errorf("after %s the flag is %v, was %v", after, got, set)
					}
				}
				if err := call(f, func([]byte) error { return nil }); err != nil {
					t.Error(err)
				}
				flag("success")
				if err := call(f, func([]byte) error { return wanted }); err != wanted { //nolint:errorlint // the very same
					t.Error(err)
				}
				flag("an error")
				for what, p := range panics {
					if r := panicOf(func() { _ = call(f, func(b []byte) error { p.do(b); return nil }) }); !p.want(r) {
						t.Errorf("%s: panicked with %v (%T)", what, r, r)
					}
					flag(what)
				}
				exits(t, func(inside func()) {
					_ = call(f, func([]byte) error {
						inside()
						runtime.Goexit()
						return nil
					})
				})
				// A shrink wants everybody out.
				if err := f.Resize(1); err != nil {
					t.Errorf("Resize: %v", err)
				}
				mustClose(t, f)
			})
		}
	}
}

// exits runs fn in a goroutine that is to end inside of it, by Goexit.
func exits(t *testing.T, fn func(inside func())) {
	t.Helper()
	var inside, came, flag bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { flag = debug.SetPanicOnFault(false) }()
		fn(func() { inside = true })
		came = true
	}()
	<-done
	if !inside || came || flag {
		t.Errorf("Goexit: inside %v, came back %v, left the flag at %v", inside, came, flag)
	}
}

// TestFlagAfterFault has a fault in every call that takes one, with the flag
// set before and not.
func TestFlagAfterFault(t *testing.T) {
	needFaults(t)
	path, _ := patternFile(t, 2*pageSize)
	f := mustOpen(t, path, nil)
	for _, set := range []bool{false, true} {
		for _, name := range []string{"View", "Guard", "Section.View"} {
			old := debug.SetPanicOnFault(set)
			err := guarded[name](f, func(b []byte) error { b[0] = 1; return nil })
			if got := debug.SetPanicOnFault(old); got != set {
				t.Errorf("%s: the flag is %v, was %v", name, got, set)
			}
			if !errors.Is(err, mmapio.ErrReadOnly) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestReadOnlyStore stores into memory that is read-only, with every holder.
func TestReadOnlyStore(t *testing.T) {
	needFaults(t)
	path, content := patternFile(t, 4*pageSize)
	for _, offset := range []int64{0, 8, pageSize + 8} {
		f := mustOpen(t, path, &mmapio.Options{Offset: offset})
		at := 2*pageSize + 8
		// The first mapped byte of the page.
		first := (offset+at)/pageSize*pageSize - offset
		check := func(op string, err error) {
			t.Helper()
			wantFault(t, err, op, offset+first, offset, mmapio.ErrReadOnly)
			if !errors.Is(err, fs.ErrPermission) || errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v is the wrong kind of error", err)
			}
		}
		if offset+at >= 4*pageSize {
			t.Fatal("outside of the file")
		}
		check("view", f.View(0, f.Size(), func(b []byte) error { b[at] = 1; return nil }))
		r, err := f.Region(at, 8)
		if err != nil {
			t.Fatal(err)
		}
		check("guard", mmapio.Guard(func() error { clear(r.Bytes()); return nil }))
		r.Release()
		v, err := mmapio.ValueAt[atomic.Uint64](f, at)
		if err != nil {
			t.Fatal(err)
		}
		check("guard", mmapio.Guard(func() error {
			if raceBuild() {
				*(*uint64)(unsafe.Pointer(v.Ptr())) = 1 // see Guard
			} else {
				v.Ptr().Add(1)
			}
			return nil
		}))
		v.Release()
		vs, err := mmapio.ValuesAt[uint16](f, at, 4)
		if err != nil {
			t.Fatal(err)
		}
		check("guard", mmapio.Guard(func() error { vs.Slice()[3] = 7; return nil }))
		vs.Release()
		check("guard", mmapio.Guard(func() error {
			for c, err := range f.Pages(at, 8) {
				if err != nil {
					return err
				}
				c.Data[0] = 1
			}
			return nil
		}))
		wantPathError(t, mmapio.StoreAt(f, at, uint64(1)), "storeat", path, mmapio.ErrReadOnly)
		same(t, "what is mapped", contentOf(t, f), content[offset:])
		mustClose(t, f)
	}
	same(t, "the file", onDisk(t, path), content)
}

// TestOtherFile has a fault on one File's memory inside of another's View: it
// is not that one's, but any Guard's.
func TestOtherFile(t *testing.T) {
	needFaults(t)
	path, _ := patternFile(t, pageSize)
	other, _ := patternFile(t, pageSize)
	f, g := mustOpen(t, path, nil), mustOpen(t, other, nil)
	inF := func(fn func()) error { return f.View(0, 1, func([]byte) error { fn(); return nil }) }
	inG := func(fn func(b []byte)) error { return g.View(0, 1, func(b []byte) error { fn(b); return nil }) }
	is := func(what string, err error, op, path string) {
		t.Helper()
		fe := (*mmapio.FaultError)(nil)
		if !errors.As(err, &fe) || fe.Op != op || fe.Path != path {
			t.Errorf("%s: %v, want a fault of %s in %s", what, err, op, path)
		}
	}
	var inner error
	is("the outer View's memory", inG(func(b []byte) {
		inner = inF(func() { b[0] = 1 })
		t.Error("the inner View took the fault")
	}), "view", other)
	if inner != nil {
		t.Error(inner)
	}
	is("Guard round it", mmapio.Guard(func() error {
		r, err := g.Region(0, 1)
		if err != nil {
			return err
		}
		defer r.Release()
		return inF(func() { r.Bytes()[0] = 1 })
	}), "guard", other)
	if err := inF(func() {
		is("Guard in it", mmapio.Guard(func() error { return inG(func(b []byte) { b[0] = 1 }) }), "view", other)
	}); err != nil {
		t.Error(err)
	}
	// Without a Guard it is a panic, which says where.
	r, err := g.Region(0, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	panicked := panicOf(func() { _ = inF(func() { r.Bytes()[0] = 1 }) })
	if _, ok := panicked.(runtime.Error); !ok {
		t.Errorf("without a Guard: %v", panicked)
	}
	is("given to a Guard", mmapio.Guard(func() error { panic(panicked) }), "guard", other)
	if err := f.View(0, 1, func([]byte) error { return nil }); err != nil {
		t.Error(err)
	}
}

// TestFaultText is the text of every kind of FaultError.
func TestFaultText(t *testing.T) {
	for want, e := range map[string]mmapio.FaultError{
		"view a: fault at offset 4096: the file is now shorter": {Op: "view", Path: "a", Off: 4096, FileOff: 4096, Err: io.ErrUnexpectedEOF},
		"guard a: fault at offset 3 (4096 in the file): " + syscall.EIO.Error(): {
			Op: "guard", Path: "a", Off: 3, FileOff: 4096, Err: syscall.EIO,
		},
		"view a: fault at offset 0: mapped read-only": {Op: "view", Path: "a", Err: mmapio.ErrReadOnly},
	} {
		if e.Error() != want {
			t.Errorf("%q, want %q", e.Error(), want)
		}
		if errors.Unwrap(&e) != e.Err {
			t.Errorf("%v does not unwrap", e)
		}
	}
}
