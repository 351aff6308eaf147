//go:build dragonfly || freebsd || linux || netbsd

package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// incoreStep is how many pages one call tells about, a byte each.
const incoreStep = 64 << 10

func (s *Space) incore(at, n int, run func(lo, hi int)) error {
	vec := make([]byte, min(roundUp(n)/pageSize(), incoreStep))
	for end := at + roundUp(n); at < end; {
		part := vec[:min(len(vec), (end-at)/pageSize())]
		err := retry(func() error {
			_, _, errno := unix.Syscall(unix.SYS_MINCORE, s.addr+uintptr(at), uintptr(len(part)*pageSize()),
				uintptr(unsafe.Pointer(&part[0])))
			if errno == 0 {
				return nil
			}
			return errno
		})
		if err != nil {
			return err
		}
		from := -1
		for i, resident := range part {
			switch {
			case resident&1 == 0 && from >= 0:
				run(at+from*pageSize(), at+i*pageSize())
				from = -1
			case resident&1 != 0 && from < 0:
				from = i
			}
		}
		if from >= 0 {
			run(at+from*pageSize(), at+len(part)*pageSize())
		}
		at += len(part) * pageSize()
	}
	return nil
}
