package sys

import "golang.org/x/sys/unix"

// Unless this is 0, or unheard of, mincore(2) tells what is mapped in, and not
// what is in RAM.
var incoreTellsAll = onceKnown(func() (bool, error) {
	mapped, err := unix.SysctlUint32("vm.mincore_mapped")
	switch err { //nolint:errorlint // bare errnos
	case unix.ENOMEM, unix.EAGAIN, unix.EINTR: //nolint:errorlint // bare errnos
		return false, err
	}
	return err != nil || mapped == 0, nil
})

func canIncore() bool {
	all, err := incoreTellsAll()
	return err == nil && all
}
