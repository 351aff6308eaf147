package mmapio

import (
	"sync"
	"sync/atomic"

	"github.com/mmapio/mmapio/internal/sys"
)

// Prefetch has the system begin to read [off, off+n) into RAM, and returns at
// once, however slow the disk is. What is there when it is needed need not be
// waited for.
//
// It is a hint. Nobody is told of errors; when there are too many ranges to
// come, the oldest are dropped; and Close ends it.
//
// madvise(2) with MADV_WILLNEED, PrefetchVirtualMemory. One call reads no more
// than the device's read-ahead, so there are many, made by a goroutine that
// ends when no range is left.
func (f *File) Prefetch(off, n int64) error { return f.prefetch("prefetch", off, n) }

// A prefetcher keeps the ranges of a File that are to be read.
type prefetcher struct {
	mu      sync.Mutex
	ranges  []Range
	running bool // a goroutine sees to them
	step    int64
}

const (
	prefetchRanges  = 256 // of a File, at most
	prefetchRunning = 64  // goroutines of the process, at most: each may take a thread
)

var prefetching atomic.Int64

func (f *File) prefetch(op string, off, n int64) error {
	if err := f.checkRange(op, off, n); err != nil || n == 0 {
		return err
	}
	p := &f.coming
	p.mu.Lock()
	defer p.mu.Unlock()
	p.add(Range{off, n})
	if p.running {
		return nil
	}
	if prefetching.Add(1) > prefetchRunning {
		prefetching.Add(-1)
		p.ranges = nil
		return nil
	}
	p.running = true
	go f.runPrefetch()
	return nil
}

// add puts a range at the end, joined with the last where they meet.
func (p *prefetcher) add(r Range) {
	if k := len(p.ranges) - 1; k >= 0 {
		last := &p.ranges[k]
		if r.Off >= last.Off && r.Off <= last.Off+last.Len {
			last.Len = max(last.Len, r.Off+r.Len-last.Off)
			return
		}
	}
	if len(p.ranges) == prefetchRanges {
		p.ranges = p.ranges[1:]
	}
	p.ranges = append(p.ranges, r)
}

// next takes a step off the first range, or ends the run.
func (p *prefetcher) next() (off, n int64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.ranges) == 0 {
		p.ranges, p.running = nil, false
		return 0, 0, false
	}
	r := &p.ranges[0]
	off, n = r.Off, min(r.Len, p.step-r.Off%p.step)
	if r.Off, r.Len = r.Off+n, r.Len-n; r.Len == 0 {
		p.ranges = p.ranges[1:]
	}
	return off, n, true
}

func (p *prefetcher) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ranges = nil
}

func (f *File) runPrefetch() {
	defer prefetching.Add(-1)
	p := &f.coming
	if p.step == 0 {
		p.step = f.src.readAhead()
	}
	for {
		off, n, ok := p.next()
		if !ok {
			return
		}
		err := f.mapped("prefetch", func(g *generation) error {
			if n = min(n, int64(len(g.data))-off); n > 0 {
				lo, hi := g.pages(off, n)
				g.mem.space.Advise(g.mem.base+lo, hi-lo, sys.WillNeed) //nolint:errcheck // a hint
			}
			return nil
		})
		if err != nil {
			p.drop()
		}
	}
}
