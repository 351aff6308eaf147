package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
)

const childEnv = "MMAPIO_STALL_CHILD"

// A spec says what a child process does.
type spec struct {
	Way, Path  string
	Goroutines int // for "hot": bytes
	For        time.Duration
	Pauses     int // go on until the collector has stopped the world so often
	Off        bool
	Twice      bool // in a row, as package lock does and says why
}

type result struct {
	Rate  float64 // a second; MB for scans; ns for "hot"
	Late  float64 // ms, of a ticker, at worst, after the lead
	First float64 // ms, the same within the lead
	Pause float64 // ms, 99 % of them
}

// run does it in a process of its own: what one side leaves in memory must not
// help the other.
func (s spec) run() (r result) {
	if s.Way == "dd" {
		start := time.Now()
		must(0, exec.Command("dd", "if="+s.Path, "of=/dev/null", "bs=1M", "status=none").Run())
		return result{Rate: fileSize / 1e6 / time.Since(start).Seconds()}
	}
	cmd := exec.Command(must(os.Executable()))
	cmd.Env = append(os.Environ(), childEnv+"="+encode(s), "GOMAXPROCS=2")
	if s.Off {
		cmd.Env = append(cmd.Env, "MMAPIO_DEBUG=nopopulate")
	}
	cmd.Stderr = os.Stderr
	out := must(cmd.Output())
	must(0, json.NewDecoder(bytes.NewReader(out)).Decode(&r))
	return r
}

func measure(text string) {
	var s spec
	must(0, json.Unmarshal([]byte(text), &s))
	var r result
	switch s.Way {
	case "hot":
		r.Rate = hotReads(s)
	case "Chunks":
		r.Rate = chunks(s)
	default:
		r = coldReads(s)
	}
	fmt.Println(string(must(json.Marshal(r))))
	os.Exit(0) // without a munmap of what is being read
}

const pageSize = 4096

var sink atomic.Uint64

// reader returns what reads one page into p.
func reader(s spec) func(p []byte, off int64) {
	switch s.Way {
	case plain:
		file := must(os.Open(s.Path))
		data := must(unix.Mmap(int(file.Fd()), 0, fileSize, unix.PROT_READ, unix.MAP_SHARED))
		return func(p []byte, off int64) { copy(p, data[off:off+pageSize]) }
	case pread:
		file := must(os.Open(s.Path))
		return func(p []byte, off int64) { must(file.ReadAt(p, off)) }
	case viewing:
		f := must(mmapio.Open(s.Path))
		return func(p []byte, off int64) {
			must(0, f.View(off, pageSize, func(b []byte) error { copy(p, b); return nil }))
		}
	default:
		f := must(mmapio.Open(s.Path))
		return func(p []byte, off int64) { must(f.ReadAt(p, off)) }
	}
}

// lead is how long all sides read before they are measured. The runtime's
// monitor, which takes the processors of goroutines that wait in system calls,
// sleeps up to 10 ms at a time where it found nothing to do for 20 ms, and takes
// two looks. So the first reads of a process stand in each other's way if it
// came to them late enough, by pread(2) as well: a matter of what the program
// did before, not of how it reads.
const lead = 100 * time.Millisecond

func coldReads(s spec) result {
	read := reader(s)
	var stop atomic.Bool
	var wg sync.WaitGroup
	counts := make([]struct {
		n atomic.Int64
		_ [56]byte
	}, s.Goroutines)
	began := time.Now()
	ticks := []time.Duration{0} // when they came
	ticking := make(chan struct{})
	go func() {
		defer close(ticking)
		tick := time.NewTicker(time.Millisecond)
		<-tick.C
		ticking <- struct{}{} // it runs before anyone reads
		for !stop.Load() {
			<-tick.C
			ticks = append(ticks, time.Since(began))
		}
	}()
	<-ticking
	for g := range s.Goroutines {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), uint64(os.Getpid())))
			p := make([]byte, pageSize)
			for !stop.Load() {
				read(p, r.Int64N(fileSize/pageSize)*pageSize)
				counts[g].n.Add(1)
			}
		})
	}
	total := func() (n float64) {
		for i := range counts {
			n += float64(counts[i].n.Load())
		}
		return n
	}
	time.Sleep(lead)
	reads, before, start := total(), pauses(), time.Now()
	if s.Pauses > 0 {
		for count(pauses())-count(before) < uint64(s.Pauses) && time.Since(start) < time.Minute {
			runtime.GC()
		}
	} else {
		time.Sleep(s.For)
	}
	took, after := time.Since(start), pauses()
	reads = total() - reads
	stop.Store(true)
	<-ticking
	wg.Wait()
	led := start.Sub(began)
	return result{
		Rate: reads / took.Seconds(), Pause: quantile(before, after, 0.99) * 1e3,
		First: latest(ticks, 0, led), Late: latest(ticks, led, led+took),
	}
}

// latest is by how many ms the latest tick between from and to was late. What is
// waited for over an edge counts with its part inside.
func latest(ticks []time.Duration, from, to time.Duration) float64 {
	worst := time.Millisecond
	for i := range ticks[1:] {
		worst = max(worst, min(to, ticks[i+1])-max(from, ticks[i]))
	}
	return (worst - time.Millisecond).Seconds() * 1e3
}

// pauses are how long the world was stopped for collections, from the request
// on.
func pauses() *metrics.Float64Histogram {
	sample := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}}
	metrics.Read(sample)
	return sample[0].Value.Float64Histogram()
}

func count(h *metrics.Float64Histogram) (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}

func quantile(before, after *metrics.Float64Histogram, q float64) float64 {
	rest := float64(count(after)-count(before)) * q
	for i, c := range after.Counts {
		if rest -= float64(c - before.Counts[i]); rest <= 0 {
			return after.Buckets[i+1]
		}
	}
	return after.Buckets[len(after.Buckets)-1]
}

func hotReads(s spec) float64 {
	f := must(mmapio.Open(s.Path))
	p := make([]byte, s.Goroutines)
	const span = 256 << 10 // what the processor's caches have
	for off := int64(0); off < span; off += pageSize {
		must(f.ReadAt(p, off))
	}
	start, n := time.Now(), 0
	for time.Since(start) < s.For {
		for range 1000 {
			must(f.ReadAt(p, int64(n)*4160&(span-1)))
			n++
		}
	}
	return float64(time.Since(start).Nanoseconds()) / float64(n)
}

func chunks(s spec) float64 {
	f := must(mmapio.Open(s.Path))
	start, sum := time.Now(), uint64(0)
	for c, err := range f.Chunks(0, f.Size(), 1<<20) {
		must(0, err)
		for i := 0; i < len(c.Data); i += 64 {
			sum += uint64(c.Data[i])
		}
	}
	sink.Add(sum)
	return fileSize / 1e6 / time.Since(start).Seconds()
}
