// Command stall measures what a wait for the disk does to the rest of a Go
// program: reads of cold pages through mmapio, beside a plain mapping and
// pread(2), on a slow disk (a FUSE file system that takes 2 ms for a read,
// served by another process) and on the local one. It needs root on Linux.
//
//	go run ./stall                     all figures, some minutes
//	go run ./stall -plots ../docs      the two plots of docs/scheduler.md, too
//
// All sides take turns in one run; what is printed are medians. It exits 1 if a
// figure misses its bound, unless MMAPIO_BOUNDS=0.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mmapio/mmapio/internal/slowfs"
)

var (
	rounds  = flag.Int("rounds", 5, "how often each side is measured")
	length  = flag.Duration("time", 2*time.Second, "how long each measurement takes")
	only    = flag.String("run", "", "only groups whose name contains this: slow, local, hot, gc, scan")
	numbers = flag.String("goroutines", "1,4,16,64,128", "how many read, on the slow disk")
	plots   = flag.String("plots", "", "directory for the plots")
	where   = flag.String("dir", os.TempDir(), "a directory on the local disk")
)

func main() {
	if spec := os.Getenv(childEnv); spec != "" {
		measure(spec)
		return
	}
	flag.Parse()
	tb := &bench{}
	code := 0
	func() {
		defer tb.end()
		for _, group := range []struct {
			name string
			run  func(tb *bench)
		}{{"slow", slowDisk}, {"gc", collections}, {"local", localDisk}, {"scan", scan}, {"hot", hot}} {
			if strings.Contains(group.name, *only) {
				group.run(tb)
			}
		}
	}()
	if missed > 0 {
		code = 1
	}
	os.Exit(code)
}

var missed int

// figure prints one comparison.
func figure(name string, ours, theirs float64, unit, bound string, holds bool) {
	verdict := ""
	if !holds {
		verdict = "  MISSED"
		if os.Getenv("MMAPIO_BOUNDS") != "0" {
			missed++
		}
	}
	fmt.Printf("%-46s %10.1f %10.1f %-8s %6.2f  %s%s\n", name, ours, theirs, unit, ours/theirs, bound, verdict)
}

// Ways to read.
const (
	plain   = "plain mapping"
	pread   = "pread"
	copying = "ReadAt"
	viewing = "View"
)

// sides measures several ways in turn, each on a cold file, and returns the
// medians.
func sides(ways []string, s spec, cold func() string) map[string]result {
	all := map[string][]result{}
	for range *rounds {
		for _, i := range rand.Perm(len(ways)) { // nobody is always first, or after the same
			way := ways[i]
			s.Way, s.Path = way, cold()
			r := s.run()
			if s.Twice {
				s.Path = cold()
				r.Rate = 2 / (1/r.Rate + 1/s.run().Rate)
			}
			all[way] = append(all[way], r)
		}
	}
	medians := map[string]result{}
	for way, list := range all {
		pick := func(of func(result) float64) float64 {
			var v []float64
			for _, r := range list {
				v = append(v, of(r))
			}
			slices.Sort(v)
			return v[len(v)/2]
		}
		medians[way] = result{
			Rate:  pick(func(r result) float64 { return r.Rate }),
			Late:  pick(func(r result) float64 { return r.Late }),
			First: pick(func(r result) float64 { return r.First }),
			Pause: pick(func(r result) float64 { return r.Pause }),
		}
	}
	return medians
}

// slowFiles mounts the slow disk and returns what puts a new file on it.
func slowFiles(tb *bench) (cold func() string) {
	fs := slowfs.Start(tb, slowfs.Options{ReadDelay: 2 * time.Millisecond})
	n := 0
	return func() string {
		n++
		name := fmt.Sprint("file", n)
		fs.AddFile(name, fileSize, slowfs.Offsets)
		return fs.Path(name)
	}
}

const fileSize = 4 << 30

func slowDisk(tb *bench) {
	cold := slowFiles(tb)
	ways := []string{plain, pread, copying, viewing}
	var rates, delays []series
	for _, way := range ways {
		rates, delays = append(rates, series{name: way}), append(delays, series{name: way})
	}
	fmt.Printf("\ncold random 4 KiB, 2 ms a read, GOMAXPROCS=2\n%-21s %10s %12s %14s\n", "goroutines", "reads/s", "tick late ms", "in first 0.1 s")
	for _, text := range strings.Split(*numbers, ",") {
		goroutines := must(strconv.Atoi(text))
		m := sides(ways, spec{Goroutines: goroutines, For: *length}, cold)
		for i, way := range ways {
			fmt.Printf("%4d %-16s %10.0f %12.1f %14.1f\n", goroutines, way, m[way].Rate, m[way].Late, m[way].First)
			rates[i].add(goroutines, m[way].Rate)
			delays[i].add(goroutines, m[way].Late)
		}
		least := map[int]float64{16: 6, 128: 20}[goroutines]
		if least == 0 {
			continue
		}
		name, our, their := fmt.Sprintf("slow, %d goroutines: ReadAt", goroutines), m[copying], m[plain]
		figure(name+" / plain", our.Rate, their.Rate, "reads/s", fmt.Sprintf("at least %.0f", least), our.Rate >= least*their.Rate)
		figure(name+" / pread", our.Rate, m[pread].Rate, "reads/s", "at least 0.95", our.Rate >= 0.95*m[pread].Rate)
		figure(name+" / plain", our.Late, their.Late, "ms late", "at most 0.33", our.Late <= their.Late/3)
	}
	if *plots != "" {
		draw(filepath.Join(*plots, "stall-reads.svg"), "Cold random reads of 4 KiB, 2 ms each, two processors", "reads a second", rates)
		draw(filepath.Join(*plots, "stall-timers.svg"), "How late a ticker of 1 ms is at worst meanwhile", "ms", delays)
	}
}

func collections(tb *bench) {
	m := sides([]string{plain, copying}, spec{Goroutines: 16, Pauses: 1000}, slowFiles(tb))
	figure("gc: p99 pause during ReadAt / plain", m[copying].Pause, m[plain].Pause, "ms", "at most 0.2", m[copying].Pause <= 0.2*m[plain].Pause)
}

func localDisk(tb *bench) {
	file := localFile(tb)
	cold := func() string { drop(file); return file }
	m := sides([]string{plain, pread, copying, viewing}, spec{Goroutines: 128, For: *length}, cold)
	figure("local, 128 goroutines: ReadAt / pread", m[copying].Rate, m[pread].Rate, "reads/s", "at least 0.9", m[copying].Rate >= 0.9*m[pread].Rate)
	figure("local, 128 goroutines: View / plain", m[viewing].Rate, m[plain].Rate, "reads/s", "at least 1.2", m[viewing].Rate >= 1.2*m[plain].Rate)
	figure("local, 128 goroutines: ReadAt / plain", m[copying].Late, m[plain].Late, "ms late", "", true)
}

func scan(tb *bench) {
	file := localFile(tb)
	cold := func() string { drop(file); return file }
	m := sides([]string{"dd", "Chunks"}, spec{Twice: true}, cold)
	figure("scan of 4 GiB: Chunks(1 MiB) / dd bs=1M", m["Chunks"].Rate, m["dd"].Rate, "MB/s", "at least 0.9", m["Chunks"].Rate >= 0.9*m["dd"].Rate)
}

func hot(tb *bench) {
	path := filepath.Join(tb.TempDir(), "hot")
	must(0, os.WriteFile(path, make([]byte, 16<<20), 0o600))
	for _, size := range []int{64, 4096} {
		var on, off []float64
		for range max(*rounds, 15) {
			s := spec{Way: "hot", Path: path, Goroutines: size, For: 200 * time.Millisecond}
			on = append(on, s.run().Rate)
			s.Off = true
			off = append(off, s.run().Rate)
		}
		slices.Sort(on)
		slices.Sort(off)
		a, b := on[len(on)/2], off[len(off)/2]
		figure(fmt.Sprintf("hot ReadAt of %d B: on / off", size), a, b, "ns", "at most 3 ns more", a <= b+3)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func encode(s spec) string { return string(must(json.Marshal(s))) }
