package mmapio_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// stormTime is how long a storm lasts: MMAPIO_STORM, 30 s where everything is
// proved, else a second.
func stormTime(t *testing.T) time.Duration {
	t.Helper()
	if s := os.Getenv("MMAPIO_STORM"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if prove.E2E() {
		return 30 * time.Second
	}
	return time.Second
}

const (
	stormKept = 16 // pages that nobody ever cuts off
	stormMost = 96
)

// A storm is one file, or memory without one, and all who use it at once.
type storm struct {
	t     *testing.T
	path  string // "": Anonymous
	pages *stormPages
	now   atomic.Pointer[stormFile] // replaced by those who close
	ro    atomic.Pointer[stormFile] // a second File over the same file, that follows it, if there is one
	added atomic.Int64              // to the shared counter

	stop   atomic.Bool
	mu     sync.Mutex
	counts map[string]int
	wrongs int
}

// A stormFile is a File that starts at a page of the file.
type stormFile struct {
	*mmapio.File
	first int64
}

// TestStorm: whatever is done to one file at once, nobody crashes, no byte is
// wrong, and every error is one that the documentation knows.
func TestStorm(t *testing.T) {
	needMaps(t)
	prove.Need(t, prove.BusAddress) // whoever reads while his File is closed meets what its successor cuts off
	prove.LeakCheck(t)
	s := &storm{t: t, path: filepath.Join(tempDir(t), "file"), pages: newStormPages(0x5EED, stormMost+1)}
	if err := os.WriteFile(s.path, make([]byte, stormKept*pageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	decoy := s.decoy()
	more := map[string]int{"refresh": 1, "decoy": 1}
	// A second File is in the way of every cut, as any other mapping, or meets
	// pages that were cut off.
	if reserves && cuts {
		s.ro.Store(&stormFile{mustOpen(t, s.path, nil), 0})
		more["follow"], more["refresh follower"], more["cut"] = 1, 1, 1
	}
	s.run(stormTime(t), more, decoy)
}

// TestStormAnonymous: memory that is copied when it moves, whose copiers are
// counted.
func TestStormAnonymous(t *testing.T) {
	needMaps(t)
	prove.LeakCheck(t)
	s := &storm{t: t, pages: newStormPages(0xA11, stormMost+1)}
	s.run(stormTime(t)/2, nil, nil)
}

func (s *storm) run(duration time.Duration, more map[string]int, decoy func(r *rand.Rand)) {
	defer goleak.VerifyNone(s.t, goleak.IgnoreCurrent())
	t := s.t
	s.counts = map[string]int{}
	s.reopen(rand.New(rand.NewPCG(1, 1)))
	kinds := map[string]func(r *rand.Rand){
		"read": s.read(&s.now), "write": s.write, "view": s.view, "update": s.update, "region": s.region,
		"load": s.load, "count": s.count, "chunks": s.chunks, "lock": s.lock, "resize": s.resize, "close": s.close,
		"collect": func(*rand.Rand) { runtime.GC(); time.Sleep(10 * time.Millisecond) },
	}
	if s.path != "" {
		kinds["cut"], kinds["refresh"], kinds["decoy"] = s.cut, s.refresh(&s.now), decoy
		kinds["follow"], kinds["refresh follower"] = s.read(&s.ro), s.refresh(&s.ro)
	}
	workers := map[string]int{"read": 3, "write": 2, "view": 2, "update": 1, "region": 2, "load": 1, "count": 2,
		"chunks": 1, "lock": 2, "resize": 2, "close": 1, "collect": 1}
	for kind, n := range more {
		workers[kind] = n
	}
	var wg sync.WaitGroup
	seed := uint64(time.Now().UnixNano())
	for kind, n := range workers {
		for i := range n {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(i)))
				for !s.stop.Load() {
					kinds[kind](r)
					s.tally(kind, nil)
				}
			})
		}
	}
	time.Sleep(duration)
	s.stop.Store(true)
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	select {
	case <-finished:
	case <-time.After(time.Minute):
		buf := make([]byte, 1<<20)
		t.Fatalf("someone waits for ever:\n%s", buf[:runtime.Stack(buf, true)])
	}
	s.end(duration)
}

// end looks at everything once more, in quiet.
func (s *storm) end(duration time.Duration) {
	t, f := s.t, s.now.Load()
	mustResize(t, f.File, (stormMost-f.first)*pageSize)
	buf := make([]byte, pageSize)
	for p := max(f.first, 1); p < stormMost; p++ {
		if _, err := f.ReadAt(buf, (p-f.first)*pageSize); err != nil {
			t.Error(err)
		}
		if err := s.pages.check(buf, p, 0); err != nil {
			t.Error("in the end: ", err)
		}
	}
	if err := f.UnlockAll(); err != nil {
		t.Error(err)
	}
	if s.path != "" {
		if n := sizeOnDisk(t, s.path); n != stormMost*pageSize {
			t.Errorf("%d bytes on disk", n)
		}
		if ro := s.ro.Load(); ro != nil {
			mustClose(t, ro.File)
		}
		want := s.added.Load()
		if f.first > 0 { // the counter is on the first page
			mustClose(t, f.File)
			f = &stormFile{mustOpen(t, s.path, nil), 0}
		}
		if got, err := mmapio.LoadAt[uint64](f.File, 0); err != nil || int64(got) != want {
			t.Errorf("counted %d, want %d: %v", got, want, err)
		}
	}
	mustClose(t, f.File)
	var kinds []string
	total := 0
	for kind, n := range s.counts {
		kinds = append(kinds, fmt.Sprintf("%s %d", kind, n))
		if !strings.HasPrefix(kind, "! ") {
			total += n
		}
	}
	slices.Sort(kinds)
	t.Logf("%d operations in %v, %d pages checked strictly, %d after a cut; %s", total, duration,
		s.pages.strict.Load(), s.pages.lenient.Load(), strings.Join(kinds, ", "))
}

// tally counts an operation, and errors by kind. An error that nobody
// documented is wrong.
func (s *storm) tally(kind string, err error) {
	var (
		re *mmapio.RangeError
		fe *mmapio.FaultError
		le *mmapio.LockError
		pe *fs.PathError
	)
	is := ""
	switch {
	case err == nil:
	case err == io.EOF: //nolint:errorlint // never wrapped
		is = "! EOF"
	case errors.As(err, &re):
		is = "! range"
	case errors.As(err, &fe):
		is = "! fault"
		if s.path == "" || fe.FileOff < stormKept*pageSize {
			s.wrong(kind, err)
		}
	case errors.As(err, &le):
		// What a page that could not be brought in wanted for cannot be seen any
		// more when the file is longer again: then it is unknown.
		is = "! " + kind + ": " + le.Cause.String()
		switch le.Cause {
		case mmapio.CauseUnknown, mmapio.CauseBeyondEOF, mmapio.CauseLimit:
		default:
			s.wrong(kind, err)
		}
	case errors.Is(err, context.Canceled):
		is = "! cancelled"
	case !errors.As(err, &pe):
		s.wrong(kind, err)
	case errors.Is(err, mmapio.ErrBusy):
		is = "! busy"
	case errors.Is(err, fs.ErrClosed):
		is = "! closed"
		time.Sleep(20 * time.Microsecond) // until there is another File
	default:
		s.wrong(kind, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.counts[kind]++
	} else {
		s.counts[is]++
	}
}

func (s *storm) wrong(kind string, err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wrongs++; s.wrongs < 20 {
		s.t.Errorf("%s: %T %v", kind, err, err)
	}
	s.stop.Store(true)
}

// result takes what went wrong and what was refused.
func (s *storm) result(kind string, wrong, err error) {
	s.wrong(kind, wrong)
	if err != nil {
		s.tally(kind, err)
	}
}

// page picks one that the File had a moment ago, or nearly, and not the first,
// which has the counter. Half of them are never cut.
func (s *storm) page(r *rand.Rand, f *stormFile) (page, off int64) {
	n := f.first + f.Size()/pageSize + 1
	if r.IntN(2) == 0 || n <= stormKept {
		n = stormKept
	}
	page = max(f.first, 1)
	page += r.Int64N(min(n, stormMost) - page)
	return page, (page - f.first) * pageSize
}

func (s *storm) reopen(r *rand.Rand) {
	reserve := []int64{0, stormMost / 2, 2 * stormMost}[r.IntN(3)] * pageSize
	if !reserves {
		reserve = 0
	}
	f := &stormFile{}
	var err error
	if s.path == "" {
		f.File, err = mmapio.Anonymous(stormKept*pageSize, &mmapio.Options{Reserve: reserve})
	} else {
		f.first = r.Int64N(2)
		o := &mmapio.Options{Mode: mmapio.ReadWrite, Reserve: reserve, Offset: f.first * pageSize, Sparse: r.IntN(2) == 0}
		f.File, err = mmapio.OpenFile(s.path, o)
		// Where no mapping is longer than its file, others may cut that in between.
		for try := 0; errors.Is(err, io.ErrUnexpectedEOF) && try < 100; try++ {
			f.File, err = mmapio.OpenFile(s.path, o)
		}
	}
	if err != nil {
		s.t.Errorf("reopen: %v", err)
		s.stop.Store(true)
		return
	}
	s.now.Store(f)
}
