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
		if f != nil {
			return
		}
		file := must(os.Create(path))
		block := make([]byte, mib)
		for range size / mib {
			must(file.Write(block))
		}
		check(file.Sync())
		// What was written lies there in smaller pieces than what is read.
		check(unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED))
		must(file.Seek(0, io.SeekStart))
		must(io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{file}, block))
		check(file.Close())
		f = must(mmapio.Open(path))
		data = must(unix.Mmap(int(must(os.Open(path)).Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED))
		vec = make([]byte, size/os.Getpagesize())
	}
	return figure{
		name: "residency of 2 GiB / mincore",
		ours: func() float64 {
			prepare()
			return perOp(func(b *testing.B) {
				for b.Loop() {
					if r := must(f.Residency(0, size)); r.Resident != r.Pages {
						b.Fatalf("%+v", r)
					}
				}
			})
		},
		theirs: func() float64 {
			return perOp(func(b *testing.B) {
				for b.Loop() {
					_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&data[0])), size, uintptr(unsafe.Pointer(&vec[0])))
					n := 0
					for _, v := range vec {
						n += int(v & 1)
					}
					if errno != 0 || n != len(vec) {
						b.Fatal(errno, n)
					}
				}
			})
		},
		bound: "at most 0.20 times",
		holds: func(a, b float64) bool { return a <= 0.2*b },
	}
}
