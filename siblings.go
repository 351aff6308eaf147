package mmapio

import (
	"io/fs"
	"runtime"
	"slices"
	"sync"
	"weak"

	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

// siblings are the Files of this process that have ever locked pages, by what they
// map: when one of them cuts the file, or has a folio split or joined by advice, the
// kernel takes the whole folio out of the mappings of all.
var siblings struct {
	mu sync.Mutex
	of map[sys.FileID][]weak.Pointer[File]
}

// hasLocked says that the File has locked pages.
func (f *File) hasLocked() {
	if f.src.locked.Swap(true) || f.src.info == nil {
		return
	}
	id, ok := sys.FileIDOf(f.src.info)
	if !ok {
		return
	}
	siblings.mu.Lock()
	defer siblings.mu.Unlock()
	if siblings.of == nil {
		siblings.of = map[sys.FileID][]weak.Pointer[File]{}
	}
	siblings.of[id] = append(siblings.of[id], weak.Make(f))
	runtime.AddCleanup(f, func(id sys.FileID) { forgetSibling(id, nil) }, id) // if it is not closed
}

// noLonger ends hasLocked.
func (f *File) noLonger() {
	if f.src.locked.Load() && f.src.info != nil {
		if id, ok := sys.FileIDOf(f.src.info); ok {
			forgetSibling(id, f)
		}
	}
}

// forgetSibling takes out a File, and those that are gone.
func forgetSibling(id sys.FileID, f *File) {
	siblings.mu.Lock()
	defer siblings.mu.Unlock()
	left := slices.DeleteFunc(siblings.of[id], func(p weak.Pointer[File]) bool { return p.Value() == nil || p.Value() == f })
	if siblings.of[id] = left; len(left) == 0 {
		delete(siblings.of, id)
	}
}

// siblingsOf returns the Files that have locked pages of a file.
func siblingsOf(info fs.FileInfo) (all []*File) {
	if info == nil {
		return nil
	}
	id, ok := sys.FileIDOf(info)
	if !ok {
		return nil
	}
	siblings.mu.Lock()
	defer siblings.mu.Unlock()
	for _, p := range siblings.of[id] {
		if f := p.Value(); f != nil {
			all = append(all, f)
		}
	}
	return all
}

// cutAt keeps locked pages in after the file was cut at end, or may have been:
// those of the folio that was cut.
func cutAt(info fs.FileInfo, end int64) {
	for _, f := range siblingsOf(info) {
		f.keepBefore(end)
	}
}

// folioMost bounds the folios in which the kernel keeps files.
func folioMost() int64 { return 2048 * int64(sys.PageSize()) }

// keepBefore is keepIn for the folio in which an offset of the file lies.
func (f *File) keepBefore(end int64) { f.keepWithin(end-folioMost(), end) }

// keepAround keeps locked pages in, of every File over what g maps, after advice about
// [lo, hi) of it that may have split or joined folios which reach into that: the
// kernel takes those out of the mappings of all.
func (f *File) keepAround(g *generation, lo, hi int64) {
	all := siblingsOf(f.src.info)
	if f.src.info == nil {
		all = []*File{f}
	}
	skew := f.src.off - int64(g.mem.delta)
	for _, s := range all {
		s.keepWithin(lo+skew-folioMost(), min(hi+skew, maxInt64-folioMost())+folioMost())
	}
}

// keepWithin is keepIn by offsets of the file.
func (f *File) keepWithin(lo, hi int64) {
	f.locks.mu.Lock()
	defer f.locks.mu.Unlock()
	g := f.cur.Load() // that of a closed File has nothing
	skew := int64(g.mem.delta) - f.src.off
	// The file may be longer than what can be mapped.
	hi = min(hi+skew, g.mem.mapped.Load())
	lo = page.Down(max(lo+skew, 0), int64(sys.PageSize()))
	f.keepIn(g, lo, int64(pageUp(int(max(hi, 0)))))
}
