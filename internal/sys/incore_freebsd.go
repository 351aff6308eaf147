package sys

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Unless this is 0, or unheard of, mincore(2) tells what is mapped in, and not
// what is in RAM.
var canIncore = sync.OnceValue(func() bool {
	mapped, err := unix.SysctlUint32("vm.mincore_mapped")
	return err != nil || mapped == 0
})
