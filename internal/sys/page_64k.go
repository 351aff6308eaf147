//go:build linux && mmapio_page64k

package sys

import "golang.org/x/sys/unix"

// This build believes in pages of 64 KiB, as some kernels have them, on one
// whose pages are smaller: whoever assumes 4096 is found out. Every range that
// is a whole number of the pretended pages is one of the real ones, so all that
// is left to do is to see to it that mappings start at a pretended page, and
// that the end of a file is where such a kernel would have it.
const pretended = 64 << 10

func pageSize() int { return pretended }

// somewhere takes a page too much, and gives back what lies around the pages
// that it keeps.
func somewhere(n int) (addr uintptr, flags int, err error) {
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(n+pretended), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|mapNoReserve)
	if err != nil {
		return 0, 0, err
	}
	addr = (uintptr(p) + pretended - 1) &^ (pretended - 1)
	before := addr - uintptr(p)
	if before > 0 {
		err = unix.MunmapPtr(p, before)
	}
	if after := pretended - before; err == nil && after > 0 {
		err = unix.MunmapPtr(pointer(addr+uintptr(n)), after)
	}
	return addr, unix.MAP_FIXED, err
}

// whole takes the first real page of each pretended one for all of them: those
// after it may lie beyond the end of the file.
func whole(at, n int, find func(at, n int) (int, error)) (int, error) {
	for end := at + roundUp(n); at < end; {
		lo, err := find(at, end-at)
		if err != nil || lo < 0 || lo%pretended == 0 {
			return lo, err
		}
		at = roundUp(lo)
	}
	return -1, nil
}

// mincore(2) says something for each of the kernel's own pages.
func canIncore() bool { return false }

// everyPage asks for the real pages one by one where not all can be had.
func everyPage(at, n int, bringIn func(at, n int) error) error {
	err := bringIn(at, roundUp(n))
	if err != unix.EFAULT { //nolint:errorlint // bare errno
		return err
	}
	small := unix.Getpagesize()
	for end := at + roundUp(n); at < end; at += pretended {
		for p := at; p < at+pretended; p += small {
			if err := bringIn(p, small); err != nil && (err != unix.EFAULT || p == at) { //nolint:errorlint // bare errno
				return err
			}
		}
	}
	return nil
}
