package mmapio

import (
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/mmapio/mmapio/internal/limits"
)

// idle is address space that only waits for the collector. A program that
// opens and closes Files without allocating must not run out of it.
var idle idleSpace

type idleSpace struct {
	count, bytes atomic.Int64
	freed        atomic.Uint64 // how often some was given back
	collecting   atomic.Bool
	missed       atomic.Bool // by the collector: more has come since it began
}

const (
	idleCount = 8192    // an eighth of the mappings that a process may have
	idleBytes = 1 << 44 // an eighth of the address space of 47 bits …
	idleSmall = 1 << 28 // … or of 31
	idleLeast = 1 << 26 // not worth a question
)

// idleMost is how many bytes may wait. Where the process has a limit, what waits is
// also what the runtime cannot have, which ends the program.
func idleMost() int64 {
	most := int64(idleSmall)
	if strconv.IntSize == 64 {
		most = idleBytes
	}
	if limit, err := limits.AddressSpace(); err == nil && limit != limits.None {
		most = min(most, limit/8)
	}
	return most
}

func (s *idleSpace) add(n int) {
	count, bytes := s.count.Add(1), s.bytes.Add(int64(n))
	much := count > idleCount || bytes > idleLeast && bytes > idleMost()
	if much {
		s.missed.Store(true)
		s.collect()
	}
}

// collect has the collector run until it has looked for all that made it too much: what
// comes while it is under way may have come too late for it.
func (s *idleSpace) collect() {
	if !s.collecting.CompareAndSwap(false, true) {
		return
	}
	go func() {
		for s.missed.Swap(false) {
			runtime.GC()
		}
		s.collecting.Store(false)
		if s.missed.Load() {
			s.collect()
		}
	}()
}

func (s *idleSpace) sub(n int) {
	s.count.Add(-1)
	s.bytes.Add(-int64(n))
}

// spare calls take, which may fail for want of addresses that closed Files have. Then
// the collector looks for such, and as they are given back it is called again, until
// they are enough.
func (s *idleSpace) spare(take func() error) error {
	seen, collected := s.freed.Load(), false
	err := take()
	// Cleanups run soon after the collection, in goroutines of their own, and each
	// gives back what one File had.
	for waited := 0; isNoMemory(err) && waited < 100; {
		left, freed := s.count.Load(), s.freed.Load()
		switch {
		case freed != seen: // also by a collection that was under way already
			seen = freed
			err = take()
		case left == 0:
			return err
		case !collected:
			collected = true
			runtime.GC()
		default:
			time.Sleep(time.Millisecond)
			waited++
		}
	}
	return err
}
