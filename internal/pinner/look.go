package pinner

import (
	"errors"
	"runtime"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/limits"
)

// A machine is what requirements are held against. What this system does not
// have is absent; what could not be found out is among the doubts.
type machine struct {
	memlock   *limits.Memlock
	maps      *mapLimit
	available *int64
	cgroups   []limits.Cgroup
	doubts    []Requirement
}

type mapLimit struct{ inUse, limit int64 }

func look() (m machine) {
	if l, err := lockLimits(); m.found("RLIMIT_MEMLOCK", err) {
		m.memlock = &l
	}
	if mem, err := limits.ReadMemory(); m.found("memory", err) {
		m.available = &mem.Available
	}
	if all, err := limits.Cgroups(); m.found("cgroup", err) {
		m.cgroups = all
	}
	if inUse, limit, err := limits.MapCount(); m.found("vm.max_map_count", err) {
		m.maps = &mapLimit{inUse, limit}
	}
	return m
}

func (m *machine) found(name string, err error) bool {
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		m.doubts = append(m.doubts, Requirement{
			Name: name, Need: Unknown, Have: Unknown, Verdict: Doubtful, Fact: "cannot be read: " + err.Error(),
		})
	}
	return err == nil
}

// lockLimits asks the library where package limits finds out nothing, as without /proc:
// the library knows the limit, though not how much is locked. On Windows there is no
// limit to speak of: the quota grows with what is locked.
func lockLimits() (limits.Memlock, error) {
	l, err := limits.ReadMemlock()
	if err != nil && runtime.GOOS != "windows" {
		from, err := mmapio.ReadLockLimits()
		return limits.Memlock(from), err
	}
	return l, err
}

// hasCapabilities says whether a privilege does away with RLIMIT_MEMLOCK that
// can be had without being root.
const hasCapabilities = runtime.GOOS == "linux" || runtime.GOOS == "android"
