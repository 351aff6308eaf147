//go:build !386 && !arm

package mmapio_test

import "golang.org/x/sys/unix"

const sysMmap = unix.SYS_MMAP

var waitCalls []uint32
