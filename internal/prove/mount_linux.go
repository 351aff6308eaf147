package prove

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Every mount has a directory of its own, made by newMount: base/mnt is where it is mounted, base/image what it is
// mounted from, and undoing it removes base.
func newMount() (base string, err error) {
	root, why := diskRoot()
	if why != "" {
		root = os.TempDir()
	}
	base, err = os.MkdirTemp(root, "mmapio-prove-")
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.Chmod(base, 0o755), os.Mkdir(filepath.Join(base, "mnt"), 0o755)); err != nil { //nolint:gosec // for all users
		return "", errors.Join(err, os.RemoveAll(base))
	}
	return base, nil
}

func undoMount(e entry) error {
	dir := filepath.Join(e.Path, "mnt")
	err := insist(2*time.Second, func() error { return syscall.Unmount(dir, 0) })
	if errors.Is(err, syscall.EBUSY) {
		// Said, but not left behind: it goes when its last user does.
		err = errors.Join(fmt.Errorf("something still uses it: %w", err), syscall.Unmount(dir, syscall.MNT_DETACH))
		return errors.Join(err, os.Remove(dir), os.RemoveAll(e.Path))
	}
	if err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) { // those: was not mounted
		return fmt.Errorf("unmount: %w", err)
	}
	// Never RemoveAll the mount point: were it mounted after all, that would empty the file system.
	if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.RemoveAll(e.Path)
}

func mountTmpfs(t testing.TB, size int64) string {
	t.Helper()
	base, err := newMount()
	if err != nil {
		t.Fatal(err)
	}
	condition(t, entry{Kind: "mount", Path: base})
	dir := filepath.Join(base, "mnt")
	if err := syscall.Mount("mmapio-prove", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0777", size)); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	return dir
}

func tryTmpfs() string {
	base, err := newMount()
	if err != nil {
		return err.Error()
	}
	undo, err := record(entry{Kind: "mount", Path: base})
	if err != nil {
		return err.Error()
	}
	mounted := syscall.Mount("mmapio-prove", filepath.Join(base, "mnt"), "tmpfs", 0, "size=65536")
	if err := errors.Join(mounted, undo()); err != nil {
		return err.Error()
	}
	return ""
}

func tryLoop() string {
	if _, why := diskRoot(); why != "" {
		return why
	}
	if _, err := findTool("mount"); err != nil {
		return "no mount(8): Debian package mount"
	}
	const loopCtlGetFree = 0x4c82
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = ctl.Close() }()
	n, _, errno := syscall.Syscall(syscall.SYS_IOCTL, ctl.Fd(), loopCtlGetFree, 0)
	if errno != 0 {
		return fmt.Sprintf("no free loop device: %v", errno)
	}
	f, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	if err != nil {
		return err.Error() // containers: the device exists, but not here
	}
	_ = f.Close()
	return ""
}

func makeLoop(t testing.TB, fs string, size int64) *Loop {
	t.Helper()
	return mountLoop(t, fs, func(image string) error {
		f, err := os.OpenFile(image, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
			return err
		}
		args := map[string][]string{
			// Lazy initialisation would go on writing behind a test's back.
			"ext4":  {"-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", image},
			"xfs":   {"-q", "-f", image},
			"btrfs": {"-q", "-f", image},
		}[fs]
		return tool("mkfs."+fs, args...)
	})
}

func mountCopy(t testing.TB, fs, from string) *Loop {
	t.Helper()
	return mountLoop(t, fs, func(image string) error {
		return tool("cp", "--sparse=always", from, image)
	})
}

func mountLoop(t testing.TB, fs string, makeImage func(path string) error) *Loop {
	t.Helper()
	base, err := newMount()
	if err != nil {
		t.Fatal(err)
	}
	condition(t, entry{Kind: "mount", Path: base})
	l := &Loop{Dir: filepath.Join(base, "mnt"), Image: filepath.Join(base, "image"), FS: fs}
	if err := makeImage(l.Image); err != nil {
		t.Fatal(err)
	}
	options := "loop" // with autoclear: the device is given back by the unmount, even after a crash
	if fs == "xfs" {
		options += ",nouuid" // a copy has its original's
	}
	if err := tool("mount", "-t", fs, "-o", options, l.Image, l.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(l.Dir, 0o777); err != nil { //nolint:gosec // for tests without privilege
		t.Fatal(err)
	}
	if l.Device, err = mountSource(l.Dir); err != nil {
		t.Fatal(err)
	}
	return l
}

func mountSource(dir string) (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == dir {
			return f[0], nil
		}
	}
	return "", fmt.Errorf("%s is not mounted", dir)
}

// tool runs a program and puts what it printed into the error.
func tool(name string, args ...string) error {
	path, err := findTool(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
