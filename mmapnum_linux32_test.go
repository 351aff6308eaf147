//go:build linux && (386 || arm)

package mmapio_test

import "golang.org/x/sys/unix"

const sysMmap = unix.SYS_MMAP2

// waitCalls are those by which the Go runtime waits besides futex(2).
var waitCalls = []uint32{unix.SYS_FUTEX_TIME64}
