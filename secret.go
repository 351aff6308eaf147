package mmapio

import (
	"runtime"

	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

// secret reports whether the File is memory that is kept from swap, from core
// dumps and from children: it is zeroed before it is given back, and stays
// locked until then.
func (o *Options) secret() bool { return o.Lock != LockNone && o.NoDump && o.NoFork }

// secretLead is where in its first page the memory of a secret starts, so that
// it ends at the end of its last one.
func (o *Options) secretLead(size int64) int64 {
	if !o.secret() || o.Reserve > 0 {
		return 0
	}
	return -size & int64(sys.PageSize()-1)
}

// zeroed is what tests see of memory right after it was zeroed.
var zeroed = func(b []byte) {}

// zero wipes [lo, hi), counted from base, of a secret, but for pages that have
// no memory yet: a store would give them some.
func (e *extent) zero(lo, hi int64) {
	if !e.secret || e.space == nil {
		return
	}
	e.eachStored(lo, hi, func(lo, hi int64) { clear(e.space.Bytes(e.base+int(lo), int(hi-lo))) })
	if lo < hi {
		zeroed(e.space.Bytes(e.base+int(lo), int(hi-lo)))
	}
}

// blank notes that nothing is left to be zeroed.
func (e *extent) blank() {
	e.mu.Lock()
	e.secret = false
	e.mu.Unlock()
}

// eachStored calls do with the parts of [lo, hi) that were ever stored to, or with
// all where the kernel does not tell.
func (e *extent) eachStored(lo, hi int64, do func(lo, hi int64)) {
	for lo < hi {
		at := int(page.Down(lo, int64(sys.PageSize())))
		from, to, err := e.space.Private(e.base+at, int(hi)-at)
		if err != nil {
			do(lo, hi)
			return
		}
		if from < 0 {
			return
		}
		do(max(lo, int64(from-e.base)), min(hi, int64(to-e.base)))
		lo = int64(to - e.base)
	}
}

// moveSecret copies a run of a secret to where it moves, which is locked by
// now, and leaves nothing behind. Both have the same bytes at the same places
// of their pages.
func moveSecret(from, to *generation, run lockset.Run) {
	if !from.mem.secret {
		return
	}
	ps := sys.PageSize()
	from.mem.eachStored(run.Lo, run.Hi, func(lo, hi int64) {
		for ; lo < hi; lo += int64(ps) {
			copy(to.mem.space.Bytes(to.mem.base+int(lo), ps), from.mem.space.Bytes(from.mem.base+int(lo), ps))
		}
	})
	from.mem.zero(run.Lo, run.Hi)
	// The end of what was copied last may stand in vector registers still, which
	// core dumps have. To copy zeroes of the same length takes the same ones.
	nothing := make([]byte, 2*ps)
	copy(nothing[:ps], nothing[ps:])
	runtime.KeepAlive(nothing)
}

// moveUnlocked does that for what is not locked. The caller holds locks.mu.
func (f *File) moveUnlocked(from, to *generation) {
	end := min(from.mem.mapped.Load(), to.mem.mapped.Load())
	for _, run := range f.locks.set.Missing(nil, 0, end, lockset.OnFault) {
		moveSecret(from, to, run)
	}
}
