//go:build (darwin || dragonfly || freebsd || linux || netbsd || openbsd) && !(linux && mmapio_page64k)

package sys

import "golang.org/x/sys/unix"

func pageSize() int { return unix.Getpagesize() }

// somewhere says where a new mapping of n bytes goes and with what flags: the
// kernel may choose. The other bodies here are as plain; page_64k.go has those
// for which they exist.
func somewhere(int) (addr uintptr, flags int, err error) { return 0, 0, nil }

// whole has find look for the first page of a range.
func whole(at, n int, find func(at, n int) (int, error)) (int, error) { return find(at, n) }

// everyPage has the kernel bring in all pages of a range.
func everyPage(at, n int, bringIn func(at, n int) error) error { return bringIn(at, n) }
