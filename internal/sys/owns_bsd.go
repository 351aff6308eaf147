//go:build dragonfly || freebsd || netbsd

package sys

import (
	"io/fs"
	"os"
	"syscall"
)

func owns(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return os.Geteuid() == 0 || ok && int(st.Uid) == os.Geteuid()
}
