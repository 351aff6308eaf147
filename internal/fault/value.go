package fault

import (
	"runtime/debug"
	"unsafe"
)

// Load copies n bytes from mapped memory at src to dst, in one atomic access
// if n is 4 or 8 and src lies on a multiple of it. As with [Copy], a fault in
// [lo, hi) is reported and any other one panics.
func Load(dst, src unsafe.Pointer, n, lo, hi uintptr) (ok bool) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if !ok {
			recoverIn(recover(), lo, hi)
		}
	}()
	switch {
	case n == 8 && uintptr(src)%8 == 0:
		v := load64((*uint64)(src))
		*(*[8]byte)(dst) = *(*[8]byte)(unsafe.Pointer(&v)) // dst may be aligned to less
	case n == 4 && uintptr(src)%4 == 0:
		v := load32((*uint32)(src))
		*(*[4]byte)(dst) = *(*[4]byte)(unsafe.Pointer(&v))
	default:
		copy(unsafe.Slice((*byte)(dst), n), unsafe.Slice((*byte)(src), n))
	}
	return true
}

// Store is Load in the other direction: dst is mapped memory.
func Store(dst, src unsafe.Pointer, n, lo, hi uintptr) (ok bool) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if !ok {
			recoverIn(recover(), lo, hi)
		}
	}()
	switch {
	case n == 8 && uintptr(dst)%8 == 0:
		var v uint64
		*(*[8]byte)(unsafe.Pointer(&v)) = *(*[8]byte)(src)
		store64((*uint64)(dst), v)
	case n == 4 && uintptr(dst)%4 == 0:
		var v uint32
		*(*[4]byte)(unsafe.Pointer(&v)) = *(*[4]byte)(src)
		store32((*uint32)(dst), v)
	default:
		copy(unsafe.Slice((*byte)(dst), n), unsafe.Slice((*byte)(src), n))
	}
	return true
}
