package prove_test

import (
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio/internal/prove"
)

var touched atomic.Uint32

// TestCountFaults takes faults of both kinds in a thread that is there and in
// one that is not yet, and has a system call take as many.
func TestCountFaults(t *testing.T) {
	prove.Need(t, prove.Linux, prove.Disk)
	const pages = 64
	size := pages * os.Getpagesize()
	path := filepath.Join(prove.DiskDir(t), "file")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cold := func() []byte {
		if err := file.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
		b, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	touch := func(b []byte) {
		for i := 0; i < len(b); i += os.Getpagesize() {
			touched.Add(uint32(b[i]))
		}
	}
	read := prove.CountFaults(t)
	last := read()
	for _, c := range []struct {
		name  string
		major bool
		do    func(b []byte)
	}{
		{"loads", true, func(b []byte) { touch(b) }},
		{"loads in a new thread", true, func(b []byte) {
			done := make(chan bool)
			go func() {
				runtime.LockOSThread() // which ends with the goroutine
				touch(b)
				close(done)
			}()
			<-done
		}},
		{"a system call", false, func(b []byte) {
			if err := unix.Madvise(b, unix.MADV_POPULATE_READ); err != nil {
				prove.Unable(t, "no MADV_POPULATE_READ: %v", err)
			}
			touch(b)
		}},
	} {
		b := cold()
		if err := unix.Madvise(b, unix.MADV_RANDOM); err != nil {
			t.Fatal(err)
		}
		c.do(b)
		now := read()
		if n := now.Major - last.Major; c.major != (n >= pages/2) || !c.major && n != 0 {
			t.Errorf("%s: %d major faults for %d pages", c.name, n, pages)
		}
		last = now
		if err := unix.Munmap(b); err != nil {
			t.Fatal(err)
		}
	}
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = 1
	}
	if now := read(); now.Major != last.Major || now.Minor-last.Minor < pages/2 {
		t.Errorf("fresh memory: %+v after %+v", now, last)
	}
}
