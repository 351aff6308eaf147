//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package sys

import (
	"errors"
	"io"
	"os"
	"unsafe"
)

const canFault = false

// But for errNoMemory never returned here: nothing faults.
var (
	errUnreadable = errors.New("page cannot be read")
	errNoSpace    = errors.New("no space left on device")
	errIO         = errors.New("input/output error")
	errNoMemory   = errors.New("out of memory")
	errAgain      = errors.New("try again")
)

// backing keeps the memory alive that addr points into.
type backing struct{ heap []byte }

func pageSize() int    { return os.Getpagesize() }
func granularity() int { return pageSize() }

func mapFile(f *os.File, off int64, n int, a Access) (*Space, error) {
	if a == Write {
		return nil, ErrUnsupported
	}
	s, err := mapAnon(n)
	if err != nil {
		return nil, err
	}
	got, err := f.ReadAt(s.bytes(0, n), off)
	switch {
	case got == n:
		return s, nil
	case err == io.EOF: //nolint:errorlint // as io.ReaderAt has it
		return nil, io.ErrUnexpectedEOF
	}
	return nil, bare(err)
}

// Pages start at a page, so that what a caller lays over them is aligned.
func mapAnon(n int) (*Space, error) {
	n = roundUp(n)
	heap, err := allocated(n + pageSize())
	if err != nil {
		return nil, err
	}
	addr := uintptr(roundUp(int(uintptr(unsafe.Pointer(&heap[0])))))
	return &Space{addr: addr, size: n, backing: backing{heap}}, nil
}

func reserve(n int) (*Space, error) { return nil, ErrUnsupported }

func (s *Space) placeAnon(at, n int) error { return ErrUnsupported }

// allocated has an error where make panics: for more than the address space
// can hold, which WebAssembly has 4 GiB of.
func allocated(n int) (b []byte, err error) {
	defer func() {
		if recover() != nil {
			err = errNoMemory
		}
	}()
	return make([]byte, n), nil
}

func (s *Space) free() error { return nil }

func (s *Space) lock(at, n int) error { return ErrUnsupported }

func (s *Space) unlock(at, n int) error { return ErrUnsupported }

func (s *Space) flush(at, n int) error { return ErrUnsupported }
