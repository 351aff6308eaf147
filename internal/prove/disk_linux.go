package prove

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

const (
	magicTmpfs   = 0x01021994
	magicRamfs   = 0x858458f6
	magicOverlay = 0x794c7630
	magicFUSE    = 0x65735546
	magicAufs    = 0x61756673
)

// diskRoot finds a directory with a disk behind it, or says why there is none.
var diskRoot = sync.OnceValues(func() (dir, why string) {
	here, _ := os.Getwd()
	var tried []string
	for _, dir := range []string{os.Getenv("MMAPIO_SCRATCH"), "/var/tmp", os.TempDir(), here} {
		if dir == "" {
			continue
		}
		magic, err := statfsType(dir)
		switch {
		case err != nil:
			tried = append(tried, fmt.Sprintf("%s: %v", dir, err))
		case magic == magicTmpfs, magic == magicRamfs, magic == magicOverlay, magic == magicFUSE, magic == magicAufs:
			tried = append(tried, fmt.Sprintf("%s: file system %#x has no disk of its own", dir, magic))
		default:
			if probe, err := os.MkdirTemp(dir, "mmapio-prove-"); err == nil {
				_ = os.Remove(probe)
				return dir, ""
			}
			tried = append(tried, dir+": not writable")
		}
	}
	return "", strings.Join(tried, "; ") + "; name one in MMAPIO_SCRATCH"
})

// reachable says whether a user without privilege may reach dir and make files there.
func reachable(dir string) bool {
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm()&0o003 != 0o003 && os.Geteuid() == 0 {
		return false
	}
	for p := dir; p != "/" && p != "."; p = filepath.Dir(p) {
		st, err := os.Stat(p)
		if err != nil || st.Mode().Perm()&0o001 == 0 {
			return false
		}
	}
	return true
}

// addSwap makes the file and switches it on.
func addSwap(t testing.TB, size int64) string {
	t.Helper()
	path, err := newSwapFile(size)
	if err != nil {
		t.Fatal(err)
	}
	condition(t, entry{Kind: "swap", Path: path})
	if err := swapCall(syscall.SYS_SWAPON, path); err != nil {
		t.Fatalf("swapon %s: %v", path, err)
	}
	return path
}

func trySwap() string {
	if _, why := diskRoot(); why != "" {
		return why
	}
	path, err := newSwapFile(int64(16 * os.Getpagesize()))
	if err != nil {
		return err.Error()
	}
	undo, err := record(entry{Kind: "swap", Path: path})
	if err != nil {
		return err.Error()
	}
	on := swapCall(syscall.SYS_SWAPON, path)
	if err := errors.Join(on, undo()); err != nil {
		return err.Error()
	}
	return ""
}

// newSwapFile writes what mkswap would: the header in the first page, and blocks everywhere, since the kernel takes no
// swap file with holes.
func newSwapFile(size int64) (path string, err error) {
	root, _ := diskRoot()
	dir, err := os.MkdirTemp(root, "mmapio-prove-")
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "swap")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	page := int64(os.Getpagesize())
	size -= size % page
	header := make([]byte, page)
	binary.NativeEndian.PutUint32(header[1024:], 1) // version
	binary.NativeEndian.PutUint32(header[1028:], uint32(size/page-1))
	copy(header[page-10:], "SWAPSPACE2")
	if err = syscall.Fallocate(int(f.Fd()), 0, 0, size); err == nil {
		if _, err = f.WriteAt(header, 0); err == nil {
			err = f.Sync()
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return path, nil
}

// swapCall is swapon or swapoff: both take the path first, and swapoff ignores the flags.
func swapCall(trap uintptr, path string) error {
	name, err := syscall.BytePtrFromString(path)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall(trap, address(name), 0, 0)
	runtime.KeepAlive(name)
	if errno != 0 {
		return errno
	}
	return nil
}

func undoSwap(e entry) error {
	err := swapCall(syscall.SYS_SWAPOFF, e.Path)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOENT) {
		err = nil // was not on
	}
	if err != nil {
		return fmt.Errorf("swapoff: %w", err)
	}
	return os.RemoveAll(filepath.Dir(e.Path))
}
