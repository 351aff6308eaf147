package mmapio

import (
	"errors"
	"io"

	"github.com/mmapio/mmapio/internal/page"
	"github.com/mmapio/mmapio/internal/sys"
)

// populateWindow bounds one system call that brings pages in.
const populateWindow = 16 << 20

// bringIn brings a range of the generation into memory, window by window.
func (f *File) bringIn(g *generation, op string, off, n int64) error {
	end := off + n + int64(g.mem.delta)
	for lo := page.Down(off+int64(g.mem.delta), int64(sys.PageSize())); lo < end; {
		hi := min(end, lo+populateWindow)
		if err := f.populate(g, lo, hi); err != nil {
			if !errors.Is(err, sys.ErrUnreadable) {
				return f.fail(op, err)
			}
			bad := g.mem.base + int(lo)
			if at, err := g.mem.space.Absent(bad, int(hi-lo)); err == nil && at >= 0 {
				bad = at
			}
			return g.mem.faultAt(op, int64(bad-g.mem.base-g.mem.delta), false)
		}
		lo = hi
	}
	return nil
}

// readThrough reads a part of the file to have it in the page cache, where
// pages cannot be brought in through the mapping.
func (f *File) readThrough(off, end, size int64) error {
	if f.src.file == nil {
		return nil
	}
	end = min(end, size)
	buf := make([]byte, min(max(end-off, 0), 256<<10))
	for off = max(off, 0); off < end; {
		n, err := f.src.file.ReadAt(buf[:min(int64(len(buf)), end-off)], f.src.off+off)
		off += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			// The page in which the file ends is there as a whole.
			if there, _ := page.Up(f.src.off+off, int64(sys.PageSize())); there < f.src.off+end {
				return sys.ErrUnreadable
			}
			return nil
		case err != nil:
			return underlying(err)
		}
	}
	return nil
}

func isNoMemory(err error) bool { return errors.Is(err, sys.ErrNoMemory) }
