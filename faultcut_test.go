package mmapio_test

import (
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// runFault starts a fault child and does what it asks for.
func runFault(t *testing.T, act, path string, verbs map[string]func(), more ...string) prove.Result {
	t.Helper()
	p := faultChild.Start(t, prove.Args(append([]string{act, path}, more...)...))
	for {
		line, ok := p.Line()
		if !ok {
			return p.Wait()
		}
		if what, ok := strings.CutPrefix(line, "ask "); ok {
			verbs[what]()
			p.Send("done")
		}
	}
}

func wantDeath(t *testing.T, res prove.Result, signal string) {
	t.Helper()
	// Go's handler turns the signal into a message and exit status 2.
	if res.Code != 2 || !strings.Contains(res.Output, signal) {
		t.Errorf("did not die of %s: %v", signal, res)
	}
}

// needCut skips where nobody can cut a file that another process has mapped.
func needCut(t *testing.T) {
	t.Helper()
	needFaults(t)
	prove.Need(t, prove.BusAddress, prove.FileEnd)
	if !prove.CanTruncate() {
		prove.Unable(t, "%s does not cut a file that is mapped", runtime.GOOS)
	}
}

// TestCut cuts the file of another process under every kind of access.
func TestCut(t *testing.T) {
	needCut(t)
	for name := range acts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, _ := patternFile(t, filePages*pageSize)
			if res := runFault(t, name, path, cutting(t, path)); res.Code != 0 {
				t.Error(res)
			}
		})
	}
}

// TestCutDies is the control of TestCut, and shows what no guard can catch.
func TestCutDies(t *testing.T) {
	needCut(t)
	bus, segv := "SIGBUS", "SIGSEGV"
	if runtime.GOOS == "windows" {
		bus, segv = "0xc0000005", "0xc0000005" // Wine knows of no other
	}
	deaths := map[string]string{
		"plain load": bus, "plain store": bus, "plain store into read-only": segv,
		"Region unguarded": bus, "goroutine": bus, "send": bus,
	}
	if runtime.GOOS != "windows" {
		deaths["println"] = bus // there a system call takes it
	}
	if raceBuild() {
		deaths["atomic"] = "fatal error"
	}
	for name, signal := range deaths {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, _ := patternFile(t, filePages*pageSize)
			wantDeath(t, runFault(t, name, path, cutting(t, path)), signal)
		})
	}
}

// soloActs open the file themselves.
var soloActs = map[string]func(t testing.TB, path string){
	"Region unguarded": func(t testing.TB, path string) {
		f := mustOpen(t, path, nil)
		r, err := f.Region(0, f.Size())
		if err != nil {
			t.Fatal(err)
		}
		ask(t, "cut")
		sum(r.Bytes())
	},
	"goroutine": lastPage(func(b []byte) {
		done := make(chan struct{})
		go func() { defer close(done); sum(b) }()
		<-done
	}),
	// What a plain ch <- *v does. (The race detector has the value copied
	// before it is sent.)
	"send": lastPage(func(b []byte) {
		ch := make(chan [64]byte, 1)
		v := reflect.NewAt(reflect.TypeFor[[64]byte](), unsafe.Pointer(&b[0]))
		reflect.ValueOf(ch).Send(v.Elem())
	}),
	"println": lastPage(func(b []byte) { println(unsafe.String(&b[0], 8)) }),
	// Only with the race detector, which does it in C.
	"atomic": func(t testing.TB, path string) {
		v, err := mmapio.ValueAt[atomic.Uint64](mustOpen(t, path, nil), 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = mmapio.Guard(func() error { v.Ptr().Add(1); return nil })
	},
}
