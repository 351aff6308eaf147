package prove

import (
	"fmt"
	"os"
	"testing"
)

// Swap switches a new swap file of the given size on for the length of the test, and returns its path.
func Swap(t testing.TB, size int64) string {
	t.Helper()
	Need(t, SwapFile)
	return addSwap(t, size)
}

// SmallTmpfs mounts a tmpfs of the given size, world-writable, for the length of the test.
func SmallTmpfs(t testing.TB, size int64) (dir string) {
	t.Helper()
	Need(t, TmpfsMount)
	return mountTmpfs(t, size)
}

// A Loop is a file system of its own, in an image file behind a loop device.
type Loop struct {
	Dir    string // where it is mounted, world-writable
	Image  string // the image file: a copy of it at any moment is what a power cut at that moment leaves
	Device string
	FS     string
}

// LoopFS makes a file system ("ext4", "xfs", "btrfs") of the given size and mounts it for the length of the test. The
// image is sparse. xfs wants at least 300 MiB, btrfs 110 MiB. What leaves the image open (a mapping, a descriptor, a
// working directory) keeps it from being unmounted, and fails the test.
func LoopFS(t testing.TB, fs string, size int64) *Loop {
	t.Helper()
	switch fs {
	case "ext4":
		Need(t, Ext4)
	case "xfs":
		Need(t, XFS)
	case "btrfs":
		Need(t, Btrfs)
	default:
		t.Fatalf("no file system %q here", fs)
	}
	return makeLoop(t, fs, size)
}

// MountImage mounts a file system from a copy of the image file, for the length of the test: the journal is replayed as
// after a power cut. The copy leaves out what the kernel still has in memory. Not for btrfs while the original is
// mounted: two file systems with one identity.
func MountImage(t testing.TB, fs, image string) *Loop {
	t.Helper()
	Need(t, LoopDevice)
	return mountCopy(t, fs, image)
}

// Sysctl sets a kernel parameter ("vm.swappiness") until the end of the test. Other tests on the machine that set the
// same one wait for that.
func Sysctl(t testing.TB, name, value string) {
	t.Helper()
	Need(t, SysctlRW)
	setSysctl(t, name, value)
}

// DiskDir is an empty directory on a file system with a disk behind it, not a tmpfs nor an overlay, until the end of
// the test: $MMAPIO_SCRATCH, or a place that is found.
func DiskDir(t testing.TB) string {
	t.Helper()
	Need(t, Disk)
	root, _ := diskRoot()
	return tempDir(t, root, 0o700)
}

// PublicDir is an empty directory that every user may reach, read and write, until the end of the test. t.TempDir is
// none: its parents are the owner's alone.
func PublicDir(t testing.TB) string {
	t.Helper()
	for _, root := range []string{os.TempDir(), "/tmp", "/var/tmp", "/dev/shm"} {
		if reachable(root) {
			return tempDir(t, root, 0o777)
		}
	}
	t.Fatalf("no directory that every user may reach: tried %s, /tmp, /var/tmp and /dev/shm", os.TempDir())
	return ""
}

func tempDir(t testing.TB, root string, perm os.FileMode) string {
	t.Helper()
	dir, err := os.MkdirTemp(root, "mmapio-prove-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	if err := os.Chmod(dir, perm); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return dir
}

// NewFile writes a file of the given size that has no holes and is on the disk, so that its pages are clean, and
// returns its path. Every page has other content: page n begins with n in decimal.
func NewFile(t testing.TB, dir, name string, size int64) string {
	t.Helper()
	path := dir + string(os.PathSeparator) + name
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	page := int64(os.Getpagesize())
	block := make([]byte, 0, 1<<20)
	flush := func() {
		if _, err := f.Write(block); err != nil {
			t.Fatal(err)
		}
		block = block[:0]
	}
	for off := int64(0); off < size; off += page {
		text := fmt.Sprintf("%-*d", page, off/page)
		block = append(block, text[:min(page, size-off)]...)
		if len(block)+int(page) > cap(block) {
			flush()
		}
	}
	flush()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
