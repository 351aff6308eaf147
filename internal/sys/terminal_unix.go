//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package sys

import "golang.org/x/sys/unix"

func inForeground(pid int) bool {
	group, err := unix.Getpgid(pid)
	if err != nil {
		return false
	}
	tty, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(tty) //nolint:errcheck // only asked
	v, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	// The kernel writes 32 bits, which are the upper ones of an int on some
	// processors.
	return err == nil && (v == group || int64(v)>>32 == int64(group))
}
