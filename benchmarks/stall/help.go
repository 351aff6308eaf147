package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// bench is the testing.TB that package slowfs wants. It embeds a nil one for
// the sake of its private method.
type bench struct {
	testing.TB
	cleanups []func()
	file     string
}

func (*bench) Helper()            {}
func (*bench) Name() string       { return "stall" }
func (*bench) Failed() bool       { return false }
func (b *bench) Cleanup(f func()) { b.cleanups = append(b.cleanups, f) }

func (*bench) Log(args ...any)                     { fmt.Fprintln(os.Stderr, args...) }
func (*bench) Logf(format string, args ...any)     { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (b *bench) Error(args ...any)                 { b.Log(args...); missed++ }
func (b *bench) Errorf(format string, args ...any) { b.Logf(format, args...); missed++ }
func (b *bench) Fatal(args ...any)                 { b.Log(args...); b.end(); os.Exit(2) }
func (b *bench) Fatalf(format string, args ...any) { b.Logf(format, args...); b.end(); os.Exit(2) }
func (b *bench) Skip(args ...any)                  { b.Fatal(args...) }
func (b *bench) Skipf(format string, args ...any)  { b.Fatalf(format, args...) }

func (b *bench) TempDir() string {
	dir := must(os.MkdirTemp(*where, "mmapio-stall"))
	b.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // a temporary directory
	return dir
}

func (b *bench) end() {
	for len(b.cleanups) > 0 {
		last := b.cleanups[len(b.cleanups)-1]
		b.cleanups = b.cleanups[:len(b.cleanups)-1]
		last()
	}
}

// localFile makes the file on the local disk, once.
func localFile(b *bench) string {
	if b.file != "" {
		return b.file
	}
	b.file = filepath.Join(b.TempDir(), "file")
	file := must(os.Create(b.file))
	block := make([]byte, 16<<20)
	for off := int64(0); off < fileSize; off += int64(len(block)) {
		for i := 0; i < len(block); i += 8 {
			block[i], block[i+1] = byte(i>>12), byte(off>>24)
		}
		must(file.WriteAt(block, off))
	}
	must(0, file.Sync())
	must(0, file.Close())
	return b.file
}

// drop takes a file that nobody maps out of the page cache.
func drop(path string) {
	file := must(os.Open(path))
	must(0, unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED))
	must(0, file.Close())
}

// A series is one line of a plot.
type series struct {
	name   string
	points plotter.XYs
}

func (s *series) add(x int, y float64) {
	s.points = append(s.points, plotter.XY{X: float64(x), Y: y})
}

// draw makes a plot with logarithmic axes.
func draw(path, title, unit string, lines []series) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, "goroutines", unit
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	var ticks plot.ConstantTicks
	var args []any
	for _, line := range lines {
		args = append(args, line.name, line.points)
	}
	for _, at := range lines[0].points {
		ticks = append(ticks, plot.Tick{Value: at.X, Label: strconv.Itoa(int(at.X))})
	}
	p.X.Tick.Marker, p.Y.Tick.Marker = ticks, plot.LogTicks{Prec: -1}
	p.Add(plotter.NewGrid())
	p.Legend.Top, p.Legend.Left = true, true
	must(0, plotutil.AddLinePoints(p, args...))
	must(0, p.Save(16*vg.Centimeter, 10*vg.Centimeter, path))
}
