package sys

import (
	"sync"

	"golang.org/x/sys/windows"
)

// The calls that a test replaces: Wine never refuses what they refuse.
var (
	virtualLock   = windows.VirtualLock
	virtualUnlock = windows.VirtualUnlock
	getWorkingSet = func() (low, high uintptr, flags uint32) {
		windows.GetProcessWorkingSetSizeEx(windows.CurrentProcess(), &low, &high, &flags)
		return low, high, flags
	}
	setWorkingSet = func(low, high uintptr, flags uint32) error {
		return windows.SetProcessWorkingSetSizeEx(windows.CurrentProcess(), low, high, flags)
	}
)

// quotaMargin is the part of the minimum working set that cannot be locked.
// VirtualLock's documentation calls it a small overhead.
const quotaMargin = 256 << 10

// quota is what this package adds to the working set of the process. A process
// can lock a little less than its minimum working set.
var quota struct {
	sync.Mutex
	locked  int // bytes that all Spaces have locked, or are about to
	granted int // bytes by which both limits are higher for that
}

// raiseQuota makes room for what is locked, and reports whether there is more
// room now than before.
func raiseQuota() (more bool, err error) {
	quota.Lock()
	defer quota.Unlock()
	want := quota.locked + quotaMargin
	if want <= quota.granted {
		return false, nil
	}
	err = grant(want)
	return err == nil, err
}

// grant moves both limits of the working set. They may have been moved by
// others meanwhile, so it adds and subtracts. The caller holds quota.
func grant(want int) error {
	low, high, flags := getWorkingSet()
	by := uintptr(want - quota.granted) // wraps when it is negative, and back below
	if want > quota.granted && high+by < high {
		return windows.ERROR_WORKING_SET_QUOTA
	}
	if err := setWorkingSet(low+by, high+by, flags); err != nil {
		return err
	}
	quota.granted = want
	return nil
}

// charge counts bytes as locked and returns how many of them are new: more
// than the whole Space is never locked.
func (s *Space) charge(n int) int {
	quota.Lock()
	defer quota.Unlock()
	n = min(n, s.size-s.locked)
	s.locked += n
	quota.locked += n
	return n
}

// refund takes bytes off the count and gives back what was granted for them.
func (s *Space) refund(n int) {
	quota.Lock()
	defer quota.Unlock()
	n = min(n, s.locked)
	s.locked -= n
	quota.locked -= n
	want := 0
	if quota.locked > 0 {
		want = quota.locked + quotaMargin
	}
	if want < quota.granted {
		_ = grant(want) // if refused it is tried again with the next
	}
}

func (s *Space) lock(at, n int) error {
	n = roundUp(n)
	charged := s.charge(n)
	for {
		err := virtualLock(s.addr+uintptr(at), uintptr(n))
		if err == nil {
			return nil
		}
		if err == windows.ERROR_WORKING_SET_QUOTA { //nolint:errorlint // bare errno
			// Others may take the room before we do, hence the loop. It
			// ends: they are counted, so each turn has made more of it.
			more, refused := raiseQuota()
			if more {
				continue
			}
			if refused != nil {
				err = refused
			}
		}
		s.refund(charged)
		return err
	}
}

// VirtualUnlock refuses a range with ERROR_NOT_LOCKED if a single page of it is
// not locked, and does not say what became of the others.
func (s *Space) unlock(at, n int) error {
	n = roundUp(n)
	freed, err := unlockRange(s.addr+uintptr(at), n)
	if err == windows.ERROR_NOT_LOCKED { //nolint:errorlint // bare errno
		freed, err = 0, nil
		for p := 0; p < n && err == nil; p += pageSize() {
			var one int
			one, err = unlockRange(s.addr+uintptr(at+p), pageSize())
			freed += one
			if err == windows.ERROR_NOT_LOCKED { //nolint:errorlint // bare errno
				err = nil
			}
		}
	}
	s.refund(freed)
	return err
}

func unlockRange(addr uintptr, n int) (freed int, err error) {
	if err := virtualUnlock(addr, uintptr(n)); err != nil {
		return 0, err
	}
	return n, nil
}

// The minimum working set is what can be locked without asking, and no limit.
func memlockLimits() (soft, hard int64, exempt bool, err error) {
	low, _, _ := getWorkingSet()
	return int64(low), -1, true, nil
}

// Lock raises the quota as far as it must.
func raiseMemlock() error { return nil }
