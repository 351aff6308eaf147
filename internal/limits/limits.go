// Package limits reads what the system lets this process lock in RAM: the
// limit and the charge of RLIMIT_MEMLOCK, the memory cgroups above the
// process, the number of mappings, and the memory that is left.
//
// Every figure is read where the kernel keeps it at the moment of the call; no
// figure is cached. Only Linux is known: elsewhere each reading function
// returns [errors.ErrUnsupported]. All functions are safe for concurrent use.
package limits

import "math"

// None is the value of a limit that is not set.
const None int64 = -1

// Memlock is what RLIMIT_MEMLOCK says, in bytes.
type Memlock struct {
	Soft, Hard int64 // None: no limit
	InUse      int64 // charged to this process now (VmLck)
	Unlimited  bool  // CAP_IPC_LOCK is effective where the kernel asks for it: the limit is not applied
}

// Room returns how many more bytes may be locked before the soft limit
// refuses; [math.MaxInt64] if nothing would.
func (m Memlock) Room() int64 {
	if m.Unlimited || m.Soft == None {
		return math.MaxInt64
	}
	return max(m.Soft-m.InUse, 0)
}

// ReadMemlock returns the limit of this process and its charge.
//
// Unlimited is false inside a user namespace whatever capabilities are held
// there, since the kernel asks for CAP_IPC_LOCK in the initial one.
func ReadMemlock() (Memlock, error) { return readMemlock() }

// Cgroup is one memory cgroup, in bytes.
type Cgroup struct {
	Path  string // its directory, such as /sys/fs/cgroup/system.slice
	Limit int64  // None: no limit
	Usage int64  // with everything below it; -1 where it is not kept (the root of v2)

	// The part of Usage that the kernel can drop again: page cache on the
	// two evictable lists. Locked pages are on neither.
	InactiveFile, ActiveFile int64
}

// Room returns how much more memory that cannot be dropped fits into c:
// limit - (usage - inactive_file - active_file), never below zero or above
// the limit, and [math.MaxInt64] if there is no limit.
//
// Going over it is answered with SIGKILL and not with an error, so look
// before each step.
func (c Cgroup) Room() int64 {
	if c.Limit < 0 {
		return math.MaxInt64
	}
	// The statistics lag behind the usage by up to two seconds, so the
	// difference may come out below zero.
	fixed := max(c.Usage-c.InactiveFile-c.ActiveFile, 0)
	return max(c.Limit-fixed, 0)
}

// Cgroups returns the memory cgroup of this process and every ancestor of it
// that can be seen, the process's own first. No kernel support for memory
// cgroups is an empty list; a hierarchy that is mounted nowhere in sight is
// an error that is [fs.ErrNotExist].
//
// Where the topmost one in sight is not the root of the system (in a
// container), its Limit on v1 covers the ancestors out of sight as well; v2
// does not tell them.
func Cgroups() ([]Cgroup, error) { return cgroups() }

// Limited reports whether any that Cgroups returns has a limit, for a fraction of
// the time, since the statistics are not read.
func Limited() (bool, error) { return limited() }

// Tightest returns the cgroup with the least [Cgroup.Room], the innermost of
// several, and false if none has a limit.
func Tightest(groups []Cgroup) (Cgroup, bool) {
	var tightest Cgroup
	found := false
	for _, c := range groups {
		if c.Limit >= 0 && (!found || c.Room() < tightest.Room()) {
			tightest, found = c, true
		}
	}
	return tightest, found
}

// Need returns the bytes of a cgroup's room that bringing in pagesMissing
// pages takes: the pages, their page tables and the page cache's index
// (0.4 %), and 1 MiB, since each CPU charges ahead in batches.
func Need(pagesMissing int64, pageSize int) int64 {
	const slack = 1 << 20
	pages, size := max(pagesMissing, 0), max(int64(pageSize), 1)
	if pages > (math.MaxInt64-slack)/size {
		return math.MaxInt64
	}
	bytes := pages * size
	extra := bytes/250 + 1 + slack
	if bytes > math.MaxInt64-extra {
		return math.MaxInt64
	}
	return bytes + extra
}

// MapCount returns how many mappings this process has (the kernel's own entry
// for vsyscall may be counted too) and vm.max_map_count, at which every
// further one fails.
func MapCount() (inUse, limit int64, err error) { return mapCount() }

// MaxMapCount returns the limit alone (vm.max_map_count), which is cheap.
func MaxMapCount() (int64, error) { return maxMapCount() }

// AddressSpace returns how many bytes this process may map, or None (RLIMIT_AS).
func AddressSpace() (int64, error) { return addressSpace() }

// Memory is what the system has, in bytes (proc_meminfo(5)).
type Memory struct {
	Total     int64 // MemTotal
	Available int64 // MemAvailable: what could be had without swapping, by the kernel's estimate
	Files     int64 // of that, pages of files that are in memory: Active(file) and Inactive(file)
	SwapFree  int64 // SwapFree: what others' memory could still be moved to
}

// Room returns what could be had at most.
func (m Memory) Room() int64 { return m.Available + m.SwapFree }

// ReadMemory returns that of now.
func ReadMemory() (Memory, error) { return readMemory() }

// FreeMemory returns how many bytes of memory nothing is in, for a fraction of the
// time. Mostly there are few, since the system fills them with pages of files.
func FreeMemory() (int64, error) { return freeMemory() }
