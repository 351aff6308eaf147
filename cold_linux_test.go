package mmapio_test

import (
	"errors"
	"io/fs"
	"runtime"
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/limits"
	"github.com/mmapio/mmapio/internal/prove"
)

// short lowers a resource limit to what is in use until enough is called.
func short(t testing.TB, resource int, inUse uint64) (enough func()) {
	t.Helper()
	var was unix.Rlimit
	check(t, unix.Getrlimit(resource, &was))
	check(t, unix.Setrlimit(resource, &unix.Rlimit{Cur: inUse, Max: was.Max}))
	return func() { check(t, unix.Setrlimit(resource, &was)) }
}

// coldDescriptors asks about a lock for the first time when no descriptor is to
// be had.
var coldDescriptors = prove.Register("cold descriptors", func(args []string) int {
	t := prove.T()
	f := mustOpen(t, args[0], nil)
	free, err := unix.Dup(0) // the lowest that is not in use
	check(t, err)
	check(t, unix.Close(free))
	enough := short(t, unix.RLIMIT_NOFILE, uint64(free))
	check(t, f.LockAll())
	err = f.VerifyLocked(0, f.Size())
	var pe *fs.PathError
	if !errors.Is(err, unix.EMFILE) || errors.Is(err, errors.ErrUnsupported) || !errors.As(err, &pe) || pe.Op != "verifylocked" {
		t.Errorf("VerifyLocked without descriptors: %v", err)
	}
	enough()
	check(t, f.VerifyLocked(0, f.Size()))
	return 0
})

// coldMemory locks for the first time when no page of address space is to be had
// to try with.
var coldMemory = prove.Register("cold memory", func(args []string) int {
	t := prove.T()
	f := mustOpen(t, args[0], nil)
	// Nothing else is to ask the system for memory: the heap has room, and no need to
	// be looked through.
	heap := make([]byte, 16<<20)
	heap[0] = 1
	runtime.KeepAlive(heap)
	runtime.GC()
	debug.SetGCPercent(-1)
	// Nor for tables that the runtime makes once, for types that were not converted before.
	_, _, err := limits.MapCount()
	check(t, err)
	_, err = limits.MaxMapCount()
	check(t, err)
	_, err = limits.ReadMemlock()
	check(t, err)
	_, err = limits.Cgroups()
	t.Log(err)
	enough := short(t, unix.RLIMIT_AS, uint64(pageSize))
	all, onFault := f.LockAll(), f.LockContext(t.Context(), 0, f.Size(), &mmapio.LockOptions{OnFault: true})
	enough()
	check(t, all)
	check(t, onFault)
	check(t, f.VerifyLocked(0, f.Size()))
	check(t, f.UnlockAll())
	check(t, f.LockContext(t.Context(), 0, f.Size(), &mmapio.LockOptions{OnFault: true}))
	return 0
})

// What could not be found out for want of descriptors or memory is found out when
// they are to be had again.
func TestColdDescriptors(t *testing.T) {
	prove.Need(t, prove.Verify)
	file, _ := patternFile(t, 3*pageSize)
	if res := coldDescriptors.Run(t, prove.Env(coldEnv+"=1"), prove.Args(file)); res.Code != 0 {
		t.Error(res)
	}
}

func TestColdMemory(t *testing.T) {
	if raceBuild() {
		prove.Unable(t, "the race detector asks for memory of its own")
	}
	prove.Need(t, prove.Verify, prove.AddressLimit)
	file, _ := patternFile(t, 3*pageSize)
	if res := coldMemory.Run(t, prove.Env(coldEnv+"=1"), prove.Args(file)); res.Code != 0 {
		t.Error(res)
	}
}
