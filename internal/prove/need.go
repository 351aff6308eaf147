package prove

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
)

// E2EEnv is the variable that turns missing conditions into failures; CI sets it to 1.
const E2EEnv = "MMAPIO_E2E"

// EmulatedEnv set to 1 says that the binary runs under an emulator of user processes, for one that is not recognised.
const EmulatedEnv = "MMAPIO_EMULATED"

// OldEnv set to 1 says that scripts/oldlinux takes from this kernel what an older one lacks.
const OldEnv = "MMAPIO_OLDLINUX"

// old says whether a feature is missing on purpose.
func old(f Feature) bool {
	switch f {
	case Scan, Cachestat, Collapse, Populating, MapQuery:
		return os.Getenv(OldEnv) == "1"
	}
	return false
}

// A Feature is something of the machine that a proof needs. Each is tried for real, once per process.
type Feature int

// The features.
const (
	Linux      Feature = iota // a Linux kernel that answers for this process itself: no emulator between
	Root                      // effective uid 0
	Pagemap                   // /proc/self/pagemap and smaps, with a way to recognise the zero page
	Disk                      // a directory on a file system that has a disk behind it
	SwapFile                  // a swap file can be switched on and off
	MemCgroup                 // a memory cgroup can be made and limited
	LoopDevice                // a loop device can be had, and mount(8) to use it
	TmpfsMount                // a tmpfs can be mounted
	CacheDrop                 // /proc/sys/vm/drop_caches can be written
	SysctlRW                  // /proc/sys can be written
	FUSE                      // /dev/fuse can be opened
	Ext4                      // mkfs.ext4 and the kernel's ext4
	XFS                       // mkfs.xfs and the kernel's xfs
	Btrfs                     // mkfs.btrfs and the kernel's btrfs
	RaiseHard                 // CAP_SYS_RESOURCE: a hard resource limit can be raised

	// What every real machine has and an emulator of user processes may lack.
	FaultAddress // a fault on memory that is there but forbidden says where it was
	BusAddress   // so does a fault beyond the end of a file
	Advice       // madvise(2) reaches the kernel
	LockCharge   // mlock(2) is charged to this process
	Recycling    // addresses that were given back are given out again
	Children     // the kernel starts programs built for this machine
	Maps         // /proc/self/maps and /proc/self/fd are about this program
	Verify       // what the library asks the kernel about a lock is answered about this program
	Scan         // the ioctl PAGEMAP_SCAN reaches the kernel (Linux 6.7)
	Cachestat    // so does cachestat(2) (Linux 6.5)
	Collapse     // so does MADV_COLLAPSE (Linux 6.1)
	Populating   // so does MADV_POPULATE_READ (Linux 5.14)
	MapQuery     // so does the ioctl PROCMAP_QUERY (Linux 6.11)
	AddressLimit // RLIMIT_AS is kept
	Namespaces   // a child can have namespaces of its own
	Filters      // seccomp(2) takes a filter, see Refuse
	FileEnd      // memory is there to the end of the library's page in which a file ends
)

var featureNames = [...]string{
	"Linux", "root", "pagemap", "a disk", "a swap file", "a memory cgroup", "a loop device", "a tmpfs mount",
	"drop_caches", "writable /proc/sys", "FUSE", "ext4", "xfs", "btrfs", "CAP_SYS_RESOURCE",
	"the address of a fault", "the address of a fault beyond the end of a file", "madvise", "locks that are charged",
	"addresses that come back", "children",
	"/proc/self/maps", "a kernel that tells what is locked", "PAGEMAP_SCAN", "cachestat", "MADV_COLLAPSE", "MADV_POPULATE_READ", "PROCMAP_QUERY", "RLIMIT_AS", "namespaces",
	"seccomp filters",
	"whole pages at the end of a file",
}

func (f Feature) String() string {
	if f < 0 || int(f) >= len(featureNames) {
		return fmt.Sprintf("Feature(%d)", int(f))
	}
	return featureNames[f]
}

// E2E says whether missing conditions fail the test and slow proofs run.
func E2E() bool { return os.Getenv(E2EEnv) == "1" }

// Need skips the test if a feature is missing, or fails it if MMAPIO_E2E=1. On a system that could never have it the
// test is skipped even then: that is no fault of the machine's set-up.
func Need(t testing.TB, what ...Feature) {
	t.Helper()
	if why := impossible(); why != "" && len(what) == 0 {
		t.Skipf("not proved here: %s", why)
	}
	for _, f := range what {
		if why := Missing(f); why != "" {
			lack(t, f, why)
		}
	}
}

// lack skips or fails, as MMAPIO_E2E says.
func lack(t testing.TB, f Feature, why string) {
	t.Helper()
	if E2E() && impossible() == "" && !old(f) {
		t.Fatalf("%s=1, but %v is missing: %s", E2EEnv, f, why)
	}
	t.Skipf("needs %v: %s", f, why)
}

// NeedE2E skips a slow proof, or one that disturbs the machine, unless MMAPIO_E2E=1; then it is Need.
func NeedE2E(t testing.TB, what ...Feature) {
	t.Helper()
	if !E2E() {
		t.Skipf("slow or disturbs the machine: runs with %s=1", E2EEnv)
	}
	Need(t, what...)
}

// impossible says why nothing here can be asked at all, "" if it can.
func impossible() string {
	if runtime.GOOS != "linux" {
		return "the oracles are Linux's, this is " + runtime.GOOS
	}
	return Missing(Linux)
}

var (
	featureMu sync.Mutex
	features  = map[Feature]string{}
)

// Missing says why a feature is missing, "" if it is there.
func Missing(f Feature) string {
	featureMu.Lock()
	why, known := features[f]
	featureMu.Unlock()
	if known {
		return why
	}
	why = missing(f) // unlocked: one feature asks for others
	featureMu.Lock()
	defer featureMu.Unlock()
	features[f] = why
	return why
}

// Unable is for a test that finds out by trying that it cannot run: it skips
// with the reason, and fails with MMAPIO_E2E=1 where everything can be had.
func Unable(t testing.TB, format string, args ...any) {
	t.Helper()
	if E2E() && impossible() == "" {
		t.Fatalf(E2EEnv+"=1, but: "+format, args...)
	}
	t.Skipf(format, args...)
}
