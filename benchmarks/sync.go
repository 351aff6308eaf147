package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
)

// syncs are the figures about durable writes.
func syncs(dir string) []figure {
	return append([]figure{policyCode(dir), policyInterval(dir)},
		syncOfPage(dir, "sync of a page in 4 GiB / fdatasync", 0),
		syncOfPage(dir, "the same, 1,000 pages pinned", 1000))
}

// writeAt64 writes 64 bytes to pages that are hot.
func writeAt64(f *mmapio.File) func(*testing.B) {
	return func(b *testing.B) {
		buf := make([]byte, 64)
		off := int64(0)
		for b.Loop() {
			if _, err := f.WriteAt(buf, off); err != nil {
				b.Fatal(err)
			}
			off = (off + 4160) & (hot - 1)
		}
	}
}

func policyFile(path string, p mmapio.SyncPolicy) *mmapio.File {
	f := must(mmapio.OpenFile(path, &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: 2 * hot, Sync: p}))
	check(f.LockAll())
	return f
}

// policyInterval compares a File that syncs by the hour with one that does not.
func policyInterval(dir string) figure {
	timed := policyFile(filepath.Join(dir, "timed"), mmapio.SyncPolicy{Interval: time.Hour})
	plain := policyFile(filepath.Join(dir, "plain"), mmapio.SyncPolicy{})
	bound, holds := within(10)
	return figure{
		"writeat 64 B, Interval / no policy",
		func() float64 { return perOp(writeAt64(timed)) }, func() float64 { return perOp(writeAt64(plain)) },
		bound, holds,
	}
}

// onlyWriteAt is set in the processes that policyCode starts.
const onlyWriteAt = "MMAPIO_BENCH_WRITEAT"

// measureWriteAt is what those processes do.
func measureWriteAt() {
	f := policyFile(os.Getenv(onlyWriteAt), mmapio.SyncPolicy{})
	fmt.Println(perOp(writeAt64(f)))
}

// policyCode compares WriteAt with one from whose source the policy was cut out,
// each in a program of its own.
func policyCode(dir string) figure {
	const question = "if ok && f.policy != nil {"
	without := ""
	build := func() {
		if without != "" {
			return
		}
		source := must(filepath.Abs("../access.go"))
		text := string(must(os.ReadFile(source)))
		if !strings.Contains(text, question) {
			panic("WriteAt has changed: " + question + " is not in access.go")
		}
		cut := filepath.Join(dir, "access.go")
		check(os.WriteFile(cut, []byte(strings.ReplaceAll(text, question, "if false {")), 0o600))
		overlay := filepath.Join(dir, "overlay.json")
		check(os.WriteFile(overlay, must(json.Marshal(map[string]any{"Replace": map[string]string{source: cut}})), 0o600))
		out := filepath.Join(dir, "without")
		if text, err := exec.Command("go", "build", "-overlay", overlay, "-o", out, ".").CombinedOutput(); err != nil {
			panic(fmt.Sprintf("%v: %s", err, text))
		}
		without = out
	}
	run := func(program string) float64 {
		cmd := exec.Command(program, os.Args[1:]...)
		cmd.Env = append(os.Environ(), onlyWriteAt+"="+filepath.Join(dir, "policycode"))
		cmd.Stderr = os.Stderr
		return must(strconv.ParseFloat(strings.TrimSpace(string(must(cmd.Output()))), 64))
	}
	bound, holds := atMost(1.2)
	return figure{
		"writeat 64 B / no policy code",
		func() float64 { build(); return run(must(os.Executable())) },
		func() float64 { build(); return run(without) },
		bound, holds,
	}
}

// syncOfPage compares Sync of one dirty page in a large file with the bare call.
func syncOfPage(dir, name string, pins int64) figure {
	const size, step = 4 << 30, 1 << 20
	var f *mmapio.File
	var data []byte
	var fd int
	prepare := func() {
		if f != nil {
			return
		}
		open := &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: size, Sparse: true}
		f = must(mmapio.OpenFile(filepath.Join(dir, "ours"+strconv.Itoa(int(pins))), open))
		for i := range pins {
			must(f.Pin((2*i+1)*4096, 1))
		}
		theirs := filepath.Join(dir, "theirs"+strconv.Itoa(int(pins)))
		check(must(mmapio.OpenFile(theirs, open)).Close())
		fd = must(unix.Open(theirs, unix.O_RDWR|unix.O_CLOEXEC, 0))
		data = must(unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
		for off := int64(0); off < 64*step; off += step { // blocks for what is measured
			must(f.WriteAt([]byte{1}, off))
			data[off] = 1
		}
		check(f.Sync())
		check(unix.Fdatasync(fd))
	}
	bound, holds := atMost(1.1)
	return figure{
		name,
		func() float64 {
			prepare()
			return perOp(func(b *testing.B) {
				off := int64(0)
				for b.Loop() {
					must(f.WriteAt([]byte{2}, off))
					check(f.Sync())
					off = (off + step) % (64 * step)
				}
			})
		},
		func() float64 {
			return perOp(func(b *testing.B) {
				off := int64(0)
				for b.Loop() {
					data[off] = 2
					check(unix.Fdatasync(fd))
					off = (off + step) % (64 * step)
				}
			})
		},
		bound, holds,
	}
}
