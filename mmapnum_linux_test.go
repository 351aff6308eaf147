//go:build !arm

package mmapio_test

import "golang.org/x/sys/unix"

const sysMmap = unix.SYS_MMAP
