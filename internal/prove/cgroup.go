package prove

import "testing"

// A Cgroup is a memory cgroup that lasts as long as a test. Processes enter by Join or by the In option of a child.
type Cgroup struct {
	Dir     string // where the kernel shows it
	Version int    // 1 or 2: which hierarchy has the memory controller

	home map[int]string // where the processes that joined came from
}

// MemoryCgroup makes a memory cgroup that may use limit bytes, swap not counted, and that swaps eagerly. When the test
// ends, processes that joined go back where they were and any others in it are killed.
func MemoryCgroup(t testing.TB, limit int64) *Cgroup {
	t.Helper()
	Need(t, MemCgroup)
	return newCgroup(t, limit)
}

// Join moves a process into the cgroup (0 is this one: then all memory that it uses from now on is charged here, and
// what it had before stays charged where it was).
func (c *Cgroup) Join(t testing.TB, pid int) {
	t.Helper()
	c.join(t, pid)
}

// Usage is how much memory is charged, in bytes.
func (c *Cgroup) Usage(t testing.TB) int64 {
	t.Helper()
	return c.number(t, "memory.usage_in_bytes", "memory.current")
}

// Limit is how much memory may be charged, in bytes.
func (c *Cgroup) Limit(t testing.TB) int64 {
	t.Helper()
	return c.number(t, "memory.limit_in_bytes", "memory.max")
}

// SetLimit changes the limit, pushing out what no longer fits.
func (c *Cgroup) SetLimit(t testing.TB, limit int64) { t.Helper(); c.setLimit(t, limit) }

// ForceEmpty makes the kernel give back every page charged to the cgroup that can be given back, whatever uses it: page
// cache is dropped, private memory goes to swap if there is any. Locked pages stay.
func (c *Cgroup) ForceEmpty(t testing.TB) { t.Helper(); c.forceEmpty(t) }
