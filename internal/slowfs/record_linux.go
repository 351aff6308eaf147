//go:build !(386 || arm || mips || mipsle)

package slowfs

import (
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxLog keeps a long test from filling the memory with a log that nobody reads.
const maxLog = 1 << 18

// recorder is the log, the counters and the rules: all that has to do with requests and not with files.
type recorder struct {
	mu    sync.Mutex
	log   []*Entry
	stats Stats
	busy  map[Op]int
	rules []*activeRule
	last  int64
	cut   chan struct{} // closed by a power cut, so that nothing goes on waiting over it
}

type activeRule struct {
	Rule
	id, errno int64
	gone      chan struct{}
}

func newRecorder() *recorder {
	r := &recorder{busy: map[Op]int{}, cut: make(chan struct{})}
	r.reset()
	return r
}

func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = nil
	held := r.stats.Held
	r.stats = Stats{Count: map[Op]int{}, Bytes: map[Op]int64{}, Peak: map[Op]int{}, Held: held}
}

func (r *recorder) begin(e Entry) *Entry {
	e.Start = time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.log) <= maxLog {
		r.log = append(r.log, &e)
	}
	r.stats.Count[e.Op]++
	if ranged(e.Op) {
		r.stats.Bytes[e.Op] += e.Len
	}
	r.busy[e.Op]++
	r.stats.Peak[e.Op] = max(r.stats.Peak[e.Op], r.busy[e.Op])
	return &e
}

func (r *recorder) end(e *Entry, errno int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Took, e.Done, e.Errno = time.Since(e.Start), true, errno
	r.busy[e.Op]--
}

func ranged(op Op) bool { return op == OpRead || op == OpWrite || op == OpFallocate }

// matches works out what the rules say about a request.
func (r *recorder) matches(e *Entry, delay time.Duration) (time.Duration, []chan struct{}, int) {
	var holds []chan struct{}
	errno := 0
	for i := 0; i < len(r.rules); i++ {
		u := r.rules[i]
		if u.Op != e.Op || u.Path != "" && u.Path != e.Path {
			continue
		}
		if ranged(e.Op) && (e.Off+e.Len <= u.Off || u.Len > 0 && e.Off >= u.Off+u.Len) {
			continue
		}
		if errno != 0 && u.errno != 0 {
			continue // not this one's turn: its Times are left for a request that it decides
		}
		delay += u.Delay
		if u.Hold {
			holds = append(holds, u.gone)
		}
		if u.errno != 0 {
			errno = int(u.errno)
		}
		if u.Times > 0 {
			if u.Times--; u.Times == 0 && !u.Hold { // a hold stays, or what it holds would go
				r.rules = slices.Delete(r.rules, i, i+1)
				i--
			} else if u.Times == 0 {
				u.Op = "" // matches nothing more
			}
		}
	}
	return delay, holds, errno
}

// wait lets the time pass that a request takes, and says how it ends: with an error, or by being carried out.
func (r *recorder) wait(e *Entry, delay time.Duration) int {
	r.mu.Lock()
	delay, holds, errno := r.matches(e, delay)
	cut := r.cut
	if len(holds) > 0 {
		r.stats.Held++
	}
	r.mu.Unlock()

	for _, gone := range holds {
		select {
		case <-gone:
		case <-cut:
		}
	}
	if len(holds) > 0 {
		r.mu.Lock()
		r.stats.Held--
		r.mu.Unlock()
	}
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-cut:
		}
	}
	select {
	case <-cut:
		return int(unix.EIO)
	default:
		return errno
	}
}

func (r *recorder) add(u Rule, errno int) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	r.rules = append(r.rules, &activeRule{u, r.last, int64(errno), make(chan struct{})})
	return r.last
}

// remove lifts one rule, or all if id is 0. One that has had its Times is gone already.
func (r *recorder) remove(id int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rules = slices.DeleteFunc(r.rules, func(u *activeRule) bool {
		if id != 0 && u.id != id {
			return false
		}
		close(u.gone)
		return true
	})
}

func (r *recorder) powerCut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.cut)
}

func (r *recorder) powerOn() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = make(chan struct{})
}

// entries copies the log, since requests are still being finished.
func (r *recorder) entries(ops []Op) ([]Entry, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.log) > maxLog {
		return nil, false
	}
	out := []Entry{}
	for _, e := range r.log {
		if len(ops) == 0 || slices.Contains(ops, e.Op) {
			out = append(out, *e)
		}
	}
	return out, true
}

func (r *recorder) snapshot() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Count, s.Bytes, s.Peak = maps.Clone(s.Count), maps.Clone(s.Bytes), maps.Clone(s.Peak)
	return s
}
