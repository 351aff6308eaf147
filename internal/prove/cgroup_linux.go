package prove

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

type cgroupRoot struct {
	dir     string
	version int
}

// memoryRoot finds the hierarchy that has the memory controller: version 1 mounts it by name, version 2 lists it.
var memoryRoot = sync.OnceValues(func() (cgroupRoot, string) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return cgroupRoot{}, err.Error()
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		if f[2] == "cgroup" && hasWord(f[3], ",", "memory") {
			return cgroupRoot{f[1], 1}, ""
		}
		if f[2] == "cgroup2" {
			have, _ := os.ReadFile(filepath.Join(f[1], "cgroup.controllers"))
			if hasWord(strings.TrimSpace(string(have)), " ", "memory") {
				return cgroupRoot{f[1], 2}, ""
			}
		}
	}
	return cgroupRoot{}, "no cgroup hierarchy with a memory controller is mounted"
})

func hasWord(list, separator, word string) bool {
	return strings.Contains(separator+list+separator, separator+word+separator)
}

func tryCgroup() string {
	c, undo, err := makeCgroup(64 << 20)
	if err != nil {
		return err.Error()
	}
	_, err = os.ReadFile(filepath.Join(c.Dir, "cgroup.procs"))
	if err := errors.Join(err, undo()); err != nil {
		return err.Error()
	}
	return ""
}

func makeCgroup(limit int64) (c *Cgroup, undo func() error, err error) {
	root, why := memoryRoot()
	if why != "" {
		return nil, nil, errors.New(why)
	}
	if root.version == 2 {
		// Refused (EBUSY) where processes sit in the root of a container's own hierarchy.
		if err := os.WriteFile(filepath.Join(root.dir, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
			return nil, nil, err
		}
	}
	dir := filepath.Join(root.dir, fmt.Sprintf("mmapio-prove-%d-%d", os.Getpid(), entries.Add(1)))
	undo, err = record(entry{Kind: "cgroup", Path: dir})
	if err != nil {
		return nil, nil, err
	}
	c = &Cgroup{Dir: dir, Version: root.version, home: map[int]string{}}
	if err = os.Mkdir(dir, 0o755); err == nil { //nolint:gosec // the kernel's directory: others may look
		err = c.write("memory.limit_in_bytes", "memory.max", strconv.FormatInt(limit, 10))
	}
	if err != nil {
		return nil, nil, errors.Join(err, undo())
	}
	if root.version == 1 {
		_ = os.WriteFile(filepath.Join(dir, "memory.swappiness"), []byte("100"), 0) // version 2 has none of its own
	}
	return c, undo, nil
}

func newCgroup(t testing.TB, limit int64) *Cgroup {
	t.Helper()
	c, undo, err := makeCgroup(limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.sendHome(), undo()); err != nil {
			t.Errorf("undo cgroup %s: %v", c.Dir, err)
		}
	})
	return c
}

func (c *Cgroup) path(v1, v2 string) string {
	if c.Version == 1 {
		return filepath.Join(c.Dir, v1)
	}
	return filepath.Join(c.Dir, v2)
}

func (c *Cgroup) write(v1, v2, value string) error {
	return os.WriteFile(c.path(v1, v2), []byte(value), 0)
}

func (c *Cgroup) number(t testing.TB, v1, v2 string) int64 {
	t.Helper()
	text, err := os.ReadFile(c.path(v1, v2))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (c *Cgroup) setLimit(t testing.TB, limit int64) {
	t.Helper()
	err := insist(5*time.Second, func() error {
		return c.write("memory.limit_in_bytes", "memory.max", strconv.FormatInt(limit, 10))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c *Cgroup) join(t testing.TB, pid int) {
	t.Helper()
	if pid == 0 {
		pid = os.Getpid()
	}
	root, _ := memoryRoot()
	text, err := os.ReadFile(procFile(pid, "cgroup"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && (root.version == 1 && hasWord(f[1], ",", "memory") || root.version == 2 && f[0] == "0") {
			c.home[pid] = filepath.Join(root.dir, f[2])
		}
	}
	if err := os.WriteFile(filepath.Join(c.Dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
}

// sendHome moves the processes that joined back where they came from.
func (c *Cgroup) sendHome() error {
	var errs []error
	for pid, home := range c.home {
		if _, err := os.Stat(home); err != nil {
			home = filepath.Dir(c.Dir) // a container that sees the host's names, but its own part of the tree only
		}
		err := os.WriteFile(filepath.Join(home, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
		if err != nil && !errors.Is(err, syscall.ESRCH) { // ended meanwhile
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (c *Cgroup) forceEmpty(t testing.TB) {
	t.Helper()
	if c.Version == 1 {
		if err := c.write("memory.force_empty", "", "0"); err != nil && !errors.Is(err, syscall.EBUSY) {
			t.Fatal(err)
		}
		return
	}
	// Version 2 is asked for an amount, and says EAGAIN when it got less: until it gets nothing more.
	for before := int64(-1); ; {
		usage := c.Usage(t)
		if usage == 0 || usage == before {
			return
		}
		before = usage
		err := c.write("", "memory.reclaim", strconv.FormatInt(usage, 10))
		if err != nil && !errors.Is(err, syscall.EAGAIN) {
			t.Fatal(err)
		}
	}
}

// undoCgroup ends what is still in it: children of the test that made it, or of a run that died.
func undoCgroup(e entry) error {
	text, err := os.ReadFile(filepath.Join(e.Path, "cgroup.procs"))
	if err != nil {
		if os.IsNotExist(err) {
			return nil
		}
		return err
	}
	for _, word := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 1 && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return insist(5*time.Second, func() error { return syscall.Rmdir(e.Path) })
}
