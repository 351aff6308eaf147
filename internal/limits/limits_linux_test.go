package limits

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// childEnv makes the test binary report on itself instead of testing: once
// its input ends it reads the file that the variable names, if any, and
// prints a report.
const childEnv = "MMAPIO_LIMITS_CHILD"

type report struct {
	Cgroups []Cgroup
	Memlock Memlock
}

func TestMain(m *testing.M) {
	if name, ok := os.LookupEnv(childEnv); ok {
		if err := child(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(name string) error {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	if name != "" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, f); err != nil {
			return err
		}
	}
	var r report
	var err error
	if r.Cgroups, err = Cgroups(); err != nil {
		return err
	}
	if r.Memlock, err = ReadMemlock(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// run starts the child, calls placed with its pid before it does anything,
// and returns what it reports.
func run(t *testing.T, file string, attr *syscall.SysProcAttr, placed func(pid int)) (report, error) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+file)
	cmd.SysProcAttr = attr
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		return report{}, err
	}
	placed(cmd.Process.Pid)
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("child: %v\n%s", err, errs.String())
	}
	var r report
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
		t.Fatalf("child said %q: %v", out.String(), err)
	}
	return r, nil
}

// lacking skips a test that cannot run here, except where CI promises that
// it can.
func lacking(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("MMAPIO_E2E") == "1" {
		t.Fatalf("MMAPIO_E2E=1, but "+format, args...)
	}
	t.Skipf(format, args...)
}

func notEmulated(t *testing.T) {
	t.Helper()
	if os.Getenv("MMAPIO_EMULATED") == "1" {
		lacking(t, "linux/%s under an emulator, which answers for itself: mappings, namespaces and memory are not the program's", runtime.GOARCH)
	}
}

func TestMemlockOfThisProcess(t *testing.T) {
	notEmulated(t)
	before, err := ReadMemlock()
	if err != nil {
		t.Fatal(err)
	}
	var rl unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &rl); err != nil {
		t.Fatal(err)
	}
	want := func(v uint64) int64 {
		if v == unix.RLIM_INFINITY {
			return None
		}
		return int64(v)
	}
	if before.Soft != want(rl.Cur) || before.Hard != want(rl.Max) {
		t.Errorf("limits %d, %d; getrlimit says %d, %d", before.Soft, before.Hard, rl.Cur, rl.Max)
	}
	page := unix.Getpagesize()
	if before.Room() < int64(page) {
		lacking(t, "RLIMIT_MEMLOCK has no room for a page (soft %d, in use %d)", before.Soft, before.InUse)
	}
	b, err := unix.Mmap(-1, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	if err := unix.Mlock(b); err != nil {
		t.Fatal(err)
	}
	after, err := ReadMemlock()
	if err != nil || after.InUse-before.InUse != int64(page) {
		t.Errorf("locking %d bytes changed InUse from %d to %d, %v", page, before.InUse, after.InUse, err)
	}
}

// In a user namespace every capability is held, and none of them lifts the limit.
func TestMemlockInUserNamespace(t *testing.T) {
	notEmulated(t)
	r, err := run(t, "", &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}, func(int) {})
	if err != nil {
		lacking(t, "no user namespace can be made: %v", err)
	}
	if r.Memlock.Unlimited {
		t.Errorf("Unlimited in a user namespace: %+v", r.Memlock)
	}
}

func TestMapCountOfThisProcess(t *testing.T) {
	notEmulated(t)
	before, limit, err := MapCount()
	if err != nil || before <= 0 || limit < before {
		t.Fatalf("%d of %d, %v", before, limit, err)
	}
	// Every other page with another protection is a mapping of its own.
	const n = 200
	page := unix.Getpagesize()
	b, err := unix.Mmap(-1, 0, n*page, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	for i := 1; i < n; i += 2 {
		if err := unix.Mprotect(b[i*page:(i+1)*page], unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	// The runtime may add or join a few of its own meanwhile.
	after, _, err := MapCount()
	if grown := after - before; err != nil || grown < n-20 || grown > n+20 {
		t.Errorf("%d new mappings counted as %d, %v", n, grown, err)
	}
}

func TestMemoryOfThisMachine(t *testing.T) {
	notEmulated(t)
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		t.Fatal(err)
	}
	total := int64(si.Totalram) * int64(si.Unit)
	if m, err := ReadMemory(); err != nil || m.Total < total/2 || m.Total > total || m.Available <= 0 || m.Available > total || m.Files < 0 || m.Files > total {
		t.Errorf("%+v of %d, %v", m, total, err)
	}
	if n, err := FreeMemory(); err != nil || n <= 0 || n > total {
		t.Errorf("%d of %d free, %v", n, total, err)
	}
}

func TestCgroupsOfThisProcess(t *testing.T) {
	groups, err := Cgroups()
	if err != nil {
		t.Fatal(err)
	}
	if len(groups) == 0 {
		lacking(t, "this system has no memory cgroups")
	}
	t.Logf("%+v", groups)
	if !system().lists(groups[0].Path) {
		t.Errorf("%s does not list process %d", groups[0].Path, os.Getpid())
	}
	if c := groups[0]; c.Usage == 0 {
		t.Errorf("no usage, and yet this process is in it: %+v", c)
	}
}

// makeCgroup makes a memory cgroup with a limit where this process may.
func makeCgroup(t *testing.T, limit int64) (dir string, parents []Cgroup) {
	t.Helper()
	groups, err := Cgroups()
	if err != nil {
		t.Fatal(err)
	}
	for i, parent := range groups {
		limitFile := v1.limit
		if enabled, err := os.ReadFile(filepath.Join(parent.Path, "cgroup.subtree_control")); err == nil {
			limitFile = v2.limit
			if !strings.Contains(" "+string(enabled), " memory") {
				continue // children of it have no memory controller
			}
		}
		dir, err := os.MkdirTemp(parent.Path, "mmapio-limits-")
		if err != nil {
			lacking(t, "no cgroup can be made: %v", err)
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Errorf("the cgroup stays: %v", err)
			}
		})
		if err := os.WriteFile(filepath.Join(dir, limitFile), fmt.Append(nil, limit), 0); err != nil {
			lacking(t, "no limit can be set: %v", err)
		}
		return dir, groups[i:]
	}
	lacking(t, "no cgroup in sight hands the memory controller down")
	return "", nil
}

func TestCgroupsInsideALimit(t *testing.T) {
	if os.Getuid() != 0 {
		lacking(t, "only root makes cgroups")
	}
	notEmulated(t)
	const limit, fileSize = 48 << 20, 96 << 20
	dir, parents := makeCgroup(t, limit)
	file := filepath.Join(t.TempDir(), "big")
	// Reading a hole fills the page cache as reading data does, without a disk.
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, fileSize); err != nil {
		t.Fatal(err)
	}

	r, err := run(t, file, nil, func(pid int) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, pid), 0); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Cgroups) != 1+len(parents) {
		t.Fatalf("saw %+v from inside %s", r.Cgroups, dir)
	}
	own := r.Cgroups[0]
	if own.Path != dir || own.Limit != limit {
		t.Errorf("own cgroup is %+v, want %s with %d", own, dir, limit)
	}
	for i, p := range parents {
		if got := r.Cgroups[i+1]; got.Path != p.Path || got.Limit != p.Limit {
			t.Errorf("ancestor %d is %+v, was %+v from outside", i+1, got, p)
		}
	}
	if tight, ok := Tightest(r.Cgroups); !ok || tight.Limit > limit {
		t.Errorf("the tightest is %+v, %v", tight, ok)
	}
	// Twice the limit went through the page cache: the cgroup is as good as
	// full, and most of that can be dropped again. The rest is the child's
	// own memory, a quarter of the limit under the race detector.
	if own.Usage < limit*3/4 || own.Room() < limit/2 || own.Room() > limit {
		t.Errorf("after reading %d bytes: %+v, room %d", fileSize, own, own.Room())
	}
}

// A file that is kept open is read as it is now, also if it is longer than expected.
func TestKeptFiles(t *testing.T) {
	kept := &keptFiles{FS: system()}
	defer kept.close()
	for _, size := range []int{0, 1, 511, 512, 513, 5000} {
		name := filepath.Join(t.TempDir(), "memory.stat")
		for _, c := range "xy" {
			want := strings.Repeat(string(c), size)
			if err := os.WriteFile(name, []byte(want), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := root{kept}.read(inFS(name))
			if err != nil || got != want {
				t.Errorf("%d of %d bytes, %v", len(got), size, err)
			}
		}
	}
}

// Whether there is a limit is asked anew each time, though the files stay open: a
// process that is moved, and a limit that is set or taken away, are noticed at once.
func TestLimitedIsOfNow(t *testing.T) {
	if os.Getuid() != 0 {
		lacking(t, "only root makes cgroups")
	}
	notEmulated(t)
	const limit int64 = 4 << 30
	dir, _ := makeCgroup(t, limit)
	if limited, err := Limited(); err != nil || limited {
		lacking(t, "there is a limit already: %v, %v", limited, err)
	}
	own, err := Cgroups()
	if err != nil {
		t.Fatal(err)
	}
	move := func(to string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(to, "cgroup.procs"), fmt.Append(nil, os.Getpid()), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { move(own[0].Path) }) // the other one is removed then
	set := func(to string) {
		t.Helper()
		name, word := v1.limit, to
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			name, word = v2.limit, strings.Replace(to, v1.none, v2.none, 1)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(word), 0); err != nil {
			t.Fatal(err)
		}
	}
	is := func(what string, want bool) {
		t.Helper()
		if limited, err := Limited(); err != nil || limited != want {
			t.Errorf("%s: limited %v, %v", what, limited, err)
		}
	}
	for range 2 {
		move(dir)
		is("moved into the limit", true)
		set(v1.none)
		is("limit taken away", false)
		set(fmt.Sprint(limit))
		is("limit set", true)
		move(own[0].Path)
		is("moved back", false)
	}
}
