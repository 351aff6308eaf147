// Command benchmarks measures mmapio beside what others do for the same job,
// both sides in turn in one run, and prints medians. It is a module of its own,
// so that the peers never enter the library's go.mod.
//
//	go run .              all figures
//	go run . -run resize  those whose name has "resize" in it
//
// It exits 1 if a figure misses its bound.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// A figure compares two ways to do a thing.
type figure struct {
	name         string
	ours, theirs func() float64                  // ns an operation
	bound        string                          // for people
	holds        func(ours, theirs float64) bool // of the medians; nil: no bound
}

func main() { os.Exit(run()) }

// run returns the exit status: 1 for a missed bound, unless MMAPIO_BOUNDS=0. What it defers removes files of several GiB, also
// where there is no room to make them, which is a panic.
func run() int {
	testing.Init()
	only := flag.String("run", "", "only figures whose name contains this")
	rounds := flag.Int("rounds", 9, "how often each side is measured")
	each := flag.Duration("time", 100*time.Millisecond, "how long each measurement takes")
	flag.Parse()
	if err := flag.Set("test.benchtime", each.String()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}

	if os.Getenv(onlyWriteAt) != "" {
		measureWriteAt()
		return 0
	}

	dir, err := os.MkdirTemp("", "mmapio-bench")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	missed := 0
	fmt.Printf("%-34s %12s %12s %8s  %s\n", "", "mmapio ns", "other ns", "ratio", "bound")
	for _, f := range figures(dir) {
		if !strings.Contains(f.name, *only) {
			continue
		}
		var ours, theirs []float64
		for range *rounds {
			ours = append(ours, f.ours())
			theirs = append(theirs, f.theirs())
		}
		a, b := median(ours), median(theirs)
		verdict := f.bound
		if f.holds != nil && !f.holds(a, b) {
			verdict += "  MISSED"
			if os.Getenv("MMAPIO_BOUNDS") != "0" {
				missed++
			}
		}
		fmt.Printf("%-34s %12.1f %12.1f %8.2f  %s\n", f.name, a, b, a/b, verdict)
	}
	if missed > 0 {
		return 1
	}
	return 0
}

func perOp(f func(b *testing.B)) float64 {
	r := testing.Benchmark(f)
	return float64(r.T.Nanoseconds()) / float64(r.N)
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
