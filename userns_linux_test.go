package mmapio_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// inUserNamespace runs the test once more, in a user namespace where this user is
// known as uid and no other user is known.
func inUserNamespace(t *testing.T, uid int, env ...string) {
	t.Helper()
	self, err := os.Executable()
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	child := exec.CommandContext(ctx, self, "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), env...)
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Geteuid(), Size: 1}},
	}
	out, err := child.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.ENOSYS) {
		prove.Unable(t, "no user namespaces here: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Of a file whose owner its user namespace does not know, a process is told by
// mincore(2) that all of it is in RAM, also with every capability there, and also
// if its own number is the one that unknown owners are shown with.
func TestResidencyInUserNamespace(t *testing.T) {
	const env = "MMAPIO_TEST_RESIDENCY_NAMESPACE"
	ask := func(name string) mmapio.Residency {
		t.Helper()
		f := mustOpen(t, filepath.Join(os.Getenv(env), name), &mmapio.Options{DropFD: true})
		defer f.Close()
		r, err := f.Residency(0, f.Size())
		check(t, err)
		return r
	}
	if os.Getenv(env) != "" {
		if r := ask("theirs"); r.Resident != -1 {
			t.Errorf("of a file of holes that nobody has looked at: %+v", r)
		}
		if r := ask("own"); os.Geteuid() == 0 && r.Resident != 64 {
			t.Errorf("of a file that was just written: %+v", r)
		}
		return
	}
	prove.Need(t, prove.Root, prove.Namespaces, prove.Scan, prove.Pagemap)
	prove.Quiet(t)
	dir := t.TempDir()
	prove.NewFile(t, dir, "own", 64*pageSize)
	theirs := filepath.Join(dir, "theirs")
	spots(t, theirs)
	check(t, os.Chmod(theirs, 0o644))
	if err := os.Chown(theirs, 12345, 12345); err != nil {
		prove.Unable(t, "chown: %v", err)
	}
	for _, uid := range []int{0, 65534} {
		inUserNamespace(t, uid, env+"="+dir)
	}
}
