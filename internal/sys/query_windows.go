package sys

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

func (s *Space) unlocked(at, n int) (int, error) {
	if err := workingSetFails(); err != nil {
		return 0, err
	}
	return s.firstWithout(at, n, windows.PSAPI_WORKING_SET_EX_BLOCK.Locked)
}

func (s *Space) absent(at, n int) (int, error) {
	if err := workingSetFails(); err != nil {
		return 0, err
	}
	return s.firstWithout(at, n, windows.PSAPI_WORKING_SET_EX_BLOCK.Valid)
}

// workingSetFails returns ErrUnsupported where the working set does not tell, and
// another error where that cannot be found out at the moment.
func workingSetFails() error {
	tells, err := workingSetTells()
	if err == nil && !tells {
		err = ErrUnsupported
	}
	return err
}

// workingSetTells tries what QueryWorkingSetEx says about a page of our own:
// Wine answers too, but knows of no locks. Memory and quota for the page may be
// short for a while.
var workingSetTells = onceKnown(func() (bool, error) {
	p, err := mapAnon(pageSize())
	if err != nil {
		return false, err
	}
	defer p.Free() //nolint:errcheck // a page of our own
	fresh, err := p.firstWithout(0, pageSize(), windows.PSAPI_WORKING_SET_EX_BLOCK.Valid)
	if err != nil || fresh != 0 {
		return false, nil //nolint:nilerr // there is no such call
	}
	if err := p.lock(0, pageSize()); err != nil {
		return false, err
	}
	held, err := p.firstWithout(0, pageSize(), func(b windows.PSAPI_WORKING_SET_EX_BLOCK) bool {
		return b.Valid() && b.Locked()
	})
	return err == nil && held == -1, nil
})

// queryStep is how many pages one call asks about.
const queryStep = 1024

// firstWithout returns the first page of the range of which good is not true,
// or -1.
func (s *Space) firstWithout(at, n int, good func(windows.PSAPI_WORKING_SET_EX_BLOCK) bool) (int, error) {
	pages := make([]windows.PSAPI_WORKING_SET_EX_INFORMATION, min(roundUp(n)/pageSize(), queryStep))
	for end := at + roundUp(n); at < end; {
		part := pages[:min(len(pages), (end-at)/pageSize())]
		for i := range part {
			part[i].VirtualAddress = windows.Pointer(pointer(s.addr + uintptr(at+i*pageSize())))
		}
		err := windows.QueryWorkingSetEx(windows.CurrentProcess(), uintptr(unsafe.Pointer(&part[0])),
			uint32(len(part))*uint32(unsafe.Sizeof(part[0])))
		if err != nil {
			return 0, err
		}
		for _, p := range part {
			if !good(p.VirtualAttributes) {
				return at, nil
			}
			at += pageSize()
		}
	}
	return -1, nil
}
