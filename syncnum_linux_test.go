//go:build !arm && !ppc64 && !ppc64le

package mmapio_test

import "golang.org/x/sys/unix"

const sysSyncFileRange = unix.SYS_SYNC_FILE_RANGE
