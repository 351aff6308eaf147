package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/exp/mmap"
	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
)

const mib = 1 << 20

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// atMost and within are the two kinds of bounds.
func atMost(ratio float64) (string, func(a, b float64) bool) {
	return fmt.Sprintf("at most %.2f times", ratio), func(a, b float64) bool { return a <= ratio*b }
}

func within(ns float64) (string, func(a, b float64) bool) {
	return fmt.Sprintf("at most %.0f ns more", ns), func(a, b float64) bool { return a <= b+ns }
}

func figures(dir string) []figure {
	path := filepath.Join(dir, "hot")
	f := must(mmapio.Create(path, 16*mib))
	check(f.Update(0, f.Size(), func(b []byte) error {
		for i := range b {
			b[i] = byte(i)
		}
		return nil
	}))
	check(f.LockAll())
	peer := must(mmap.Open(path))
	data := must(unix.Mmap(int(must(os.Open(path)).Fd()), 0, 16*mib, unix.PROT_READ, unix.MAP_SHARED))

	add := func(list []figure, name string, ours, theirs func(*testing.B), bound string, holds func(a, b float64) bool) []figure {
		return append(list, figure{
			name, func() float64 { return perOp(ours) }, func() float64 { return perOp(theirs) }, bound, holds,
		})
	}
	var list []figure
	b15, h15 := within(15)
	b20, h20 := within(20)
	list = add(list, "readat 64 B / exp mmap", readAt(f.ReadAt, 64), readAt(peer.ReadAt, 64), b15, h15)
	list = add(list, "readat 4 KiB / exp mmap", readAt(f.ReadAt, 4096), readAt(peer.ReadAt, 4096), b20, h20)
	b25, h25 := within(25)
	list = add(list, "view 4 KiB / nothing", view(f), nothing(data), b25, h25)
	list = append(list, scaling(f, data))

	lockBound, lockHolds := "at most 150 ns", func(a, _ float64) bool { return a <= 150 }
	list = add(list, "lock of what is locked / mlock", func(b *testing.B) {
		for b.Loop() {
			check(f.Lock(4096, 4096))
		}
	}, func(b *testing.B) {
		for b.Loop() {
			check(unix.Mlock(data[4096:8192]))
		}
	}, lockBound, lockHolds)

	part := must(mmapio.Open(path))
	list = add(list, "lock+unlock 4 KiB / mlock+munlock", func(b *testing.B) {
		for b.Loop() {
			check(part.Lock(8*mib, 4096))
			check(part.Unlock(8*mib, 4096))
		}
	}, func(b *testing.B) {
		for b.Loop() {
			check(unix.Mlock(data[8*mib : 8*mib+4096]))
			check(unix.Munlock(data[8*mib : 8*mib+4096]))
		}
	}, "", nil)

	b150, h150 := atMost(1.5)
	b130, h130 := atMost(1.3)
	list = add(list, "resize 1-2-1 MiB sparse / bare", resize(filepath.Join(dir, "r1"), true), bare(filepath.Join(dir, "r2"), true), b150, h150)
	list = add(list, "resize 1-2-1 MiB / bare fallocate", resize(filepath.Join(dir, "r3"), false), bare(filepath.Join(dir, "r4"), false), b130, h130)
	list = add(list, "open+close read-only / bare", func(b *testing.B) {
		for b.Loop() {
			check(must(mmapio.Open(path)).Close())
		}
	}, func(b *testing.B) {
		for b.Loop() {
			fd := must(unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0))
			var st unix.Stat_t
			check(unix.Fstat(fd, &st))
			p := must(unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ, unix.MAP_SHARED))
			check(unix.Munmap(p))
			check(unix.Close(fd))
		}
	}, "", nil)
	list = append(list, syncs(dir)...)
	return append(list, residency(dir))
}

func readAt(read func([]byte, int64) (int, error), n int) func(*testing.B) {
	return func(b *testing.B) {
		buf := make([]byte, n)
		off := int64(0)
		for b.Loop() {
			if _, err := read(buf, off); err != nil {
				b.Fatal(err)
			}
			off = (off + 4160) & (8*mib - 1)
		}
	}
}

var sum byte

// hot is how much the views walk over. What lies beyond the processor's caches
// would be waited for in both columns, but only once in the bare one, where the
// accesses of several rounds overlap.
const hot = 64 << 10

func view(f *mmapio.File) func(*testing.B) {
	return func(b *testing.B) {
		fn := func(p []byte) error { sum += p[100]; return nil }
		off := int64(0)
		for b.Loop() {
			if err := f.View(off, 4096, fn); err != nil {
				b.Fatal(err)
			}
			off = (off + 4096) & (hot - 1)
		}
	}
}

func nothing(data []byte) func(*testing.B) {
	return func(b *testing.B) {
		off := int64(0)
		for b.Loop() {
			sum += data[off : off+4096][100]
			off = (off + 4096) & (hot - 1)
		}
	}
}

// scaling compares the price of a second goroutine: time per read of two to
// that of one, of ReadAt and of a bare slice copy. The columns hold the two
// ratios times 100.
func scaling(f *mmapio.File, data []byte) figure {
	parallel := func(goroutines int, read func(buf []byte, off int64)) float64 {
		return perOp(func(b *testing.B) {
			var wg sync.WaitGroup
			for range goroutines {
				wg.Go(func() {
					buf := make([]byte, 64)
					off := int64(0)
					for range b.N / goroutines {
						read(buf, off)
						off = (off + 4160) & (8*mib - 1)
					}
				})
			}
			wg.Wait()
		})
	}
	ratio := func(read func(buf []byte, off int64)) func() float64 {
		return func() float64 { return 100 * parallel(2, read) / parallel(1, read) }
	}
	return figure{
		name: "64 B: 2 goroutines to 1, per cent",
		ours: ratio(func(buf []byte, off int64) { f.ReadAt(buf, off) }), //nolint:errcheck // hot loop
		theirs: ratio(func(buf []byte, off int64) {
			copy(buf, data[off:off+64])
			runtime.KeepAlive(buf)
		}),
		bound: "at most 1.25 times",
		holds: func(a, b float64) bool { return a <= 1.25*b },
	}
}

func resize(path string, sparse bool) func(*testing.B) {
	f := must(mmapio.OpenFile(path, &mmapio.Options{
		Mode: mmapio.ReadWrite, Create: true, MinSize: mib, Sparse: sparse,
	}))
	return func(b *testing.B) {
		for b.Loop() {
			check(f.Resize(2 * mib))
			check(f.Resize(mib))
		}
	}
}

// bare does the same by hand: set the length, map, unmap.
func bare(path string, sparse bool) func(*testing.B) {
	fd := must(unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o666))
	check(unix.Ftruncate(fd, mib))
	if !sparse {
		check(unix.Fallocate(fd, 0, 0, mib))
	}
	p := must(unix.Mmap(fd, 0, mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
	return func(b *testing.B) {
		for b.Loop() {
			for _, n := range []int{2 * mib, mib} {
				if !sparse && n == 2*mib {
					check(unix.Fallocate(fd, 0, mib, mib))
				} else {
					check(unix.Ftruncate(fd, int64(n)))
				}
				next := must(unix.Mmap(fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
				check(unix.Munmap(p))
				p = next
			}
		}
	}
}
