//go:build !linux

package prove

import (
	"errors"
	"os"
	"runtime"
	"testing"
)

// Nothing below is reached: what is exported asks Need first, which skips the test and says why. It is here to compile.

const (
	canPrepare = false
	notHere    = "the oracles are Linux's"
)

var errNotHere = errors.New(notHere)

// Some things are the same everywhere but under an emulator, and there is none here.
func missing(f Feature) string {
	switch f {
	case FaultAddress, BusAddress, FileEnd, Verify:
		return ""
	}
	return notHere + ", this is " + runtime.GOOS
}

func diskRoot() (dir, why string)                          { return "", notHere }
func reachable(dir string) bool                            { return dir == os.TempDir() }
func addSwap(testing.TB, int64) string                     { return "" }
func mountTmpfs(testing.TB, int64) string                  { return "" }
func makeLoop(testing.TB, string, int64) *Loop             { return nil }
func mountCopy(testing.TB, string, string) *Loop           { return nil }
func setSysctl(testing.TB, string, string)                 {}
func dropCaches(testing.TB)                                {}
func quiet(testing.TB)                                     {}
func residentBody([]string) int                            { return 1 }
func readVMAs(testing.TB, int, bool) []VMA                 { return nil }
func vmas(int, string) ([]VMA, error)                      { return nil, errNotHere }
func readPages(testing.TB, span) (present, swapped []bool) { return nil, nil }
func flaggedPages(span, uint64) ([]bool, error)            { return nil, errNotHere }
func openFDs() ([]string, error)                           { return nil, errNotHere }
func countFaults(testing.TB) func() Faults                 { return nil }
func newCgroup(testing.TB, int64) *Cgroup                  { return nil }

func (*Cgroup) join(testing.TB, int)                    {}
func (*Cgroup) setLimit(testing.TB, int64)              {}
func (*Cgroup) forceEmpty(testing.TB)                   {}
func (*Cgroup) number(testing.TB, string, string) int64 { return 0 }

// VmLck is the address space that a process has locked, in bytes.
func VmLck(t testing.TB, _ int) int64 { //nolint:revive // the kernel's own name
	t.Helper()
	Need(t, Linux)
	return 0
}

func prepareChild(*childSpec) error      { return nil }
func limitChild([]rlimit) error          { return nil }
func refuseCalls([]refusal) error        { return nil }
func overHard([]rlimit) bool             { return false }
func watchParent()                       {}
func askForStacks(*os.Process)           {}
func endedBy(*os.ProcessState) os.Signal { return nil }
