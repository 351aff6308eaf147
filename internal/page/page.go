// Package page does arithmetic on offsets and pages. It never overflows
// silently: a result that may not fit in an int64 comes with an ok.
//
// A page size is a power of two. Which one is the caller's business; with any
// other number the results mean nothing. Ranges are half-open, [lo, hi).
package page

import "math"

// InBounds reports whether the n bytes at off lie within size bytes:
// 0 <= off, 0 <= n and off+n <= size.
func InBounds(off, n, size int64) bool {
	// Once n <= size holds, size-n cannot overflow, while off+n could.
	return 0 <= off && 0 <= n && n <= size && off <= size-n
}

// Down rounds x down to a multiple of size, towards minus infinity.
// Every int64 has such a multiple below it, so there is no ok.
func Down(x, size int64) int64 {
	return x &^ (size - 1)
}

// Up rounds x up to a multiple of size, towards plus infinity. If that
// multiple does not fit in an int64, Up returns 0, false.
func Up(x, size int64) (int64, bool) {
	if x > math.MaxInt64-(size-1) {
		return 0, false
	}
	return (x + size - 1) &^ (size - 1), true
}

// Outward widens [lo, hi) to the whole pages that it touches. A range with
// nothing in it touches no page, so the result is empty as well: lo rounded
// down, twice. If the end does not fit in an int64, Outward returns 0, 0, false.
func Outward(lo, hi, size int64) (int64, int64, bool) {
	first := Down(lo, size)
	if hi <= lo {
		return first, first, true
	}
	end, ok := Up(hi, size)
	if !ok {
		return 0, 0, false
	}
	return first, end, true
}

// Inward narrows [lo, hi) to the whole pages that it contains. When there is
// none, the two results are equal.
func Inward(lo, hi, size int64) (int64, int64) {
	hi = Down(hi, size)
	lo, ok := Up(lo, size)
	if !ok || lo > hi {
		return hi, hi
	}
	return lo, hi
}

// Count returns the number of pages that [lo, hi) touches. It is exact for
// every range as long as pages have at least four bytes.
func Count(lo, hi, size int64) int64 {
	if hi <= lo {
		return 0
	}
	// Divided before they are subtracted: hi-lo may not fit.
	return Down(hi-1, size)/size - Down(lo, size)/size + 1
}
