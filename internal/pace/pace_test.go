package pace

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"
)

// A disk of the tests: how long it takes to answer, and how many bytes a second
// it can do at most. Bytes in memory take only work.
type disk struct {
	latency   time.Duration
	bandwidth float64
	readAhead int64
	memory    float64
	cached    func(at int64) bool // nil: nothing is
	noise     float64
	// How many times as long the disk takes now and then; nil: never.
	times func(at int64, w Window) float64
}

type event struct {
	end    time.Time
	w      Window
	bytes  int64
	took   time.Duration
	waited bool
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].end.Before(e[j].end) }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// A result is what came of a run, by the plan that was in force.
type result struct {
	took    time.Duration
	bytes   map[string]int64
	most    int // windows side by side
	largest int64
	longest time.Duration // window that did not wait
	mode    string        // at the end
}

func (r *result) rate(total int64) float64 { return float64(total) / r.took.Seconds() }

// simulate brings total bytes in without waiting for anything.
func simulate(t *testing.T, d disk, total int64, always bool) *result {
	t.Helper()
	p := New(func() int64 { return d.readAhead }, always)
	now := time.Unix(0, 0)
	start := now
	res := &result{bytes: map[string]int64{}}
	var under events
	busFree := now // when the disk can do the next
	for at := int64(0); at < total || len(under) > 0; {
		if at < total {
			if w, ok := p.Next(now); ok {
				n := min(w.Size, total-at)
				e := event{w: w, bytes: n}
				began := now
				mode := "alone"
				if w.Ahead {
					mode = "ahead"
				}
				if d.cached != nil && d.cached(at) {
					e.took = time.Duration(float64(n) / d.memory * 1e9)
					res.longest = max(res.longest, e.took)
					mode = "memory"
				} else {
					work := time.Duration(float64(n) / d.bandwidth * (1 + d.noise*rand.Float64()) * 1e9)
					if d.times != nil {
						work = time.Duration(float64(work) * d.times(at, w))
					}
					busy := began
					if busFree.After(busy) {
						busy = busFree
					}
					busFree = busy.Add(work)
					e.waited = true
					e.took = busFree.Sub(began)
					if w.Ahead {
						e.took = max(e.took, d.latency)
					} else {
						// The kernel reads two steps ahead of what it waits for. The
						// caller asks for what is left of a large window.
						alone := min(n, Stream)
						e.took = max(e.took, time.Duration((alone+d.readAhead-1)/d.readAhead)*d.latency/2)
					}
				}
				e.end = began.Add(e.took)
				heap.Push(&under, e)
				at += n
				res.bytes[mode] += n
				res.mode = mode
				res.most = max(res.most, len(under))
				res.largest = max(res.largest, n)
				continue
			}
			if len(under) == 0 {
				t.Fatalf("stuck at %d of %d: %+v", at, total, *p)
			}
		}
		e := heap.Pop(&under).(event)
		now = e.end
		p.Done(e.w, e.bytes, e.took, e.waited)
	}
	res.took = now.Sub(start)
	return res
}

const gib = 1 << 30

func TestSlowDiskIsReadSideBySide(t *testing.T) {
	d := disk{latency: 2 * time.Millisecond, bandwidth: 2e9, readAhead: 128 << 10}
	res := simulate(t, d, 256<<20, false)
	if stream := 2 * 128 * 1024 / 2e-3; res.rate(256<<20) < 5*stream {
		t.Errorf("%.0f bytes a second, a stream does %.0f", res.rate(256<<20), stream)
	}
	if res.most < 4 || res.mode != "ahead" {
		t.Errorf("%d windows side by side at most, %s at the end", res.most, res.mode)
	}
	for _, d.latency = range []time.Duration{20 * time.Millisecond, 100 * time.Millisecond} {
		if res := simulate(t, d, 4*gib, false); res.most != Most {
			t.Errorf("latency %v: %d windows side by side at most", d.latency, res.most)
		}
	}
}

func TestFastDiskIsReadInOneStream(t *testing.T) {
	for _, noise := range []float64{0, 1} { // up to half as fast now and then
		d := disk{latency: 100 * time.Microsecond, bandwidth: 3e9, readAhead: 8 << 20, noise: noise}
		res := simulate(t, d, 8*gib, false)
		if share := float64(res.bytes["alone"]) / (8 * gib); share < 0.95 || res.mode != "alone" {
			t.Errorf("noise %v: %.2f in a stream", noise, share)
		}
		if res.most > 4 || res.largest != Stream {
			t.Errorf("noise %v: %d windows side by side, the largest of %d", noise, res.most, res.largest)
		}
	}
}

// fastDisk is one that a stream gets the most of.
var fastDisk = disk{latency: 100 * time.Microsecond, bandwidth: 5e9, readAhead: 8 << 20}

// A stream that was measured while the disk was slow for a moment is measured
// again before anything else is preferred to it.
func TestDiskThatIsSlowForAMoment(t *testing.T) {
	for _, mib := range []int64{10, 20, 40, 60, 80, 100} {
		d := fastDisk
		d.times = func(at int64, _ Window) float64 {
			if at < mib<<20 {
				return 3
			}
			return 1
		}
		res := simulate(t, d, 4*gib, false)
		if share := float64(res.bytes["alone"]) / (4 * gib); share < 0.9 {
			t.Errorf("slow for %d MiB: %.2f in a stream", mib, share)
		}
	}
	// Once, and very slow, where windows side by side are tried anew.
	for from := int64(gib); from < 3*gib/2; from += 16 << 20 {
		d := fastDisk
		d.times = func(at int64, w Window) float64 {
			if w.Alone && at >= from && at < from+16<<20 {
				return 20
			}
			return 1
		}
		res := simulate(t, d, 4*gib, false)
		if share := float64(res.bytes["alone"]) / (4 * gib); share < 0.9 {
			t.Errorf("very slow from %d MiB: %.2f in a stream", from>>20, share)
		}
	}
}

// What the stream does in windows that are still small is not what is compared.
func TestStreamIsMeasuredInFullWindows(t *testing.T) {
	d := fastDisk
	d.times = func(_ int64, w Window) float64 {
		if w.Alone && w.Size < Stream {
			return 4
		}
		return 1
	}
	if res := simulate(t, d, gib, false); res.most > 2 {
		t.Errorf("%d windows side by side", res.most)
	}
}

func TestMemoryIsTakenInLargeWindows(t *testing.T) {
	all := func(int64) bool { return true }
	res := simulate(t, disk{memory: 400e9, readAhead: 128 << 10, cached: all}, 2*gib, false)
	if res.most != 1 || res.largest != Large {
		t.Errorf("%d side by side, the largest of %d", res.most, res.largest)
	}
	// Small pages take much longer: no window keeps others waiting long.
	for _, memory := range []float64{7e9, 20e9} {
		res = simulate(t, disk{memory: memory, readAhead: 128 << 10, cached: all}, 2*gib, false)
		if res.most != 1 || res.longest > 3*quick {
			t.Errorf("at %.0f bytes a second %d side by side, the longest took %v", memory, res.most, res.longest)
		}
	}
}

func TestFileCachedInPart(t *testing.T) {
	d := disk{latency: 2 * time.Millisecond, bandwidth: 2e9, readAhead: 128 << 10, memory: 100e9}
	for name, cached := range map[string]func(int64) bool{
		"begin":  func(at int64) bool { return at < gib },
		"end":    func(at int64) bool { return at >= gib },
		"middle": func(at int64) bool { return at >= gib/2 && at < 3*gib/2 },
		"strips": func(at int64) bool { return at/(256<<20)%2 == 0 },
	} {
		d.cached = cached
		res := simulate(t, d, 2*gib, false)
		// Half of it at 2 GB/s takes half a second; alone it would be 8 s.
		if res.took > 1500*time.Millisecond {
			t.Errorf("%s: %v", name, res.took)
		}
	}
	d.cached = func(at int64) bool { return at >= gib }
	if res := simulate(t, d, 8*gib, false); res.largest != Large {
		t.Errorf("in memory from half way on: the largest window had %d bytes", res.largest)
	}
}

// Where waits cannot be told, the throughput alone decides.
func TestWaitsNotKnown(t *testing.T) {
	d := disk{latency: 2 * time.Millisecond, bandwidth: 2e9, readAhead: 128 << 10}
	if res := simulate(t, d, gib, true); res.mode != "ahead" || res.most < 4 {
		t.Errorf("%s at the end, %d side by side", res.mode, res.most)
	}
	d = disk{memory: 10e9, readAhead: 128 << 10, cached: func(int64) bool { return true }}
	if res := simulate(t, d, gib, true); res.longest > slow {
		t.Errorf("the longest took %v", res.longest)
	}
}

// Whatever is told, the Pace never stops with nothing under way, and never has
// more than Most windows.
func TestNeverStuck(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := New(func() int64 { return r.Int64N(16 << 20) }, seed%3 == 0)
		now := time.Unix(0, 0)
		var under []Window
		for range 2000 {
			now = now.Add(time.Duration(r.Int64N(int64(5 * time.Millisecond))))
			w, ok := p.Next(now)
			switch {
			case ok:
				if under = append(under, w); len(under) > Most || w.Size < Small || w.Size > Large {
					t.Fatalf("seed %d: %d windows, the last %+v", seed, len(under), w)
				}
				if w.Alone && len(under) > 1 {
					t.Fatalf("seed %d: a window that is to be alone is not", seed)
				}
			case len(under) == 0:
				t.Fatalf("seed %d: stuck: %+v", seed, *p)
			}
			if !ok || r.IntN(3) == 0 {
				i := r.IntN(len(under))
				w := under[i]
				under = append(under[:i], under[i+1:]...)
				n := w.Size
				if r.IntN(4) == 0 {
					n = 1 + r.Int64N(n) // cut short
				}
				p.Done(w, n, time.Duration(r.Int64N(int64(30*time.Millisecond))), r.IntN(2) == 0)
			}
		}
	}
}

// A stream that is right is looked at three times in six seconds where the kernel
// reads far ahead, and once in the first.
func TestLooksBecomeRare(t *testing.T) {
	one := simulate(t, fastDisk, gib/2, false).bytes["ahead"]
	for total, looks := range map[int64]int64{4 * gib: 1, 32 * gib: 3} {
		if all := simulate(t, fastDisk, total, false).bytes["ahead"]; all > looks*one {
			t.Errorf("%d MiB side by side of %d GiB, %d at each look", all>>20, total/gib, one>>20)
		}
	}
}
