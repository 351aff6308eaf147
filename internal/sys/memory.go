package sys

import (
	"errors"
	"io/fs"
	"unsafe"
)

// pointer turns an address into a pointer. What lies there does not move: it
// is either not Go's, or held by the Space.
func pointer(addr uintptr) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(&addr))
}

func (s *Space) bytes(at, n int) []byte {
	return unsafe.Slice((*byte)(pointer(s.addr+uintptr(at))), n)
}

func roundUp(n int) int { return (n + pageSize() - 1) &^ (pageSize() - 1) }

// bare takes the names off an error of package os.
func bare(err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}
