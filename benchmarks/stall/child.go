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
	Late  float64 // ms, of a ticker, at worst
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

func coldReads(s spec) result {
	read := reader(s)
	var stop atomic.Bool
	var wg sync.WaitGroup
	counts := make([]struct {
		n int
		_ [56]byte
	}, s.Goroutines)
	before := pauses()
	start := time.Now()
	for g := range s.Goroutines {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), uint64(os.Getpid())))
			p := make([]byte, pageSize)
			for !stop.Load() {
				read(p, r.Int64N(fileSize/pageSize)*pageSize)
				counts[g].n++
			}
		})
	}
	worst := make(chan time.Duration)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		last, late := time.Now(), time.Duration(0)
		for !stop.Load() {
			<-tick.C
			now := time.Now()
			late, last = max(late, now.Sub(last)-time.Millisecond), now
		}
		worst <- late
	}()
	if s.Pauses > 0 {
		for count(pauses())-count(before) < uint64(s.Pauses) && time.Since(start) < time.Minute {
			runtime.GC()
		}
	} else {
		time.Sleep(s.For)
	}
	took := time.Since(start)
	after := pauses()
	stop.Store(true)
	late := <-worst
	wg.Wait()
	n := 0
	for i := range counts {
		n += counts[i].n
	}
	return result{
		Rate: float64(n) / took.Seconds(), Late: late.Seconds() * 1e3,
		Pause: quantile(before, after, 0.99) * 1e3,
	}
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
