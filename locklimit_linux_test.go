package mmapio_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// refused wants an error of lockall with a cause, an errno and a text, in which
// PATH stands for the name of the File.
func refused(t testing.TB, f *mmapio.File, err error, cause mmapio.LockCause, errno syscall.Errno, text string) {
	t.Helper()
	var e *mmapio.LockError
	text = strings.ReplaceAll(text, "PATH", f.Name())
	if !errors.As(err, &e) || e.Cause != cause || !errors.Is(err, errno) || err.Error() != text {
		t.Errorf("got %v\nwant %v, %v: %s", err, cause, errno, text)
	}
	if got := errors.Is(err, fs.ErrPermission); got != (cause == mmapio.CausePermission) {
		t.Errorf("%v is fs.ErrPermission: %v", err, got)
	}
}

// A limitCase is what a process without privilege meets under a limit, with a
// file of 1 MiB. VmLck is 0 before.
type limitCase struct {
	soft, hard int64
	body       func(t testing.TB, f *mmapio.File)
}

const raise1M = "raise it: systemd LimitMEMLOCK=1M, docker --ulimit memlock=1048576, limits.conf, or grant CAP_IPC_LOCK"

var limitCases = map[string]limitCase{
	"nothing": {0, 0, func(t testing.TB, f *mmapio.File) {
		check(t, f.Lock(5, 0)) // with this limit an empty mlock(2) is EPERM
		refused(t, f, f.LockAll(), mmapio.CausePermission, syscall.EPERM,
			"lockall PATH [0, 1048576): needs 1.0 MiB, and this process may lock nothing: RLIMIT_MEMLOCK is 0 (soft 0, hard 0); "+raise1M)
		heldBytes(t, f, 0)
	}},
	"too small": {256 * kib, 256 * kib, func(t testing.TB, f *mmapio.File) {
		refused(t, f, f.LockAll(), mmapio.CauseLimit, syscall.ENOMEM,
			"lockall PATH [0, 1048576): needs 1.0 MiB, 0 B locked so far, RLIMIT_MEMLOCK is 256.0 KiB (soft 262144, hard 262144); "+raise1M)
		heldBytes(t, f, 0)
		check(t, f.Lock(0, 64*kib))
		refused(t, f, f.LockAll(), mmapio.CauseLimit, syscall.ENOMEM,
			"lockall PATH [0, 1048576): needs 960.0 KiB, 64.0 KiB locked so far, RLIMIT_MEMLOCK is 256.0 KiB (soft 262144, hard 262144); "+raise1M)
		heldBytes(t, f, 64*kib)
		check(t, f.Lock(0, 256*kib)) // what is locked counts once
		heldBytes(t, f, 256*kib)
		check(t, f.UnlockAll())
		heldBytes(t, f, 0)
	}},
	"just right": {mib, mib, func(t testing.TB, f *mmapio.File) {
		check(t, f.LockAll())
		heldBytes(t, f, mib)
		one, err := mmapio.Anonymous(64*kib, nil)
		check(t, err)
		defer one.Close()
		refused(t, one, one.LockAll(), mmapio.CauseLimit, syscall.ENOMEM,
			"lockall PATH [0, 65536): needs 64.0 KiB, 1.0 MiB locked so far, RLIMIT_MEMLOCK is 1.0 MiB (soft 1048576, hard 1048576); "+
				"raise it: systemd LimitMEMLOCK=2M, docker --ulimit memlock=2097152, limits.conf, or grant CAP_IPC_LOCK")
		prove.AssertNotHeld(t, memoryOf(t, one))
		heldBytes(t, f, mib)
		check(t, f.Unlock(0, 64*kib))
		check(t, one.LockAll())
		prove.AssertHeld(t, memoryOf(t, one))
	}},
	"soft": {256 * kib, mib, func(t testing.TB, f *mmapio.File) {
		refused(t, f, f.LockAll(), mmapio.CauseLimit, syscall.ENOMEM,
			"lockall PATH [0, 1048576): needs 1.0 MiB, 0 B locked so far, RLIMIT_MEMLOCK is 256.0 KiB (soft 262144, hard 1048576); "+
				"the soft limit may be raised by the process itself: call RaiseLockLimit, or ulimit -l 1024")
		heldBytes(t, f, 0)
		raised(t, f)
	}},
	"soft nothing": {0, mib, func(t testing.TB, f *mmapio.File) {
		refused(t, f, f.LockAll(), mmapio.CausePermission, syscall.EPERM,
			"lockall PATH [0, 1048576): needs 1.0 MiB, and this process may lock nothing: RLIMIT_MEMLOCK is 0 (soft 0, hard 1048576); "+
				"the soft limit may be raised by the process itself: call RaiseLockLimit, or ulimit -l 1024")
		heldBytes(t, f, 0)
		raised(t, f)
	}},
}

// heldBytes wants the first n bytes held and nothing else, as VmFlags, presence
// and VmLck have it.
func heldBytes(t testing.TB, f *mmapio.File, n int64) {
	t.Helper()
	want := make([]bool, f.Size()/pageSize)
	for i := range n / pageSize {
		want[i] = true
	}
	holdsPages(t, f, want)
	if got := prove.VmLck(t, 0); got != n {
		t.Errorf("VmLck is %d, want %d", got, n)
	}
}

func raised(t testing.TB, f *mmapio.File) {
	t.Helper()
	lim, err := mmapio.RaiseLockLimit()
	if want := (mmapio.LockLimits{Soft: mib, Hard: mib}); err != nil || lim != want {
		t.Errorf("RaiseLockLimit: %+v, %v, want %+v", lim, err, want)
	}
	check(t, f.LockAll())
	heldBytes(t, f, mib)
	lim, err = mmapio.ReadLockLimits()
	if want := (mmapio.LockLimits{Soft: mib, Hard: mib, InUse: mib}); err != nil || lim != want {
		t.Errorf("ReadLockLimits: %+v, %v, want %+v", lim, err, want)
	}
}

var limited = prove.Register("limited", func(args []string) int {
	t, c := prove.T(), limitCases[args[0]]
	lim, err := mmapio.ReadLockLimits()
	if want := (mmapio.LockLimits{Soft: c.soft, Hard: c.hard}); err != nil || lim != want {
		t.Errorf("ReadLockLimits: %+v, %v, want %+v", lim, err, want)
	}
	for _, mode := range []mmapio.Mode{mmapio.ReadOnly, mmapio.CopyOnWrite} {
		f, err := mmapio.OpenFile(args[1], &mmapio.Options{Mode: mode})
		check(t, err)
		c.body(t, f)
		check(t, f.Close())
		if c.soft != c.hard {
			break // it is raised now
		}
	}
	return 0
})

// Without privilege each limit has a cause, numbers and a remedy of its own,
// and afterwards the kernel holds what it held before.
func TestProofLockLimits(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Scan)
	path := prove.NewFile(t, prove.PublicDir(t), "f", mib)
	check(t, os.Chmod(path, 0o644)) // whatever the umask
	for name, c := range limitCases {
		t.Run(name, func(t *testing.T) {
			limit := prove.Limit(prove.LockedMemory, uint64(c.soft), uint64(c.hard))
			if res := limited.Run(t, asUser(limit, prove.Args(name, path))...); res.Code != 0 {
				t.Error(res)
			}
		})
	}
}

// In a user namespace of its own a process has every capability, and the limit
// counts all the same: rootless containers. Nothing says so before the kernel
// refuses.
func TestLockLimitInUserNamespace(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Namespaces, prove.Scan)
	const env = "MMAPIO_TEST_USER_NAMESPACE"
	if os.Getenv(env) == "1" {
		check(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: mib, Max: mib}))
		f, err := mmapio.Anonymous(3*mib, nil)
		check(t, err)
		refused(t, f, f.LockAll(), mmapio.CauseLimit, syscall.ENOMEM,
			"lockall PATH [0, 3145728): needs 3.0 MiB, 0 B locked so far, RLIMIT_MEMLOCK is 1.0 MiB (soft 1048576, hard 1048576); "+
				"raise it: systemd LimitMEMLOCK=4M, docker --ulimit memlock=4194304, limits.conf, or grant CAP_IPC_LOCK")
		heldBytes(t, f, 0)
		check(t, f.Lock(0, mib))
		heldBytes(t, f, mib)
		check(t, f.Close())
		return
	}
	var limit unix.Rlimit
	if check(t, unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit)); limit.Max < mib {
		prove.Unable(t, "RLIMIT_MEMLOCK is %d", limit.Max)
	}
	inUserNamespace(t, 0, env+"=1")
}

// A hole in a file on a full tmpfs has no memory to be locked in.
func TestProofLockNoSpace(t *testing.T) {
	prove.NeedE2E(t, prove.TmpfsMount, prove.Pagemap)
	dir := prove.SmallTmpfs(t, mib)
	path := filepath.Join(dir, "holes")
	check(t, os.WriteFile(path, []byte("x"), 0o600))
	check(t, os.Truncate(path, 8*pageSize))
	for fill := make([]byte, 64*kib); ; {
		file, err := os.OpenFile(filepath.Join(dir, "full"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		check(t, err)
		_, err = file.Write(fill)
		check(t, file.Close())
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		check(t, err)
	}
	for _, mode := range allModes {
		t.Run(mode.String(), func(t *testing.T) {
			f := mustOpen(t, path, &mmapio.Options{Mode: mode})
			check(t, f.Lock(0, pageSize))
			err := f.LockAll()
			var e *mmapio.LockError
			if !errors.As(err, &e) || e.Cause != mmapio.CauseMemory || !strings.Contains(err.Error(), fmt.Sprintf("at offset %d", pageSize)) ||
				!strings.Contains(err.Error(), "make room on the file system") {
				t.Errorf("%v: %v", mode, err)
			}
			if !errors.Is(err, syscall.ENOSPC) { // found by asking for a block, or the file system for room
				t.Error(err)
			}
			holds(t, f, "#.......")
			g := mustOpen(t, path, &mmapio.Options{Mode: mode, DropFD: true})
			if err := g.LockAll(); !errors.As(err, &e) || e.Cause != mmapio.CauseMemory || !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%v, DropFD: %v", mode, err)
			}
		})
	}
}

// crowded uses up all mappings that it may have before it locks a page in the
// middle of a File, for which the kernel needs two more.
var crowded = prove.Register("crowded", func([]string) int {
	t := prove.T()
	f := opened(t)(mmapio.Anonymous(4*pageSize, nil))
	check(t, f.Lock(0, pageSize))
	debug.SetGCPercent(-1) // what was made here is there to be used
	check(t, unix.Munmap(must(unix.Mmap(-1, 0, 1, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON))))
	b := must(unix.Mmap(-1, 0, int(2*fewMaps*pageSize), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON))
	for i := pageSize; unix.Mprotect(b[i:i+pageSize], unix.PROT_READ) == nil; i += 2 * pageSize {
	}
	err := f.Lock(2*pageSize, pageSize)
	check(t, unix.Munmap(b))
	var e *mmapio.LockError
	text := fmt.Sprintf("the process has %d of the %[1]d mappings that vm.max_map_count allows", fewMaps)
	if !errors.As(err, &e) || e.Cause != mmapio.CauseMapCount || !errors.Is(err, syscall.ENOMEM) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %q", err, text)
	}
	holds(t, f, "#...")
	check(t, f.Lock(2*pageSize, pageSize))
	holds(t, f, "#.#.")
	return 0
})

// The same refusal by the kernel, when others have taken the mappings.
func TestProofLockOutOfMappings(t *testing.T) {
	prove.NeedE2E(t, prove.SysctlRW, prove.Pagemap)
	prove.Sysctl(t, "vm.max_map_count", strconv.Itoa(fewMaps))
	if res := crowded.Run(t); res.Code != 0 {
		t.Error(res)
	}
}

func must[T any](v T, err error) T {
	check(prove.T(), err)
	return v
}

// The text says what was found in one line, numbers and remedy included.
func TestLockErrorText(t *testing.T) {
	t.Chdir(t.TempDir())
	check(t, os.Mkdir("idx", 0o700))
	f, err := mmapio.OpenFile("idx/a.dat", &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: 20 << 20, Sparse: true})
	check(t, err)
	defer f.Close()
	refused := func(soft, hard, inUse int64) error {
		return mmapio.RefusedWith(f, mmapio.LockLimits{Soft: soft, Hard: hard, InUse: inUse})
	}

	for _, tc := range []struct {
		err  error
		want string
	}{
		{
			refused(8*mib, 8*mib, 0), // the design's example
			"lock idx/a.dat [0, 20971520): needs 20.0 MiB, 0 B locked so far, RLIMIT_MEMLOCK is 8.0 MiB (soft 8388608, hard 8388608); " +
				"raise it: systemd LimitMEMLOCK=32M, docker --ulimit memlock=33554432, limits.conf, or grant CAP_IPC_LOCK",
		}, {
			refused(64<<10, 8*mib, 4096),
			"lock idx/a.dat [0, 20971520): needs 20.0 MiB, 4.0 KiB locked so far, RLIMIT_MEMLOCK is 64.0 KiB (soft 65536, hard 8388608); " +
				"raise it: systemd LimitMEMLOCK=32M, docker --ulimit memlock=33554432, limits.conf, or grant CAP_IPC_LOCK",
		}, {
			refused(64<<10, 8*mib, -1), // as where the system does not tell what is locked
			"lock idx/a.dat [0, 20971520): needs 20.0 MiB, RLIMIT_MEMLOCK is 64.0 KiB (soft 65536, hard 8388608); " +
				"raise it: systemd LimitMEMLOCK=32M, docker --ulimit memlock=33554432, limits.conf, or grant CAP_IPC_LOCK",
		}, {
			refused(24*mib, 24*mib, 12*mib), // no more than is needed
			"lock idx/a.dat [0, 20971520): needs 20.0 MiB, 12.0 MiB locked so far, RLIMIT_MEMLOCK is 24.0 MiB (soft 25165824, hard 25165824); " +
				"raise it: systemd LimitMEMLOCK=32M, docker --ulimit memlock=33554432, limits.conf, or grant CAP_IPC_LOCK",
		}, {
			refused(8*mib, 21*mib, mib),
			"lock idx/a.dat [0, 20971520): needs 20.0 MiB, 1.0 MiB locked so far, RLIMIT_MEMLOCK is 8.0 MiB (soft 8388608, hard 22020096); " +
				"the soft limit may be raised by the process itself: call RaiseLockLimit, or ulimit -l 21504",
		}, {
			refused(8*mib, -1, 0),
			"lock idx/a.dat [0, 20971520): needs 20.0 MiB, 0 B locked so far, RLIMIT_MEMLOCK is 8.0 MiB (soft 8388608, hard unlimited); " +
				"the soft limit may be raised by the process itself: call RaiseLockLimit, or ulimit -l unlimited",
		}, {
			refused(64<<10, 8*mib, -1), // more than the limit, whatever is locked
			"lock idx/a.dat [0, 20971520): needs 20.0 MiB, RLIMIT_MEMLOCK is 64.0 KiB (soft 65536, hard 8388608); " +
				"raise it: systemd LimitMEMLOCK=32M, docker --ulimit memlock=33554432, limits.conf, or grant CAP_IPC_LOCK",
		}, {
			refused(20*mib-1, -1, -1),
			"lock idx/a.dat [0, 20971520): needs 20.0 MiB, RLIMIT_MEMLOCK is 20.0 MiB (soft 20971519, hard unlimited); " +
				"the soft limit may be raised by the process itself: call RaiseLockLimit, or ulimit -l unlimited",
		}, {
			refused(0, 0, 0),
			"lock idx/a.dat [0, 20971520): needs 20.0 MiB, and this process may lock nothing: RLIMIT_MEMLOCK is 0 (soft 0, hard 0); " +
				"raise it: systemd LimitMEMLOCK=32M, docker --ulimit memlock=33554432, limits.conf, or grant CAP_IPC_LOCK",
		}, {
			mmapio.RefusedMapCount(32766, 65530),
			"lock f [8192, 8193): locks in separate places need a mapping each: 32766 would be in use for them, " +
				"half of vm.max_map_count (65530) is allowed; lock larger ranges, or raise it: sysctl vm.max_map_count=131060",
		}, {
			mmapio.RefusedCgroup(1<<30, "/sys/fs/cgroup/a.slice", 512*mib, 300*mib, 20*mib, 80*mib),
			"lockall f [0, 1073741824): needs 1.0 GiB of memory, and cgroup /sys/fs/cgroup/a.slice has room for 312.0 MiB " +
				"(limit 536870912, in use 314572800, of that 104857600 droppable); the kernel would kill the process; " +
				"raise the limit of that cgroup (systemd MemoryMax=, docker --memory, memory.max), or lock less",
		}, {
			&mmapio.LockError{Op: "lock", Path: "f", Off: 1, Len: 2, Cause: mmapio.CauseMemory, Err: fs.ErrInvalid},
			"lock f [1, 3): memory: invalid argument",
		},
	} {
		if got := tc.err.Error(); got != tc.want {
			t.Errorf("got  %s\nwant %s", got, tc.want)
		}
	}
	for soft, want := range map[int64]mmapio.LockCause{20*mib - 1: mmapio.CauseLimit, 20 * mib: mmapio.CauseUnknown} {
		var e *mmapio.LockError
		if err := refused(soft, soft, -1); !errors.As(err, &e) || e.Cause != want {
			t.Errorf("20 MiB, limit %d, not known how much is locked: got %v, want %v", soft, err, want)
		}
	}
	for _, c := range []struct {
		need, step int64
		limit      bool
	}{
		{64 * kib, 4 * kib, true}, // the rest is too much
		{4 * kib, 4 * kib, false},
		{4 * kib, 64 * kib, false}, // most of it is locked already
	} {
		got := mmapio.RefusedStep(c.need, c.step, mmapio.LockLimits{Soft: 64 * kib, Hard: 64 * kib, InUse: 60 * kib})
		if (got == mmapio.CauseLimit) != c.limit {
			t.Errorf("%+v: got %v", c, got)
		}
	}
	causes := []string{"unknown", "limit", "permission", "map count", "memory", "beyond end of file", "cgroup", "LockCause(7)"}
	for i, want := range causes {
		if got := mmapio.LockCause(i).String(); got != want {
			t.Errorf("cause %d is %q, want %q", i, got, want)
		}
	}
}
