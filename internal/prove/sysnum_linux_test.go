package prove

import "golang.org/x/sys/unix"

const sysMlock2 = unix.SYS_MLOCK2
