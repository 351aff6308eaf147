package mmapio

import (
	"errors"
	"io/fs"
	"runtime"
	"strconv"

	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

// Advice is what a program tells the system about its use of pages. A system
// that lacks one ignores it. Reading and storing work the same after any.
type Advice int

const (
	// AdviceNormal takes AdviceRandom and AdviceSequential back.
	//
	// madvise(2) on Linux, Darwin and the BSDs, as for the next two.
	AdviceNormal Advice = iota
	// AdviceRandom says that reads jump about: the system reads what is asked
	// for and nothing round it.
	AdviceRandom
	// AdviceSequential says that reads go from front to back: the system reads
	// far ahead, and lets go of what was passed sooner than of the rest.
	AdviceSequential
	// AdviceWillNeed is [File.Prefetch].
	AdviceWillNeed
	// AdviceCold says that the pages are the first to go when memory gets
	// short. Nothing goes now.
	//
	// Linux 5.4: MADV_COLD, for pages that this File has mapped in. Darwin and
	// the BSDs: MADV_DONTNEED, which means the same there.
	AdviceCold
	// AdvicePageOut moves the pages out of RAM now, and waits for it: to the
	// file, or for private copies and Anonymous memory to swap. It fails if
	// stores cannot be written to the file, as Sync does. Pages stay that another
	// process has mapped, or that lie in RAM in one piece with pages outside of the
	// range.
	//
	// Linux 5.4: msync(2), MADV_PAGEOUT, which for files does something only for
	// their owner and who may write them, and POSIX_FADV_DONTNEED. Darwin and
	// the BSDs: msync(2), then as AdviceCold.
	AdvicePageOut
	// AdviceDontNeed lets go of pages of a file: they leave this mapping, and
	// RAM as well, unless they have yet to be written, are mapped or locked by
	// anyone, or lie in RAM in one piece with pages outside of the range. What was
	// stored is not lost. It is errors.ErrUnsupported for a CopyOnWrite File and
	// for Anonymous memory, which would lose it.
	//
	// Linux: MADV_DONTNEED and POSIX_FADV_DONTNEED (not with DropFD), which
	// begins to write dirty pages. Darwin and the BSDs: as AdviceCold.
	AdviceDontNeed
	// AdviceHugePage asks for huge pages, as Options.HugePages does. The pages
	// that are there stay as they are; [Residency] tells what came of it.
	//
	// Linux: MADV_HUGEPAGE. It is up to the file system, and for tmpfs to its
	// mount option huge.
	AdviceHugePage
	// AdviceNoHugePage asks for pages of the usual size.
	//
	// Linux: MADV_NOHUGEPAGE.
	AdviceNoHugePage
	// AdviceCollapse makes huge pages of what is there now, and waits for it. It
	// moves the range outwards to whole huge pages. It fails when there is no
	// memory for them.
	//
	// Linux 6.1: MADV_COLLAPSE, for Anonymous memory and tmpfs; other files only
	// if the kernel was built for it (CONFIG_READ_ONLY_THP_FOR_FS).
	AdviceCollapse
)

var adviceNames = [...]string{
	"Normal", "Random", "Sequential", "WillNeed", "Cold", "PageOut", "DontNeed", "HugePage", "NoHugePage", "Collapse",
}

func (a Advice) String() string {
	if a < 0 || int(a) >= len(adviceNames) {
		return "Advice(" + strconv.Itoa(int(a)) + ")"
	}
	return adviceNames[a]
}

var hints = [...]sys.Hint{
	sys.Normal, sys.Random, sys.Sequential, sys.WillNeed, sys.Cold, sys.PageOut, sys.DontNeed,
	sys.HugePages, sys.NoHugePages, sys.Collapse,
}

// Advise tells the system what to expect of the pages of [off, off+n), which
// needs no alignment. Advice that moves pages out (Cold, PageOut, DontNeed) is
// about pages that have no byte of the File outside of the range, all other
// about pages that have a byte inside.
//
// Cold, PageOut and DontNeed are ErrBusy if any of their pages is locked or
// pinned; nothing is done then.
//
// Normal, Random, Sequential, HugePage and NoHugePage hold until they are
// changed, also after a Resize or Refresh. If the range reaches the end of the
// File they hold for what is added there later, too. Each change of them
// inside of the File costs a mapping of those that a process may have
// (vm.max_map_count), so they fail when they and locks would take half of all.
//
// madvise(2), posix_fadvise(2).
func (f *File) Advise(off, n int64, a Advice) error {
	const op = "advise"
	switch g := f.cur.Load(); {
	case g == closedGeneration:
		return f.fail(op, fs.ErrClosed)
	case a == AdviceDontNeed && (f.src.mode == CopyOnWrite || f.anonymous()):
		return f.fail(op, errors.ErrUnsupported)
	case a < 0 || int(a) >= len(hints):
		return f.fail(op, &sentinel{"there is no " + a.String(), fs.ErrInvalid})
	}
	switch a {
	case AdviceWillNeed:
		return f.prefetch(op, off, n)
	case AdviceCold, AdvicePageOut, AdviceDontNeed:
		return f.moveOut(op, off, n, hints[a])
	case AdviceCollapse:
		return f.collapse(op, off, n)
	}
	return f.remember(op, off, n, hints[a])
}

// inner returns the pages, as distances from base, that have no byte of the
// generation outside of a range.
func (g *generation) inner(off, n int64) (first, last int64) {
	lo, hi := off+int64(g.mem.delta), off+int64(g.mem.delta)+n
	if off == 0 {
		lo = 0
	}
	if off+n == int64(len(g.data)) {
		hi = int64(pageUp(int(hi)))
	}
	return page.Inward(lo, hi, int64(sys.PageSize()))
}

// moveOut passes on advice after which pages leave, step by step.
func (f *File) moveOut(op string, off, n int64, h sys.Hint) error {
	if err := f.checkRange(op, off, n); err != nil || n == 0 {
		return err
	}
	first, last, err := f.unlockedInner(op, off, n)
	if err != nil || first == last {
		return err
	}
	if h == sys.PageOut && f.src.file != nil {
		delta := f.src.off % int64(sys.PageSize())
		lo, hi := max(first-delta, off), min(last-delta, off+n)
		if err := f.syncRange(op, lo, hi-lo); err != nil {
			return err
		}
	}
	for at := first; at < last; {
		end := min(last, page.Down(at, lockWindow)+lockWindow)
		err := f.mapped(op, func(g *generation) error {
			end := min(end, g.mem.mapped.Load()) // others may have made it smaller
			if at >= end {
				return nil
			}
			return f.moveOutStep(op, g, at, end, h)
		})
		if err != nil {
			return err
		}
		at = end
	}
	return nil
}

// unlockedInner is inner of a range of which no page is locked.
func (f *File) unlockedInner(op string, off, n int64) (first, last int64, err error) {
	l := &f.locks
	l.mu.Lock()
	defer l.mu.Unlock()
	g := f.cur.Load()
	if g == closedGeneration {
		return 0, 0, f.fail(op, fs.ErrClosed)
	}
	if err := f.within(op, g, off, n); err != nil {
		return 0, 0, err
	}
	if first, last = g.inner(off, n); len(l.set.Held(nil, first, last)) > 0 {
		return 0, 0, f.fail(op, errLocked)
	}
	return first, last, nil
}

var errLocked error = &sentinel{"the pages are locked in RAM", ErrBusy}

// moveOutStep keeps locks.mu, so that nobody locks what is about to leave.
func (f *File) moveOutStep(op string, g *generation, at, end int64, h sys.Hint) error {
	m, l := g.mem, &f.locks
	l.mu.Lock()
	if len(l.set.Held(nil, at, end)) > 0 {
		l.mu.Unlock()
		return f.fail(op, errLocked)
	}
	err := m.space.Advise(m.base+int(at), int(end-at), h)
	if h != sys.Cold && f.src.file != nil && (err == nil || errors.Is(err, errors.ErrUnsupported)) {
		err = sys.DropCached(f.src.file, f.src.off-int64(m.delta)+at, end-at)
	}
	l.mu.Unlock()
	m.forget(at, end)
	runtime.KeepAlive(g)
	if h != sys.DontNeed {
		f.keepAround(g, at, end) // a folio that reaches out of the range was split
	}
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return f.fail(op, underlying(err))
	}
	return nil
}

// collapse makes huge pages, step by step.
func (f *File) collapse(op string, off, n int64) error {
	if err := f.checkRange(op, off, n); err != nil || n == 0 {
		return err
	}
	end := off + n
	for at := off; at < end; {
		next := end
		err := f.mapped(op, func(g *generation) error {
			if at >= int64(len(g.data)) {
				return nil
			}
			m, huge := g.mem, int64(sys.HugePage())
			start := int64(m.area.Lo) + int64(m.base) // of offset 0 of the set
			lo := page.Down(start+int64(m.delta)+at, huge)
			hi, _ := page.Up(min(start+int64(m.delta)+min(end, int64(len(g.data))), lo+max(lockWindow, huge)), huge)
			next = min(end, hi-start-int64(m.delta))
			lo, hi = max(lo, start), min(hi, start+m.mapped.Load())
			err := m.space.Advise(m.base+int(lo-start), int(hi-lo), sys.Collapse)
			f.keepAround(g, lo-start, hi-start)
			if err != nil && !errors.Is(err, errors.ErrUnsupported) {
				return f.fail(op, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
		at = next
	}
	return nil
}
