package beside

import (
	"sync/atomic"
	"time"
)

// A Turn keeps short system calls from meeting in the kernel, where each would wait for
// the address space's lock. A call that has waited there is seen by the runtime's
// monitor, which gives its processor to another thread, whose call meets them as well:
// so many short calls from few processors take half as long again.
//
// Nothing depends on it. Who has not got a turn in a short time does without: the one
// who has it may have lost his processor. The zero value is ready.
type Turn struct {
	state atomic.Uint64 // odd while somebody has it
	late  atomic.Uint64 // a state that somebody has waited for in vain
}

// turnWait is much more than a call takes, and much less than a program is stopped for
// when another is to run.
var turnWait = 100 * time.Microsecond

// Run makes a call, in turn if that is to be had.
func (t *Turn) Run(call func() error) error {
	if t.take() {
		defer t.leave()
	}
	return call()
}

// take takes the turn, or reports false.
func (t *Turn) take() bool {
	var began time.Time
	for {
		s := t.state.Load()
		switch {
		case s%2 == 0:
			if t.state.CompareAndSwap(s, s+1) {
				return true
			}
		case s == t.late.Load():
			return false
		case began.IsZero():
			began = time.Now()
		case time.Since(began) > turnWait:
			t.late.Store(s)
			return false
		}
	}
}

func (t *Turn) leave() { t.state.Add(1) }
