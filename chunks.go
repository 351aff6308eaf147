package mmapio

import (
	"iter"
	"runtime"
	"runtime/debug"

	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

// A Chunk is a piece of a File: Data is its memory, from offset Off.
type Chunk struct {
	Off  int64
	Data []byte
}

// Chunks yields [off, off+n) in pieces of size bytes, the last one perhaps
// shorter, without copying. Data is valid until the next piece is asked for. A
// bad range or size yields one error.
//
// Each piece is brought into memory before it is yielded, by a system call that
// no other goroutine waits for, and the kernel is asked to read on meanwhile. A
// piece with a page that cannot be had is not yielded, but a [FaultError] that
// ends the loop. (Pages that were in memory within the last second are not asked
// for again: of those that were cut off since, the body meets the fault.)
//
// The loop holds the memory as View does. A fault in its body is a panic and
// not a crash: under [Guard] it is a [FaultError]. (With iter.Pull the body
// runs elsewhere: call next and use what it returns under Guard.)
func (f *File) Chunks(off, n, size int64) iter.Seq2[Chunk, error] {
	const op = "chunks"
	return func(yield func(Chunk, error) bool) {
		if size <= 0 {
			err := error(&RangeError{Op: op, Path: f.src.name, Off: off, Len: size, Size: f.Size()})
			if _, closed := f.now(op, 0); closed != nil {
				err = closed
			}
			yield(Chunk{}, err)
			return
		}
		f.each(op, off, n, func(at, end int64) int64 { return min(size, end-at) }, yield)
	}
}

// Pages is Chunks cut at the edges of the file's pages: the first and the last
// piece may be shorter than PageSize.
func (f *File) Pages(off, n int64) iter.Seq2[Chunk, error] {
	ps := int64(sys.PageSize())
	delta := f.src.off % ps
	return func(yield func(Chunk, error) bool) {
		f.each("pages", off, n, func(at, end int64) int64 {
			return min(page.Down(at+delta, ps)+ps-delta, end) - at
		}, yield)
	}
}

// each yields a range in pieces whose length step gives.
func (f *File) each(op string, off, n int64, step func(at, end int64) int64, yield func(Chunk, error) bool) {
	g, pass, err := f.enter(op, off, n)
	if err != nil {
		yield(Chunk{}, err)
		return
	}
	// The flag is for the body, which runs in this goroutine.
	old, done := debug.SetPanicOnFault(true), false
	defer func() {
		defer runtime.KeepAlive(g)
		defer pass.Leave()
		debug.SetPanicOnFault(old)
		if done {
			return
		}
		if r := recover(); r != nil { // nil: runtime.Goexit
			panic(g.mem.explained(r))
		}
	}()
	ahead := newLookahead(f, g, op, off, n, toLoad)
	for at, end := off, off+n; at < end; {
		next := at + step(at, end)
		if err := ahead.reach(at, next); err != nil {
			yield(Chunk{}, err)
			break
		}
		if !yield(Chunk{at, g.data[at:next:next]}, nil) {
			break
		}
		at = next
	}
	done = true
}

// UpdateChunks calls fn with the pieces that Chunks would yield, to be changed.
// The first error of fn ends it and comes back as it is. Faults are handled as
// in Update; pieces of up to Options.Prefault bytes are brought in before.
// ReadOnly: ErrReadOnly.
func (f *File) UpdateChunks(off, n, size int64, fn func(Chunk) error) (err error) {
	const op = "updatechunks"
	if _, err := f.now(op, 0); err != nil {
		return err
	}
	if err := f.writable(op); err != nil {
		return err
	}
	if size <= 0 {
		return &RangeError{Op: op, Path: f.src.name, Off: off, Len: size, Size: f.Size()}
	}
	begun, open := false, int64(0) // the bytes of the piece that fn is at
	defer func() {
		if begun {
			err = f.also(err, op, open, 1)
		}
	}()
	return f.lend(op, off, n, nil, func(g *generation, b []byte) error {
		ahead := newLookahead(f, g, op, off, n, toLend)
		for at := int64(0); at < n; {
			next := at + min(size, n-at)
			if next-at <= f.wide {
				if err := ahead.reach(off+at, off+next); err != nil {
					return err
				}
			}
			begun, open = true, next-at
			if err := fn(Chunk{off + at, b[at:next:next]}); err != nil {
				return err
			}
			if err := f.also(nil, op, open, 0); err != nil {
				return err
			}
			open, at = 0, next
		}
		return nil
	})
}
