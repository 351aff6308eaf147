//go:build linux

package mmapio_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
)

// plainMapping is what the bare system calls work on.
func plainMapping(b *testing.B, path string) []byte {
	b.Helper()
	file, err := os.Open(path)
	check(b, err)
	defer file.Close()
	info, err := file.Stat()
	check(b, err)
	m, err := unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	check(b, err)
	return m
}

// To lock a page of a file and to unlock it.
func BenchmarkLockUnlockPage(b *testing.B) {
	needLockOf(b, pageSize)
	path := fileOf(b, 64*pageSize)
	b.Run("mmapio", func(b *testing.B) {
		f := mustOpen(b, path, nil)
		b.ReportAllocs()
		for b.Loop() {
			if f.Lock(10*pageSize, pageSize) != nil || f.Unlock(10*pageSize, pageSize) != nil {
				b.Fatal("not locked") // check takes longer
			}
		}
	})
	b.Run("mlock", func(b *testing.B) {
		m := plainMapping(b, path)
		defer unix.Munmap(m)
		for b.Loop() {
			if unix.Mlock(m[10*pageSize:11*pageSize]) != nil || unix.Munlock(m[10*pageSize:11*pageSize]) != nil {
				b.Fatal("not locked")
			}
		}
	})
}

// To lock, or to pin and release, what is locked already.
func BenchmarkLockLocked(b *testing.B) {
	needLockOf(b, 64*pageSize)
	path := fileOf(b, 64*pageSize)
	b.Run("mmapio", func(b *testing.B) {
		f := mustOpen(b, path, nil)
		check(b, f.LockAll())
		b.ReportAllocs()
		for b.Loop() {
			if f.Lock(10*pageSize, pageSize) != nil { // check takes longer
				b.Fatal("not locked")
			}
		}
	})
	b.Run("pin", func(b *testing.B) {
		f := mustOpen(b, path, nil)
		check(b, f.LockAll())
		b.ReportAllocs()
		for b.Loop() {
			p, err := f.Pin(10*pageSize, pageSize)
			if err != nil || p.Release() != nil {
				b.Fatal("not pinned")
			}
		}
	})
	b.Run("mlock", func(b *testing.B) {
		m := plainMapping(b, path)
		defer unix.Munmap(m)
		check(b, unix.Mlock(m))
		for b.Loop() {
			if unix.Mlock(m[10*pageSize:11*pageSize]) != nil {
				b.Fatal("not locked")
			}
		}
	})
}

// To lock a fresh mapping of a file whose pages are cached.
func BenchmarkLockWarm(b *testing.B) {
	const n = 256 << 20
	needLockOf(b, n)
	path := filepath.Join(tempDir(b), "f")
	file, err := os.Create(path)
	check(b, err)
	defer file.Close()
	for block := make([]byte, 1<<20); ; {
		info, err := file.Stat()
		check(b, err)
		if info.Size() == n {
			break
		}
		_, err = file.Write(block)
		check(b, err)
	}
	check(b, file.Sync())
	b.Run("mmapio", func(b *testing.B) {
		b.SetBytes(n)
		for b.Loop() {
			b.StopTimer()
			f, err := mmapio.Open(path)
			check(b, err)
			b.StartTimer()
			check(b, f.LockAll())
			b.StopTimer()
			check(b, f.Close())
			b.StartTimer()
		}
	})
	b.Run("mlock", func(b *testing.B) {
		b.SetBytes(n)
		for b.Loop() {
			b.StopTimer()
			m := plainMapping(b, path)
			b.StartTimer()
			check(b, unix.Mlock(m))
			b.StopTimer()
			check(b, unix.Munmap(m))
			b.StartTimer()
		}
	})
}
