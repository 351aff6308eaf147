package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
)

// residency compares Residency of a file of 2 GiB, which is in the page cache
// because it was read, with mincore over a mapping of it.
func residency(dir string) figure {
	const size = 2 << 30
	path := filepath.Join(dir, "cached")
	var (
		f    *mmapio.File
		data []byte
		vec  []byte
	)
	prepare := func() {
		if f == nil {
			file := must(os.Create(path))
			block := make([]byte, mib)
			for range size / mib {
				must(file.Write(block))
			}
			check(file.Sync())
			// What was written lies there in smaller pieces than what is read.
			check(unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED))
			check(file.Close())
			f = must(mmapio.Open(path))
			data = must(unix.Mmap(int(must(os.Open(path)).Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED))
			vec = make([]byte, size/os.Getpagesize())
		}
		file := must(os.Open(path))
		must(io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{file}, make([]byte, mib)))
		check(file.Close())
	}
	// measure repeats what was disturbed by somebody who dropped caches.
	measure := func(count func() int) float64 {
		for {
			prepare()
			least := len(vec)
			ns := perOp(func(b *testing.B) {
				for b.Loop() {
					least = min(least, count())
				}
			})
			if least == len(vec) {
				return ns
			}
		}
	}
	return figure{
		name: "residency of 2 GiB / mincore",
		ours: func() float64 { return measure(func() int { return int(must(f.Residency(0, size)).Resident) }) },
		theirs: func() float64 {
			return measure(func() (n int) {
				_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&data[0])), size, uintptr(unsafe.Pointer(&vec[0])))
				if errno != 0 {
					panic(errno)
				}
				for _, v := range vec {
					n += int(v & 1)
				}
				return n
			})
		},
		bound: "at most 0.20 times",
		holds: func(a, b float64) bool { return a <= 0.2*b },
	}
}
