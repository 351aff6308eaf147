package sys

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// workingSetPage is PSAPI_WORKING_SET_EX_INFORMATION of psapi.h. That of x/sys is
// too wide where addresses have 32 bits, and its Locked is never true.
type workingSetPage struct{ addr, flags uintptr }

// Bits of the flags. Without the first the others mean nothing.
const (
	pageValid  = 1 << 0
	pageLocked = 1 << 22
)

// queryWorkingSet is replaced by tests: Wine knows of no locks.
var queryWorkingSet = func(pages []workingSetPage) error {
	return windows.QueryWorkingSetEx(windows.CurrentProcess(), uintptr(unsafe.Pointer(&pages[0])),
		uint32(len(pages))*uint32(unsafe.Sizeof(pages[0])))
}

func (s *Space) unlocked(at, n int) (int, error) {
	if err := workingSetFails(); err != nil {
		return 0, err
	}
	return s.firstWithout(at, n, pageValid|pageLocked)
}

func (s *Space) absent(at, n int) (int, error) {
	if err := workingSetFails(); err != nil {
		return 0, err
	}
	return s.firstWithout(at, n, pageValid)
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

var workingSetTells = onceKnown(tryWorkingSet)

// tryWorkingSet tries what QueryWorkingSetEx says about a page of our own: Wine
// answers too, but knows of no locks. Memory and quota for the page may be short
// for a while.
func tryWorkingSet() (bool, error) {
	p, err := mapAnon(pageSize())
	if err != nil {
		return false, err
	}
	defer p.Free() //nolint:errcheck // a page of our own
	fresh, err := p.firstWithout(0, pageSize(), pageValid)
	if err != nil || fresh != 0 {
		return false, nil //nolint:nilerr // there is no such call
	}
	if err := p.lock(0, pageSize()); err != nil {
		return false, err
	}
	held, err := p.firstWithout(0, pageSize(), pageValid|pageLocked)
	return err == nil && held == -1, nil
}

// queryStep is how many pages one call asks about.
const queryStep = 1024

// firstWithout returns the first page of the range that lacks some of the flags,
// or -1.
func (s *Space) firstWithout(at, n int, flags uintptr) (int, error) {
	pages := make([]workingSetPage, min(roundUp(n)/pageSize(), queryStep))
	for end := at + roundUp(n); at < end; {
		part := pages[:min(len(pages), (end-at)/pageSize())]
		for i := range part {
			part[i] = workingSetPage{addr: s.addr + uintptr(at+i*pageSize())}
		}
		if err := queryWorkingSet(part); err != nil {
			return 0, err
		}
		for _, p := range part {
			if p.flags&flags != flags {
				return at, nil
			}
			at += pageSize()
		}
	}
	return -1, nil
}
