package sys

// InForeground reports whether the keys of the controlling terminal that send
// signals, such as Ctrl-C, send them to a process; false where there is no such
// terminal or that cannot be found out.
//
// TIOCGPGRP of /dev/tty, getpgid(2).
func InForeground(pid int) bool { return inForeground(pid) }
