package mmapio

import (
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mmapio/mmapio/internal/sys"
)

// A SyncPolicy says when what was written is synced without being asked, as
// [File.Sync] does: whichever of its fields comes first. The zero value is
// never.
//
// WriteAt, Update, UpdateChunks and StoreAt count. Each is one write, of the
// bytes that it stored, which for Update is all that it lent; UpdateChunks
// counts the bytes piece by piece and is one write when it ends. The call that
// reaches a limit syncs before it returns, and other writers go on meanwhile;
// if the sync fails, WriteAt returns len(p) and the error, for what it wrote is
// in the file, but perhaps not on the disk.
//
// Stores through a Region, Value or Values are not counted. While one is held
// there is a sync after each Interval; with an Interval of 0 they wait for the
// next sync.
//
// Close syncs what is left and returns the error. An error, also of a sync that
// nobody waited for, is returned by every later WriteAt, Update, UpdateChunks
// and StoreAt, by every Sync, and by Close. Of a File that is dropped without
// Close, what an Interval promised is still done, and no more than that.
type SyncPolicy struct {
	// Bytes is how many bytes may be written before there is a sync; 0 means
	// any number.
	Bytes int64
	// Writes is how many writes there are to a sync; 1 means that each is
	// synced before it returns, 0 that they do not matter.
	Writes int64
	// Interval is how long after a write it is synced at the latest, besides
	// the time that the sync takes; 0 means that time does not matter. No
	// goroutine waits for it: there is a timer from the first write that is not
	// synced on.
	Interval time.Duration
}

// A policy counts writes and has them synced. It must not lead to the File,
// since the timer leads to it.
type policy struct {
	SyncPolicy
	syncer *syncer

	bytes, writes atomic.Int64 // since the last sync began
	armed         atomic.Bool  // a tick is to come
	held          atomic.Int64 // Regions and the like

	mu    sync.Mutex
	timer *time.Timer
	ended bool
	ticks sync.WaitGroup // those that are at it
}

func (f *File) setPolicy(p SyncPolicy) {
	if p == (SyncPolicy{}) {
		return
	}
	f.policy = &policy{SyncPolicy: p, syncer: f.syncer}
	f.syncer.policy = f.policy
}

// wrote counts n bytes and some writes, which have been made, and syncs if that
// is due. It returns an error also for a sync that failed before.
func (f *File) wrote(op string, n, writes int64) error {
	p := f.policy
	due := p.Bytes > 0 && p.bytes.Add(n) >= p.Bytes
	if p.Writes > 0 && p.writes.Add(writes) >= p.Writes {
		due = true
	}
	if due {
		return f.policyFailed(op, p.syncer.all(f.flushAll))
	}
	if p.syncer.failed.Load() != nil {
		return f.policyFailed(op, p.syncer.earlier())
	}
	if f.cur.Load() == closedGeneration {
		return f.fail(op, fs.ErrClosed) // perhaps after the last sync: somebody holds the memory
	}
	if !p.armed.Load() {
		p.arm()
	}
	return nil
}

// also adds to the error of a call that has stored n bytes that of the policy.
func (f *File) also(err error, op string, n, writes int64) error {
	if f.policy == nil {
		return err
	}
	if late := f.wrote(op, n, writes); err == nil {
		err = late
	}
	return err
}

// A policyError is about a sync that nobody called for.
type policyError struct{ err error }

func (e *policyError) Error() string { return "the sync that Options.Sync asks for: " + e.err.Error() }
func (e *policyError) Unwrap() error { return e.err }

func (f *File) policyFailed(op string, err error) error {
	if err == nil || isClosed(err) {
		return f.syncFailed(op, err)
	}
	return f.fail(op, &policyError{underlying(err)})
}

// update is Update under a policy. What fn has stored counts however it ends.
func (f *File) update(off, n int64, fn func(b []byte) error) (err error) {
	const op = "update"
	called := false
	defer func() {
		if called && n > 0 {
			err = f.also(err, op, n, 1)
		}
	}()
	return f.lend(op, off, n, func(b []byte) error {
		called = true
		return fn(b)
	}, nil)
}

// arm sees to it that there is a tick.
func (p *policy) arm() {
	if p.Interval == 0 || !p.armed.CompareAndSwap(false, true) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ended:
	case p.timer == nil:
		p.timer = time.AfterFunc(p.Interval, p.tick)
	default:
		p.timer.Reset(p.Interval)
	}
}

// tick syncs, in the timer's goroutine.
func (p *policy) tick() {
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return
	}
	p.ticks.Add(1)
	p.mu.Unlock()
	defer p.ticks.Done()

	// First of all: whoever stores from now on arms again.
	p.armed.Store(false)
	f := p.syncer.src.owner.Value()
	var flush func() error
	if f != nil {
		flush = f.flushAll
	}
	err := p.syncer.quietly(flush)
	if err == nil && f != nil && p.held.Load() > 0 {
		p.arm()
	}
}

// hold counts one who stores without being counted.
func (p *policy) hold() {
	if failpoint("held") == nil {
		p.held.Add(1)
		p.arm()
	}
}

// release ends what hold began.
func (p *policy) release() {
	if failpoint("held") == nil {
		p.held.Add(-1)
		p.arm() // the tick that is under way may have come too early
	}
}

// end lets no tick begin, and waits for one that has.
func (p *policy) end() {
	p.mu.Lock()
	p.ended = true
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	p.ticks.Wait()
}

// syncBeforeClose is for systems that need the mapping to sync what was stored
// through it.
func (f *File) syncBeforeClose() {
	if sys.FlushBeforeSync && f.policy != nil && f.cur.Load() != closedGeneration {
		f.policy.syncer.quietly(f.flushAll) //nolint:errcheck // remembered: syncAtClose returns it
	}
}

// syncAtClose makes the last sync of a File whose memory is gone already, so
// that no writer is still at it.
func (f *File) syncAtClose() error {
	if f.policy == nil {
		return nil
	}
	f.policy.end()
	if err := f.policy.syncer.all(nil); err != nil && !isClosed(err) {
		return f.policyFailed("close", err)
	}
	return nil
}

// check looks for what makes no sense.
func (p SyncPolicy) check() string {
	switch {
	case p.Bytes < 0:
		return "Bytes is negative"
	case p.Writes < 0:
		return "Writes is negative"
	case p.Interval < 0:
		return "Interval is negative: " + p.Interval.String()
	}
	return ""
}
