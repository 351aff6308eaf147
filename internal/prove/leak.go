package prove

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// How long a leak check waits: the library gives address space back in cleanups, which run a while after a collection.
const leakPatience = 3 * time.Second

// FDs names the open descriptors of this process, sorted: "/tmp/x", "pipe:[123]". Left out are those that the Go runtime
// opens for itself when it first waits for a descriptor.
func FDs(t testing.TB) []string {
	t.Helper()
	Need(t, Maps)
	all, err := openFDs()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// LeakCheck fails the test if, when it ends, this process has a mapping of a file below t.TempDir(), or has descriptors
// open that it had not when LeakCheck was called. Call it before anything else in the test, and not in a parallel one:
// descriptors are the whole process's. Where there is no /proc it checks nothing.
func LeakCheck(t testing.TB) {
	t.Helper()
	if impossible() != "" {
		return
	}
	dir := filepath.Dir(t.TempDir()) // before the Cleanup, so that the directory outlives it
	before, err := openFDs()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if what := leaks(before, dir); what != "" {
			t.Errorf("leaked: %s", what)
		}
	})
}

// leaks collects, waits, and tells what is still there. It runs when all tests of a process are over, too, so it has
// nobody to tell of an error but its result.
func leaks(before []string, dir string) string {
	for deadline := time.Now().Add(leakPatience); ; time.Sleep(10 * time.Millisecond) {
		what := leaksNow(before, dir)
		if what == "" || time.Now().After(deadline) {
			return what
		}
		runtime.GC()
	}
}

func leaksNow(before []string, dir string) string {
	var what []string
	after, err := openFDs()
	if err != nil {
		return err.Error()
	}
	for _, fd := range before {
		if i := slices.Index(after, fd); i >= 0 {
			after = slices.Delete(after, i, i+1)
		}
	}
	if len(after) > 0 {
		what = append(what, fmt.Sprintf("%d descriptors: %s", len(after), strings.Join(after, ", ")))
	}
	mapped, err := vmas(0, "maps")
	if err != nil {
		return err.Error()
	}
	self, _ := os.Executable() // the test binary lies in a temporary directory itself
	for _, v := range mapped {
		if under(v.Path, dir) && v.Path != self {
			what = append(what, fmt.Sprintf("mapping %x-%x %s of %s+%d", v.Start, v.End, v.Perms, v.Path, v.Offset))
		}
	}
	return strings.Join(what, "; ")
}

// Main is for TestMain: it runs the body of a child if this process is one, else the tests, and exits. It fails the run
// if the tests leave a descriptor open or a file of the temporary directory mapped.
//
//	func TestMain(m *testing.M) { prove.Main(m) }
func Main(m *testing.M) {
	runChild()
	mainRan = true
	checked := impossible() == ""
	var before []string
	if checked {
		before, _ = openFDs()
	}
	code := m.Run()
	if f := flag.Lookup("test.fuzz"); f != nil && f.Value.String() != "" {
		checked = false // the fuzzing engine keeps pipes and shared memory of its own
	}
	if checked && code == 0 {
		if what := leaks(before, os.TempDir()); what != "" {
			fmt.Fprintln(os.Stderr, "the tests leaked:", what)
			code = 1
		}
	}
	os.Exit(code)
}
