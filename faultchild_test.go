package mmapio_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// A file that a fault child works on: cutPages are left of it when its parent
// has cut it, and 100 bytes of one more page.
const (
	filePages = 9
	cutPages  = 3
	cutRest   = 100
)

// ask has the parent do something to the file, and waits until it is done: the
// one who cuts a file is always another process.
func ask(t testing.TB, what string) {
	fmt.Println("ask", what)
	if line, err := stdin.ReadString('\n'); err != nil || line != "done\n" {
		t.Fatalf("asked to %s, got %q, %v", what, line, err)
	}
}

var stdin = bufio.NewReader(os.Stdin)

// faultChild touches memory that is not there. Its arguments are the name of
// an act and the path of a file; a third makes its faults in-page errors. What it finds wrong makes its exit status 1;
// a fault that nobody caught makes it 2, which is how Go programs end of
// SIGBUS and SIGSEGV.
var faultChild = prove.Register("fault", func(args []string) int {
	t, act := prove.T(), acts[args[0]]
	if len(args) > 2 {
		inPageErrors(t)
	}
	if act.do == nil {
		act := soloActs[args[0]]
		if act == nil {
			act = systemActs[args[0]]
		}
		act(t, args[1])
		return 0
	}
	f := mustOpen(t, args[1], &mmapio.Options{Mode: mmapio.ReadWrite})
	s := &scene{T: t, f: f, path: args[1], size: f.Size()}
	debug.SetPanicOnFault(false)
	err := act.do(s)
	if debug.SetPanicOnFault(false) {
		t.Error("the flag was left set")
	}
	s.check(act, err)
	return 0
})

// A scene is a File in a child.
type scene struct {
	T    testing.TB
	f    *mmapio.File
	path string
	size int64
}

// cut asks for the file to be cut.
func (s *scene) cut() { ask(s.T, "cut") }

// notReached is for what follows a fault.
func (s *scene) notReached() { s.T.Error("went on after a fault") }

// check holds the error of a cut against what is known, and looks whether the
// File still works.
func (s *scene) check(a act, err error) {
	t, first := s.T, (cutPages+1)*pageSize
	var fe *mmapio.FaultError
	if !errors.As(err, &fe) {
		t.Fatalf("%v is no FaultError", err)
	}
	if want := (mmapio.FaultError{Op: a.op, Path: s.path, Off: first, FileOff: first, Err: io.ErrUnexpectedEOF}); *fe != want {
		t.Errorf("%+v, want %+v", *fe, want)
	}
	if want := fmt.Sprintf("%s %s: fault at offset %d: the file is now shorter", a.op, s.path, first); err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v is not io.ErrUnexpectedEOF", err)
	}
	if s.f.Size() != s.size {
		t.Errorf("Size %d, was %d", s.f.Size(), s.size)
	}
	// What is still there can be read, and nothing is held.
	want := pattern(s.size, 1)
	got := make([]byte, cutPages*pageSize+cutRest)
	if n, err := s.f.ReadAt(got, 0); n != len(got) || err != nil {
		t.Errorf("ReadAt of what is there: %d, %v", n, err)
	}
	if !a.stores {
		same(t, "what is there", got, want[:len(got)])
	}
	ask(t, "grow")
	got = make([]byte, s.size)
	if n, err := s.f.ReadAt(got, 0); n != len(got) || err != nil {
		t.Errorf("ReadAt after it grew: %d, %v", n, err)
	}
	if err := s.f.View(first, pageSize, func(b []byte) error { sum(b); return nil }); err != nil {
		t.Error(err)
	}
	if err := s.f.Resize(pageSize); err != nil {
		t.Errorf("Resize, when nobody is inside: %v", err)
	}
}

// An act is what a child does with a file that is cut under it.
type act struct {
	op     string // of the error
	stores bool
	do     func(s *scene) error
}

var acts = map[string]act{
	"ReadAt": {op: "readat", do: func(s *scene) error {
		s.cut()
		p := make([]byte, s.size)
		n, err := s.f.ReadAt(p, 0)
		// The page that was cut in the middle is there, with zeroes.
		if n != int((cutPages+1)*pageSize) {
			s.T.Errorf("ReadAt: %d bytes", n)
		}
		kept := cutPages*pageSize + cutRest
		same(s.T, "the bytes before", p[:kept], pattern(s.size, 1)[:kept])
		same(s.T, "the rest of the page", p[kept:n], make([]byte, pageSize-cutRest))
		return err
	}},
	// Here the cut comes when it likes.
	"ReadAt loop": {op: "readat", do: func(s *scene) error {
		fmt.Println("ask soon")
		for p := make([]byte, s.size); ; {
			if _, err := s.f.ReadAt(p, 0); err != nil {
				line, _ := stdin.ReadString('\n')
				_ = line // the cut is done
				return err
			}
		}
	}},
	"WriteAt": {op: "writeat", stores: true, do: func(s *scene) error {
		s.cut()
		p := pattern(6*pageSize, 2)
		n, err := s.f.WriteAt(p, pageSize+7)
		if n != int(cutPages*pageSize-7) {
			s.T.Errorf("WriteAt: %d bytes", n)
		}
		kept := int(cutPages-1)*int(pageSize) + cutRest - 7 // inside of the file
		same(s.T, "what was written", onDisk(s.T, s.path)[pageSize+7:], p[:kept])
		return err
	}},
	"View": {op: "view", do: func(s *scene) error {
		return s.f.View(0, s.size, func(b []byte) error {
			s.cut()
			sum(b)
			s.notReached()
			return nil
		})
	}},
	// Copying touches the last bytes first.
	"View copy": {op: "view", do: func(s *scene) error {
		dst := make([]byte, s.size)
		return s.f.View(0, s.size, func(b []byte) error { s.cut(); copy(dst, b); s.notReached(); return nil })
	}},
	"Update": {op: "update", stores: true, do: func(s *scene) error {
		return s.f.Update(pageSize, 7*pageSize, func(b []byte) error { s.cut(); clear(b); s.notReached(); return nil })
	}},
	"UpdateChunks": {op: "updatechunks", stores: true, do: func(s *scene) error {
		calls := int64(0)
		err := s.f.UpdateChunks(0, s.size, 2*pageSize, func(c mmapio.Chunk) error {
			if c.Off == 0 {
				s.cut()
			}
			calls++
			clear(c.Data)
			return nil
		})
		if calls != (cutPages+1)/2+1 {
			s.T.Errorf("%d calls", calls)
		}
		return err
	}},
	"LoadAt": {op: "loadat", do: func(s *scene) error {
		s.cut()
		_, err := mmapio.LoadAt[uint64](s.f, (cutPages+1)*pageSize+8)
		return err
	}},
	"StoreAt": {op: "storeat", stores: true, do: func(s *scene) error {
		s.cut()
		return mmapio.StoreAt(s.f, (cutPages+1)*pageSize+8, uint64(1))
	}},
	// A value whose first bytes lie on a good page.
	"LoadAt across": {op: "loadat", do: func(s *scene) error {
		s.cut()
		_, err := mmapio.LoadAt[[3]uint32](s.f, (cutPages+1)*pageSize-4)
		return err
	}},
	"StoreAt across": {op: "storeat", stores: true, do: func(s *scene) error {
		s.cut()
		return mmapio.StoreAt(s.f, (cutPages+1)*pageSize-4, [3]uint32{})
	}},
	"Region": {op: "guard", do: func(s *scene) error {
		r := s.region()
		defer r.Release()
		return mmapio.Guard(func() error { s.cut(); sum(r.Bytes()); s.notReached(); return nil })
	}},
	"Value": {op: "guard", stores: true, do: func(s *scene) error {
		v, err := mmapio.ValueAt[atomic.Uint64](s.f, (cutPages+1)*pageSize)
		if err != nil {
			s.T.Fatal(err)
		}
		defer v.Release()
		return mmapio.Guard(func() error { s.cut(); v.Ptr().Add(1); s.notReached(); return nil })
	}},
	"Chunks in Guard": {op: "guard", do: func(s *scene) error { return s.guardLoop(s.f.Chunks(0, s.size, pageSize+1)) }},
	"Pages in Guard":  {op: "guard", do: func(s *scene) error { return s.guardLoop(s.f.Pages(0, s.size)) }},
	"Pull in Guard": {op: "guard", do: func(s *scene) error {
		next, stop := iter.Pull2(s.f.Pages(0, s.size))
		defer stop()
		next() // which brings more in than one page
		s.cut()
		return mmapio.Guard(func() error {
			for c, err, ok := next(); ok; c, err, ok = next() {
				if err != nil {
					return err
				}
				sum(c.Data)
			}
			s.notReached()
			return nil
		})
	}},
	// Out of a Guard it is a panic, which can be recovered, and no signal.
	"Chunks": {op: "guard", do: func(s *scene) error { return s.panics(s.f.Chunks(0, s.size, 2*pageSize)) }},
	"Pages":  {op: "guard", do: func(s *scene) error { return s.panics(s.f.Pages(0, s.size)) }},
	"Section": {op: "view", do: func(s *scene) error {
		sec, err := s.f.Section(2*pageSize, 6*pageSize)
		if err != nil {
			s.T.Fatal(err)
		}
		s.cut()
		p := make([]byte, 6*pageSize)
		n, err := sec.ReadAt(p, 0)
		var fe *mmapio.FaultError
		if n != int((cutPages-1)*pageSize) || !errors.As(err, &fe) || fe.Off != (cutPages+1)*pageSize {
			s.T.Errorf("Section.ReadAt: %d, %v", n, err)
		}
		return sec.View(pageSize, 5*pageSize, func(b []byte) error { sum(b); return nil })
	}},
	"View in View": {op: "view", do: func(s *scene) error {
		// The inner call takes a fault on the outer one's pages: both are
		// memory of its File.
		var inner error
		outer := s.f.View(0, s.size, func(all []byte) error {
			s.cut()
			inner = s.f.View(0, pageSize, func(one []byte) error {
				sum(one)
				sum(all)
				s.notReached()
				return nil
			})
			sum(all[:pageSize]) // the outer one goes on
			return nil
		})
		if outer != nil {
			s.T.Errorf("the outer View: %v", outer)
		}
		return inner
	}},
	"View far in View": {op: "view", do: func(s *scene) error {
		// The bad page lies before the inner one's range. Nothing looks for bad
		// pages beforehand, or the inner one would find its own.
		f := mustOpen(s.T, s.path, &mmapio.Options{Mode: mmapio.ReadWrite, Prefault: -1})
		defer f.Close()
		return f.View(0, s.size, func(all []byte) error {
			s.cut()
			return f.View(s.size-pageSize, pageSize, func([]byte) error {
				sum(all)
				return nil
			})
		})
	}},
	"Guard in View": {op: "guard", do: func(s *scene) error {
		return s.f.View(0, s.size, func(b []byte) error {
			s.cut()
			err := mmapio.Guard(func() error { sum(b); return nil })
			sum(b[:pageSize])
			return err
		})
	}},
	"View in Guard": {op: "view", do: func(s *scene) error {
		return mmapio.Guard(func() error {
			return s.f.View(0, s.size, func(b []byte) error { s.cut(); sum(b); return nil })
		})
	}},
}

func (s *scene) region() *mmapio.Region {
	r, err := s.f.Region(0, s.size)
	if err != nil {
		s.T.Fatal(err)
	}
	return r
}

func (s *scene) guardLoop(seq iter.Seq2[mmapio.Chunk, error]) error {
	return mmapio.Guard(func() error {
		for c, err := range seq {
			if err != nil {
				return err
			}
			if c.Off == 0 {
				s.cut()
			}
			sum(c.Data)
		}
		s.notReached()
		return nil
	})
}

// panics runs the loop outside of a Guard, recovers, and gives the panic to a
// Guard to have an error made of it.
func (s *scene) panics(seq iter.Seq2[mmapio.Chunk, error]) error {
	r := panicOf(func() {
		for c := range seq {
			if c.Off == 0 {
				s.cut()
			}
			sum(c.Data)
		}
	})
	if _, ok := r.(runtime.Error); !ok {
		s.T.Fatalf("the loop ended with %v", r)
	}
	return mmapio.Guard(func() error { panic(r) })
}

// lastPage gives a page that was cut off to a function, in a View.
func lastPage(fn func(b []byte)) func(t testing.TB, path string) {
	return func(t testing.TB, path string) {
		f := mustOpen(t, path, nil)
		err := f.View(f.Size()-pageSize, pageSize, func(b []byte) error { ask(t, "cut"); fn(b); return nil })
		t.Errorf("came back: %v", err)
	}
}

// cutting are the verbs of a file that is to be cut and to grow again.
func cutting(t *testing.T, path string) map[string]func() {
	truncate := func(size int64) { prove.Truncate(t, path, size) }
	cut := func() { truncate(cutPages*pageSize + cutRest) }
	return map[string]func(){
		"cut":  cut,
		"soon": func() { time.Sleep(20 * time.Millisecond); cut() },
		"grow": func() { truncate(filePages * pageSize) },
	}
}
