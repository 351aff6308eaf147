package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// A process that has changed its user, or has forbidden core dumps of itself
// (PR_SET_DUMPABLE), may not open its own /proc/self/pagemap, and there may be no
// /proc. What follows asks move_pages(2) where pages are, which needs neither.

// A call asks about askFirst pages, the next about twice as many, up to askMost:
// the kernel answers for all of them, also for those behind the first that counts.
const askFirst, askMost = 16, 1024

// absentByMovePages finds the first page that is on no node: it is not mapped in
// (ENOENT), or is the page of zeroes (EFAULT).
func (s *Space) absentByMovePages(at, n int) (int, error) {
	ps := unix.Getpagesize() // the kernel's, whatever this build believes
	var pages [askMost]uintptr
	var status [askMost]int32
	for end, k := at+n, askFirst; at < end; k = min(2*k, askMost) {
		k = min(k, (end-at)/ps)
		for i := range k {
			pages[i] = s.addr + uintptr(at+i*ps)
		}
		_, _, errno := unix.Syscall6(unix.SYS_MOVE_PAGES, 0, uintptr(k), uintptr(unsafe.Pointer(&pages[0])), 0,
			uintptr(unsafe.Pointer(&status[0])), 0)
		if errno != 0 {
			return 0, errUntold // not built in, or filtered
		}
		for i, node := range status[:k] {
			if node < 0 {
				return at + i*ps, nil
			}
		}
		at += k * ps
	}
	return -1, nil
}
