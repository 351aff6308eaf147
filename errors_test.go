package mmapio_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// silent are the methods that have no error to return. Whoever adds one says
// here that it is fine after Close.
var silent = []string{"Name", "Mode", "Size", "PageSize", "LockedRanges", "LockedBytes",
	"Expire", "Known"} // these two are of export files, for tests

// argument makes something that a method can be called with.
func argument(t *testing.T, kind reflect.Type, number int64) reflect.Value {
	switch {
	case kind.Kind() == reflect.Func:
		return reflect.MakeFunc(kind, func([]reflect.Value) []reflect.Value {
			t.Error("a closed File called back")
			out := make([]reflect.Value, kind.NumOut())
			for i := range out {
				out[i] = reflect.Zero(kind.Out(i))
			}
			return out
		})
	case kind == reflect.TypeFor[context.Context]():
		return reflect.ValueOf(t.Context())
	case kind == reflect.TypeFor[[]byte]():
		return reflect.ValueOf(make([]byte, 1))
	case kind == reflect.TypeFor[int64]():
		return reflect.ValueOf(number)
	}
	return reflect.Zero(kind)
}

// lastError is the error of a call; an iterator is run for its own.
func lastError(t *testing.T, name string, out []reflect.Value) (err error, has bool) { //nolint:revive,staticcheck // has is about err
	if len(out) == 0 {
		return nil, false
	}
	last := out[len(out)-1]
	if last.Kind() == reflect.Func && last.Type().CanSeq2() {
		times := 0
		for _, v := range last.Seq2() {
			times++
			err, _ = v.Interface().(error)
		}
		if times != 1 {
			t.Errorf("%s yields %d times after Close, want one error", name, times)
		}
		return err, true
	}
	if last.Type() != reflect.TypeFor[error]() {
		return nil, false
	}
	err, _ = last.Interface().(error)
	return err, true
}

// TestAfterClose calls every method that *File has, whatever it is, on closed
// Files of all kinds: each says fs.ErrClosed, also where its arguments or the
// mode would be wrong.
func TestAfterClose(t *testing.T) {
	needMaps(t)
	prove.LeakCheck(t)
	path, _ := patternFile(t, pageSize)
	open := map[string]func() (*mmapio.File, error){
		"anonymous":       func() (*mmapio.File, error) { return mmapio.Anonymous(pageSize, nil) },
		"empty anonymous": func() (*mmapio.File, error) { return mmapio.Anonymous(0, nil) },
	}
	for _, mode := range allModes {
		for _, o := range []mmapio.Options{{Mode: mode}, {Mode: mode, DropFD: true}, {Mode: mode, Offset: pageSize}, {Mode: mode, Length: 7}} {
			open[fmt.Sprintf("%v/DropFD=%v/%d+%d", mode, o.DropFD, o.Offset, o.Length)] = func() (*mmapio.File, error) {
				return mmapio.OpenFile(path, &o)
			}
		}
	}
	for kind, open := range open {
		t.Run(kind, func(t *testing.T) {
			f := opened(t)(open())
			mustClose(t, f)
			v := reflect.ValueOf(f)
			for i := range v.NumMethod() {
				name, call := v.Type().Method(i).Name, v.Method(i)
				for _, number := range []int64{0, 1, -1, pageSize + 1} {
					args := make([]reflect.Value, call.Type().NumIn())
					for j := range args {
						args[j] = argument(t, call.Type().In(j), number)
					}
					err, has := lastError(t, name, call.Call(args))
					switch {
					case !has && !slices.Contains(silent, name):
						t.Errorf("%s has no error to return: is that right after Close?", name)
					case has && !errors.Is(err, fs.ErrClosed):
						t.Errorf("%s(%d, …): %v", name, number, err)
					case has && !strings.Contains(err.Error(), f.Name()):
						t.Errorf("%s: %v does not name the file", name, err)
					}
				}
			}
			if f.Size() != 0 || f.LockedBytes() != 0 || len(f.LockedRanges()) != 0 {
				t.Errorf("after Close: %d bytes, %v locked", f.Size(), f.LockedRanges())
			}
			_, err1 := mmapio.LoadAt[uint32](f, 0)
			_, err2 := mmapio.ValueAt[uint32](f, 0)
			_, err3 := mmapio.ValuesAt[uint32](f, 0, 1)
			for _, err := range []error{err1, err2, err3, mmapio.StoreAt(f, 0, uint32(1))} {
				if !errors.Is(err, fs.ErrClosed) {
					t.Error(err)
				}
			}
		})
	}
}

// TestCloseInCallback: Close does not wait for whoever calls it, and their memory
// stays.
func TestCloseInCallback(t *testing.T) {
	needMaps(t)
	prove.LeakCheck(t)
	path, content := patternFile(t, 3*pageSize)
	for name, lend := range map[string]func(*mmapio.File, int64, int64, func([]byte) error) error{
		"View": (*mmapio.File).View, "Update": (*mmapio.File).Update,
	} {
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
		own := errors.New("fn's own")
		err := lend(f, 1, 2*pageSize, func(b []byte) error {
			if err := f.Close(); err != nil {
				t.Errorf("Close in %s: %v", name, err)
			}
			if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
				t.Errorf("second Close in %s: %v", name, err)
			}
			if err := f.View(0, 1, func([]byte) error { return nil }); !errors.Is(err, fs.ErrClosed) {
				t.Errorf("View after Close in %s: %v", name, err)
			}
			runtime.GC() // the collector must not take it for forgotten, either
			same(t, "after Close in "+name, b, content[1:2*pageSize+1])
			if name == "Update" {
				b[7] = '!'
				content[8] = '!'
			}
			return own
		})
		if err != own { //nolint:errorlint // it comes back as it is
			t.Errorf("%s: %v", name, err)
		}
		same(t, "the file", onDisk(t, path), content)
	}
}

// TestCallbackEnds: whichever way fn ends, it comes out as it is, and nothing
// is held any more.
func TestCallbackEnds(t *testing.T) {
	needMaps(t)
	prove.LeakCheck(t)
	path, _ := patternFile(t, pageSize)
	f := mustOpen(t, path, nil)
	func() {
		defer func() {
			if r := recover(); r != "mine" {
				t.Errorf("recovered %v", r)
			}
		}()
		f.View(0, 1, func([]byte) error { panic("mine") }) //nolint:errcheck // it does not return
	}()
	func() {
		defer func() {
			if err, ok := recover().(runtime.Error); !ok {
				t.Errorf("recovered %v", err)
			}
		}()
		f.View(0, 1, func(b []byte) error { b[len(b)]++; return nil }) //nolint:errcheck // it does not return
	}()
	ended := make(chan bool)
	go func() {
		defer close(ended)
		f.View(0, 1, func([]byte) error { runtime.Goexit(); return nil }) //nolint:errcheck // it does not return
		t.Error("View came back from Goexit")
	}()
	<-ended
	mustClose(t, f)
	if prove.Missing(prove.Maps) == "" {
		if n, _ := prove.MappedFiles(t, path); n != 0 {
			t.Errorf("%d mappings stay", n)
		}
	}
}

// TestCloseWhileUsed: of calls that meet a Close, each does all of its work or
// says fs.ErrClosed; none sees memory that is not the File's.
func TestCloseWhileUsed(t *testing.T) {
	needFaults(t)
	prove.LeakCheck(t)
	path, content := patternFile(t, 4*pageSize)
	rounds := 20
	if slow || testing.Short() {
		rounds = 10
	}
	for round := range rounds {
		f := mustOpen(t, path, &mmapio.Options{Mode: allModes[round%3], Offset: 5})
		want := content[5:]
		at := func(n, size int) int64 { return int64(n * 37 % (len(want) - size)) }
		calls := []func(n int, b []byte) error{
			func(n int, b []byte) error {
				got, err := f.ReadAt(b, at(n, len(b)))
				if err == nil && !bytes.Equal(b[:got], want[at(n, len(b)):][:len(b)]) {
					t.Error("ReadAt got other bytes than there are")
				}
				return err
			},
			func(n int, _ []byte) error {
				// It stores what is there, so that all others may look.
				if _, err := f.WriteAt(want[at(n, 100):][:100], at(n, 100)); !errors.Is(err, mmapio.ErrReadOnly) {
					return err
				}
				return nil
			},
			func(n int, _ []byte) error {
				return f.View(at(n, 50), 50, func(v []byte) error {
					if !bytes.Equal(v, want[at(n, 50):][:50]) {
						t.Error("View got other bytes than there are")
					}
					return nil
				})
			},
			func(int, []byte) error { return f.Sync() },
			func(int, []byte) error { f.LockedRanges(); _, err := f.Stat(); return err },
		}
		var started atomic.Int64
		var closed atomic.Bool
		var wg sync.WaitGroup
		for _, call := range calls {
			wg.Go(func() {
				b := make([]byte, 2*pageSize)
				for n := 0; ; n++ {
					late := closed.Load()
					err := call(n, b)
					if n == 0 {
						started.Add(1)
					}
					if errors.Is(err, fs.ErrClosed) {
						return
					}
					if err != nil || late {
						t.Errorf("while the File closes, or after that (%v): %v", late, err)
						return
					}
				}
			})
		}
		for started.Load() < int64(len(calls)) && !t.Failed() {
			runtime.Gosched()
		}
		mustClose(t, f)
		closed.Store(true)
		wg.Wait()
	}
	same(t, "the file", onDisk(t, path), content)
}

// openFDs counts the descriptors of now, where they can be counted.
func openFDs(t *testing.T) int {
	t.Helper()
	if prove.Missing(prove.Maps) != "" {
		return 0
	}
	return len(prove.FDs(t))
}

// TestNoLeakOnError fails each open many times over, so that what one leaves
// behind adds up.
func TestNoLeakOnError(t *testing.T) {
	needMaps(t)
	prove.LeakCheck(t)
	path, content := patternFile(t, 100)
	dir := filepath.Dir(path)
	missing := filepath.Join(dir, "missing", "file")
	file, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it would close what was forgotten
	rw := mmapio.ReadWrite
	for what, open := range map[string]func() (*mmapio.File, error){
		"a contradiction":   func() (*mmapio.File, error) { return mmapio.OpenFile(path, &mmapio.Options{Create: true}) },
		"no such file":      func() (*mmapio.File, error) { return mmapio.Open(missing) },
		"no such directory": func() (*mmapio.File, error) { return mmapio.Create(missing, 5) },
		"a directory":       func() (*mmapio.File, error) { return mmapio.Open(dir) },
		"it exists": func() (*mmapio.File, error) {
			return mmapio.OpenFile(path, &mmapio.Options{Mode: rw, Create: true, Exclusive: true})
		},
		"past the end": func() (*mmapio.File, error) { return mmapio.OpenFile(path, &mmapio.Options{Offset: 101}) },
		"past the end, made": func() (*mmapio.File, error) {
			return mmapio.OpenFile(path+"2", &mmapio.Options{Mode: rw, Create: true, Length: 1})
		},
		"too large":          func() (*mmapio.File, error) { return mmapio.Create(path+"2", math.MaxInt64) },
		"Map, contradiction": func() (*mmapio.File, error) { return mmapio.Map(file, &mmapio.Options{Mode: rw, Create: true}) },
		"Map, not writable":  func() (*mmapio.File, error) { return mmapio.Map(file, &mmapio.Options{Mode: rw}) },
		"Map, past the end":  func() (*mmapio.File, error) { return mmapio.Map(file, &mmapio.Options{Length: 101}) },
		"Anonymous":          func() (*mmapio.File, error) { return mmapio.Anonymous(-5, nil) },
		"Anonymous, option":  func() (*mmapio.File, error) { return mmapio.Anonymous(5, &mmapio.Options{DropFD: true}) },
		"Anonymous, large":   func() (*mmapio.File, error) { return mmapio.Anonymous(1<<62, nil) },
	} {
		fds := openFDs(t)
		for range 5 {
			f, err := open()
			if err == nil {
				f.Close()
				t.Fatalf("%s: no error", what)
			}
			if f != nil {
				t.Fatalf("%s: a File besides %v", what, err)
			}
		}
		if prove.Missing(prove.Maps) == "" {
			if n, _ := prove.MappedFiles(t, dir); n != 0 {
				t.Errorf("%s: %d mappings", what, n)
			}
		}
		if n := openFDs(t); n != fds {
			t.Errorf("%s: %d descriptors, had %d", what, n, fds)
		}
	}
	mustNotExist(t, path+"2")
	same(t, "the file", onDisk(t, path), content)
}

// TestErrorTexts: an error says what was asked for and what stood in the way.
func TestErrorTexts(t *testing.T) {
	for _, tt := range []struct {
		err  error
		text string
		is   []error
	}{
		{&mmapio.RangeError{Op: "view", Path: "a", Off: 5, Len: 7, Size: 9},
			"view a: range of 7 bytes at offset 5 is outside of 9 bytes", []error{fs.ErrInvalid}},
		{&mmapio.RangeError{Op: "view", Path: "a", Off: 10, Size: 9},
			"view a: range of 0 bytes at offset 10 is outside of 9 bytes", []error{fs.ErrInvalid}},
		{&mmapio.RangeError{Op: "view", Path: "a", Off: 5, Len: -1, Size: 9},
			"view a: a length of -1 bytes (at offset 5) is negative", []error{fs.ErrInvalid}},
		{&mmapio.RangeError{Op: "chunks", Path: "a", Off: 5, Size: 9},
			"chunks a: pieces of 0 bytes (from offset 5 on); they must have 1 or more", []error{fs.ErrInvalid}},
		{&mmapio.OptionError{Op: "open", Path: "a", Field: "Perm", Reason: "needs Create", Err: fs.ErrInvalid},
			"open a: option Perm: needs Create", []error{fs.ErrInvalid}},
		{&mmapio.OptionError{Op: "open", Path: "a", Field: "NoDump", Reason: "lacks", Err: errors.ErrUnsupported},
			"open a: option NoDump: lacks", []error{errors.ErrUnsupported}},
		{&mmapio.FaultError{Op: "readat", Path: "a", Off: 4096, FileOff: 4096, Err: io.ErrUnexpectedEOF},
			"readat a: fault at offset 4096: the file is now shorter", []error{io.ErrUnexpectedEOF}},
		{&mmapio.FaultError{Op: "readat", Path: "a"}, "readat a: fault at offset 0", nil}, // of a caller's own
		{&mmapio.FaultError{Op: "writeat", Path: "a", Off: 1, FileOff: 8, Err: mmapio.ErrReadOnly},
			"writeat a: fault at offset 1 (8 in the file): mapped read-only", []error{mmapio.ErrReadOnly, fs.ErrPermission}},
		{mmapio.ErrReadOnly, "mapped read-only", []error{mmapio.ErrReadOnly, fs.ErrPermission}},
	} {
		if tt.err.Error() != tt.text {
			t.Errorf("%q, want %q", tt.err, tt.text)
		}
		for _, is := range []error{fs.ErrInvalid, errors.ErrUnsupported, io.ErrUnexpectedEOF, fs.ErrPermission,
			mmapio.ErrReadOnly, mmapio.ErrBusy, fs.ErrClosed, io.EOF} {
			if want := slices.Contains(tt.is, is); errors.Is(tt.err, is) != want {
				t.Errorf("%v is %v: %v, want %v", tt.err, is, !want, want)
			}
		}
	}
	for what, want := range map[fmt.Stringer]string{
		mmapio.ReadOnly: "ReadOnly", mmapio.ReadWrite: "ReadWrite", mmapio.CopyOnWrite: "CopyOnWrite", mmapio.Mode(7): "Mode(7)",
	} {
		if what.String() != want {
			t.Errorf("%v, want %s", what, want)
		}
	}
}
