package prove

import (
	"os"
	"reflect"
)

// A span is memory as the kernel sees it: whole pages. It stays meaningful after the memory was unmapped, since
// nothing here ever loads from it.
type span struct {
	start uint64 // of the first page
	pages int
	size  uint64 // of a page
}

func (s span) end() uint64          { return s.start + uint64(s.pages)*s.size }
func (s span) addr(page int) uint64 { return s.start + uint64(page)*s.size }

// spanOf covers every page that holds a byte of b.
func spanOf(b []byte) span {
	size := uint64(os.Getpagesize())
	if len(b) == 0 {
		return span{size: size}
	}
	first := uint64(reflect.ValueOf(b).Pointer())
	last := first + uint64(len(b)) - 1
	first -= first % size
	return span{start: first, pages: int((last-first)/size) + 1, size: size}
}

// PagesOf gives the address of the first page that holds a byte of b, and how many pages do.
func PagesOf(b []byte) (start uintptr, n int) {
	s := spanOf(b)
	return uintptr(s.start), s.pages
}

// address is where the thing pointed to lies, for system calls that x/sys lacks; the caller keeps it alive. Value.Pointer
// makes it escape to the heap, where nothing moves it.
func address(pointer any) uintptr { return reflect.ValueOf(pointer).Pointer() }
