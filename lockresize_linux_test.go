package mmapio_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// A byteModel says of every byte of a File how it is locked, and of every pin
// what it still covers. It is compared with what the kernel says.
type byteModel struct {
	tb   testing.TB
	pick func(n int64) int64 // a number below n

	f     *mmapio.File
	o     mmapio.Options
	level []mmapio.LockMode
	pins  []modelPin
	log   []string

	limited bool // RLIMIT_MEMLOCK counts
}

type modelPin struct {
	pin    *mmapio.Pin
	lo, hi int64
}

const mostPages = 24

func (m *byteModel) open(dir string) {
	ps := pageSize
	m.o = mmapio.Options{Lock: mmapio.LockMode(m.pick(3)), Reserve: m.pick(2) * mostPages * ps, Prefault: -1}
	size := m.pick(5 * ps)
	var err error
	kind := m.pick(4)
	switch kind {
	case 0:
		m.f, err = mmapio.Anonymous(size, &m.o)
	case 1:
		m.o.NoDump, m.o.NoFork = true, true // with Lock a secret
		m.f, err = mmapio.Anonymous(size, &m.o)
	default:
		path := filepath.Join(dir, "file")
		m.o.Mode, m.o.Offset = mmapio.ReadWrite, (kind-2)*(ps+100)
		check(m.tb, os.WriteFile(path, pattern(m.o.Offset+size, 1), 0o600))
		m.f, err = mmapio.OpenFile(path, &m.o)
	}
	check(m.tb, err)
	m.log = []string{fmt.Sprintf("open %d bytes, kind %d, %v, reserve %d", size, kind, m.o.Lock, m.o.Reserve)}
	m.level = make([]mmapio.LockMode, size)
	m.raise(0, size, m.o.Lock)
}

// raise gives bytes a level, where theirs is lower.
func (m *byteModel) raise(lo, hi int64, to mmapio.LockMode) {
	for i := lo; i < hi; i++ {
		if to == mmapio.LockNow || m.level[i] == mmapio.LockNone {
			m.level[i] = to
		}
	}
}

// done reports whether a call has done what it was to do. If a limit was in the
// way, nothing has changed.
func (m *byteModel) done(err error) bool {
	m.tb.Helper()
	var e *mmapio.LockError
	switch {
	case err == nil:
		return true
	case errors.Is(err, errInjected):
		return false
	case m.limited && errors.As(err, &e) && (e.Cause == mmapio.CauseLimit || e.Cause == mmapio.CausePermission):
		return false
	}
	m.tb.Fatalf("%v, after %q", err, m.log)
	return false
}

func (m *byteModel) step() {
	size := int64(len(m.level))
	lo := m.pick(size + 1)
	hi := lo + m.pick(min(size-lo, 4*pageSize)+1)
	what := m.pick(10)
	m.log = append(m.log, fmt.Sprint(what, " [", lo, " ", hi, ")"))
	switch what {
	case 0, 1:
		if m.done(m.f.Lock(lo, hi-lo)) {
			m.raise(lo, hi, mmapio.LockNow)
		}
	case 2:
		err := m.f.LockContext(context.Background(), lo, hi-lo, &mmapio.LockOptions{OnFault: true})
		if m.done(err) {
			m.raise(lo, hi, mmapio.LockOnFault)
		}
	case 3, 4:
		check(m.tb, m.f.Unlock(lo, hi-lo))
		for i := lo; i < hi; i++ {
			m.level[i] = mmapio.LockNone
		}
	case 5:
		if p, err := m.f.Pin(lo, hi-lo); m.done(err) {
			m.pins = append(m.pins, modelPin{p, lo, hi})
		}
	case 6:
		if n := int64(len(m.pins)); n > 0 {
			i := m.pick(n)
			check(m.tb, m.pins[i].pin.Release())
			check(m.tb, m.pins[i].pin.Release())
			m.pins = append(m.pins[:i], m.pins[i+1:]...)
		}
	case 7, 8:
		m.resize(m.pick(mostPages*pageSize - m.o.Offset))
	case 9:
		if m.limited {
			m.limit(m.pick(60) * pageSize)
		}
	}
	m.check()
}

// resize changes the size, and one step of it may fail.
func (m *byteModel) resize(size int64) {
	if m.pick(3) == 0 {
		left := m.pick(5)
		defer mmapio.SetFailpoint(func(string) error {
			if left--; left == 0 {
				return errInjected
			}
			return nil
		})()
	}
	was := int64(len(m.level))
	m.log = append(m.log, fmt.Sprint("resize ", size))
	if !m.done(m.f.Resize(size)) {
		return
	}
	m.level = append(m.level[:min(was, size)], make([]mmapio.LockMode, max(0, size-was))...)
	for i := range m.pins {
		m.pins[i].hi = min(m.pins[i].hi, size)
	}
	if size > was {
		m.raise(was, size, m.o.Lock)
	}
}

func (m *byteModel) limit(soft int64) {
	var lim unix.Rlimit
	check(m.tb, unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim))
	lim.Cur = min(uint64(soft), lim.Max)
	check(m.tb, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &lim))
}

// check compares with VmFlags and presence, page by page.
func (m *byteModel) check() {
	b := memoryOf(m.tb, m.f)
	if len(b) != len(m.level) {
		m.tb.Fatalf("%d bytes, want %d, after %q", len(b), len(m.level), m.log)
	}
	if len(b) == 0 {
		return
	}
	locked, present := prove.LockedPages(m.tb, b), prove.PresentPages(m.tb, b)
	for i := range locked {
		from, to := pageOf(b, i)
		want := mmapio.LockNone
		for _, l := range m.level[from:to] {
			if l == mmapio.LockNow || want == mmapio.LockNone {
				want = l
			}
			if want == mmapio.LockNow {
				break
			}
		}
		for _, p := range m.pins {
			if max(p.lo, from) < min(p.hi, to) {
				want = mmapio.LockNow
			}
		}
		if locked[i] != (want != mmapio.LockNone) || want == mmapio.LockNow && !present[i] {
			m.tb.Fatalf("page %d of %d is to be %v, is locked: %v, present: %v, after %q", i, len(locked), want, locked[i], present[i], m.log)
		}
		if err := m.f.VerifyLocked(from, to-from); (err == nil) != locked[i] {
			m.tb.Fatalf("page %d is to be %v, VerifyLocked: %v, after %q", i, want, err, m.log)
		}
	}
}

// Random locks, pins and sizes, and failures in between.
func TestProofLockModelResize(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	needLockOf(t, 2*mostPages*pageSize)
	t.Cleanup(mmapio.LockAheadFrom(pageSize))
	fewer(t, "40")
	dir, steps := t.TempDir(), 0
	rapid.Check(t, func(r *rapid.T) {
		m := &byteModel{tb: rapidTB{t, r}, pick: func(n int64) int64 {
			if n <= 1 {
				return 0
			}
			return rapid.Int64Range(0, n-1).Draw(r, "number")
		}}
		m.open(dir)
		defer m.f.Close()
		m.check()
		for range rapid.IntRange(1, 40).Draw(r, "steps") {
			m.step()
			steps++
		}
	})
	t.Logf("%d steps", steps)
}

// limitedModel does the same as a user whose limit changes all the time.
var limitedModel = prove.Register("limited-model", func(args []string) int {
	t := prove.T()
	rounds := uint64(20)
	if prove.E2E() {
		rounds = 100
	}
	for round := range rounds {
		rnd := rand.New(rand.NewPCG(round, 1))
		m := &byteModel{tb: t, limited: true, pick: func(n int64) int64 { return rnd.Int64N(max(n, 1)) }}
		m.limit(60 * pageSize)
		m.open(args[0])
		m.check()
		for range 40 {
			m.step()
		}
		check(t, m.f.Close())
		if n := prove.VmLck(t, 0); n != 0 {
			t.Fatalf("VmLck is %d after Close", n)
		}
	}
	return 0
})

func TestProofLockModelLimited(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Scan)
	needLockOf(t, 60*pageSize)
	dir := prove.PublicDir(t)
	if r := limitedModel.Run(t, asUser(prove.Args(dir), prove.Memlock(uint64(60*pageSize)), prove.Timeout(3*time.Minute))...); r.Code != 0 {
		t.Error(r)
	}
}

// Several goroutines lock, unlock and pin, each where the others do not, while
// another makes the File larger and smaller again behind them.
func TestProofLockModelResizeConcurrent(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	const pages, workers = 40, 4
	needLockOf(t, 4*pages*pageSize)
	t.Cleanup(mmapio.LockAheadFrom(pageSize))
	for _, reserve := range []int64{0, 4 * pages * pageSize} {
		for _, lock := range []mmapio.LockMode{mmapio.LockNone, mmapio.LockNow} {
			path := fileOf(t, pages*pageSize)
			f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Lock: lock, Reserve: reserve, Prefault: -1})
			check(t, f.UnlockAll())
			m := &byteModel{tb: t, f: f, level: make([]mmapio.LockMode, pages*pageSize)}
			var mu sync.Mutex // of pins
			for round := range uint64(4) {
				var wg sync.WaitGroup
				for w := range int64(workers) {
					lo, hi := w*pages*pageSize/workers, (w+1)*pages*pageSize/workers
					rnd := rand.New(rand.NewPCG(round, uint64(w)))
					wg.Go(func() {
						for range 40 {
							off := lo + rnd.Int64N(hi-lo)
							n := rnd.Int64N(hi - off + 1)
							switch rnd.IntN(3) {
							case 0:
								if err := f.Lock(off, n); err != nil {
									t.Error(err)
								}
								m.raise(off, off+n, mmapio.LockNow)
							case 1:
								if err := f.Unlock(off, n); err != nil {
									t.Error(err)
								}
								clear(m.level[off : off+n])
							case 2:
								p, err := f.Pin(off, n)
								if err != nil {
									t.Error(err)
									continue
								}
								if rnd.IntN(4) > 0 {
									check(t, p.Release())
									continue
								}
								mu.Lock()
								m.pins = append(m.pins, modelPin{p, off, off + n})
								mu.Unlock()
							}
						}
					})
				}
				wg.Go(func() {
					for i := range int64(20) {
						if err := f.Resize((pages + i%3*pages) * pageSize); err != nil {
							t.Error(err)
						}
					}
					if err := f.Resize(pages * pageSize); err != nil {
						t.Error(err)
					}
				})
				wg.Wait()
				m.check()
			}
		}
	}
}
