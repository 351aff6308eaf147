package mmapio

import (
	"bytes"
	"errors"
	"io"

	"github.com/mmapio/mmapio/internal/fault"
	"github.com/mmapio/mmapio/internal/sys"
)

// What lies between the end of a file and the end of its page is no part of the
// file, but can be stored to: by a copier that a shrink overtook, and by other
// processes. Not all file systems drop that when the file grows (tmpfs does not).

// end returns the length of the file and a copy of what is stored behind it up to
// the end of its page, nil if that is nothing: once the file is longer, the same
// bytes may be what others have appended.
func (f *File) end() (size int64, stale []byte, err error) {
	for range 3 {
		info, err := f.src.file.Stat()
		if err != nil || info.Size() == size && stale != nil {
			return size, stale, err
		}
		size = info.Size()
		if stale = f.stale(size); stale == nil {
			return size, nil, nil
		}
		// An append stores first and makes the file longer then. The kernel lets
		// this wait until it has done both, and the length tells.
		sys.Probe(f.src.file, size-1, 1) //nolint:errcheck // that it came back is enough
	}
	return size, nil, nil // others append all the time, over what is there
}

// stale copies what the File's memory has from size on, counted in the file, to
// the end of that page. It is nil if all of that is zero, or if it is not mapped.
func (f *File) stale(size int64) []byte {
	m := f.cur.Load().mem
	n := -size & int64(sys.PageSize()-1)
	at := size - f.src.off + int64(m.delta)
	if n == 0 || at < 0 || at+n > m.mapped.Load() || !m.loads(at+n-int64(sys.PageSize())) {
		return nil
	}
	b := make([]byte, n)
	if !fault.Copy(b, m.space.Bytes(m.base+int(at), int(n)), m.area.Lo, m.area.Hi) || zero(b) {
		return nil
	}
	return b
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// wipeStale zeroes what the file has at off if that is what was stale.
func (f *File) wipeStale(off int64, stale []byte) error {
	b := make([]byte, len(stale))
	switch _, err := f.src.file.ReadAt(b, off); {
	case errors.Is(err, io.EOF): // others cut it meanwhile
		return nil
	case err != nil:
		return err
	case !bytes.Equal(b, stale) || zero(b):
		return nil
	}
	clear(b)
	_, err := f.src.file.WriteAt(b, off)
	return err
}
