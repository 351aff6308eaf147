package prove

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func dropCaches(t testing.TB) {
	t.Helper()
	syscall.Sync() // dirty pages would stay, and fake a pass
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
}

var quietOwners sync.Map // testing.TB → true

func quiet(t testing.TB) {
	t.Helper()
	if _, mine := quietOwners.LoadOrStore(t, true); mine {
		return
	}
	t.Cleanup(func() { quietOwners.Delete(t) })
	const name = "/tmp/mmapio-prove.lock" // wherever TMPDIR is: it must be the same for every user
	f, err := os.Open(name)               // first without O_CREATE: fs.protected_regular refuses that even to root if it is a user's
	if errors.Is(err, os.ErrNotExist) {
		f, err = os.OpenFile(name, os.O_RDONLY|os.O_CREATE, 0o644) //nolint:gosec // every user's tests lock it
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := waitLock(f, 5*time.Minute); err != nil {
		t.Fatalf("wait for other tests that drop caches: %v", err)
	}
}

// residentBody is the second process of Resident.
func residentBody(args []string) int {
	pages, resident, err := cached(args[0])
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(pages, resident)
	return 0
}

func cached(path string) (pages, resident int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return 0, 0, err
	}
	page := int64(os.Getpagesize())
	pages = int((st.Size() + page - 1) / page)
	if magic, err := statfsType(path); err != nil || magic != magicOverlay { // there it counts an inode without pages
		var is unix.Cachestat_t
		of := unix.CachestatRange{}
		_, _, errno := syscall.Syscall6(unix.SYS_CACHESTAT, f.Fd(), address(&of), address(&is), 0, 0, 0)
		runtime.KeepAlive(&of)
		runtime.KeepAlive(&is)
		if errno == 0 {
			return pages, int(is.Cache), nil
		}
		if errno == syscall.EPERM {
			return 0, 0, fmt.Errorf("cachestat: %w: neither owner nor allowed to write", errno)
		}
	}
	resident, err = minced(f, st.Size(), pages)
	return pages, resident, err
}

// minced counts by mincore, which tells the truth only to who might write the file: root, here.
func minced(f *os.File, size int64, pages int) (int, error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("no cachestat, and mincore tells only root the truth")
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	vec := make([]byte, pages)
	_, _, errno := syscall.Syscall(syscall.SYS_MINCORE, address(b), uintptr(size), address(vec))
	runtime.KeepAlive(vec)
	if errno != 0 {
		return 0, errors.Join(errno, syscall.Munmap(b))
	}
	n := 0
	for _, v := range vec {
		n += int(v & 1)
	}
	return n, syscall.Munmap(b)
}
