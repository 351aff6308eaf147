package sys

import (
	"errors"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"
)

// fakeMemory stands for a kernel that keeps the rules of VirtualLock.
type fakeMemory struct {
	low, high uintptr
	flags     uint32
	locked    map[uintptr]bool // by page
	touched   map[uintptr]bool // as locked
	sets      int
	refuse    error // what setWorkingSet returns
}

const overhead = 8 // pages of the minimum working set that cannot be locked

func fake(t *testing.T) *fakeMemory {
	t.Helper()
	p := uintptr(PageSize())
	m := &fakeMemory{
		low: 50 * p, high: 345 * p, flags: windows.QUOTA_LIMITS_HARDWS_MIN_ENABLE | windows.QUOTA_LIMITS_HARDWS_MAX_DISABLE,
		locked: map[uintptr]bool{}, touched: map[uintptr]bool{},
	}
	oldLock, oldUnlock, oldGet, oldSet := virtualLock, virtualUnlock, getWorkingSet, setWorkingSet
	oldQuery := queryWorkingSet
	t.Cleanup(func() {
		virtualLock, virtualUnlock, getWorkingSet, setWorkingSet = oldLock, oldUnlock, oldGet, oldSet
		queryWorkingSet = oldQuery
	})
	pages := func(addr, n uintptr) (list []uintptr) {
		for at := addr; at < addr+n; at += p {
			list = append(list, at)
		}
		return list
	}
	virtualLock = func(addr, n uintptr) error {
		if uintptr(len(m.locked)+overhead)*p+n > m.low {
			return windows.ERROR_WORKING_SET_QUOTA
		}
		for _, at := range pages(addr, n) {
			m.locked[at] = true
		}
		return nil
	}
	virtualUnlock = func(addr, n uintptr) error {
		for _, at := range pages(addr, n) {
			if !m.locked[at] {
				return windows.ERROR_NOT_LOCKED
			}
		}
		for _, at := range pages(addr, n) {
			delete(m.locked, at)
		}
		return nil
	}
	getWorkingSet = func() (uintptr, uintptr, uint32) { return m.low, m.high, m.flags }
	setWorkingSet = func(low, high uintptr, flags uint32) error {
		m.sets++
		if m.refuse != nil {
			return m.refuse
		}
		if low > high || flags != m.flags {
			t.Errorf("working set [%d, %d], flags %#x", low, high, flags)
		}
		m.low, m.high = low, high
		return nil
	}
	queryWorkingSet = func(pages []workingSetPage) error {
		if size := unsafe.Sizeof(pages[0]); size != 2*unsafe.Sizeof(uintptr(0)) {
			t.Errorf("the kernel's structure has two words, ours %d bytes", size)
		}
		for i := range pages {
			switch addr := pages[i].addr; {
			case m.locked[addr]:
				pages[i].flags = block(1, 1, windows.PAGE_READWRITE, 0, 5, 1)
			case m.touched[addr]:
				pages[i].flags = block(1, 7, windows.PAGE_READWRITE, 1, 63, 0) | 1<<23 | 1<<31
			default:
				pages[i].flags = block(0, 7, 1<<11-1, 1, 63, 1)
			}
		}
		return nil
	}
	return m
}

// block lays PSAPI_WORKING_SET_EX_BLOCK of psapi.h out, the lowest bit first.
func block(valid, shareCount, protection, shared, node, locked uintptr) (b uintptr) {
	at := 0
	for _, field := range []struct {
		bits  int
		value uintptr
	}{{1, valid}, {3, shareCount}, {11, protection}, {1, shared}, {6, node}, {1, locked}} {
		b |= field.value << at
		at += field.bits
	}
	return b
}

func quotaNow() (locked, granted int) {
	quota.Lock()
	defer quota.Unlock()
	return quota.locked, quota.granted
}

func TestLockGrowsQuota(t *testing.T) {
	m := fake(t)
	p := PageSize()
	low, high := m.low, m.high
	s := owned(t)(MapAnon(1000 * p))
	if err := s.Lock(0, 10*p); err != nil || m.sets != 0 {
		t.Errorf("Lock that fits: %v, quota set %d times", err, m.sets)
	}
	if err := s.Lock(10*p, 500*p); err != nil {
		t.Fatal(err)
	}
	if len(m.locked) != 510 || m.sets != 1 {
		t.Errorf("%d pages locked, quota set %d times", len(m.locked), m.sets)
	}
	if want := low + uintptr(510*p+quotaMargin); m.low != want || m.high-m.low != high-low {
		t.Errorf("working set [%d, %d], want %d and the same distance", m.low, m.high, want)
	}
	if err := s.Unlock(0, 500*p); err != nil {
		t.Fatal(err)
	}
	if want := low + uintptr(10*p+quotaMargin); m.low != want {
		t.Errorf("after Unlock the minimum is %d, want %d", m.low, want)
	}
	if err := s.Free(); err != nil {
		t.Fatal(err)
	}
	if locked, granted := quotaNow(); m.low != low || m.high != high || locked != 0 || granted != 0 {
		t.Errorf("after Free: [%d, %d], locked %d, granted %d", m.low, m.high, locked, granted)
	}
}

// What others do to the working set meanwhile stays.
func TestLockKeepsOthersQuota(t *testing.T) {
	m := fake(t)
	s := owned(t)(MapAnon(1000 * PageSize()))
	if err := s.Lock(0, s.Size()); err != nil {
		t.Fatal(err)
	}
	m.low, m.high = m.low+1<<20, m.high+1<<20
	if err := s.Unlock(0, s.Size()); err != nil {
		t.Fatal(err)
	}
	p := uintptr(PageSize())
	if m.low != 50*p+1<<20 || m.high != 345*p+1<<20 {
		t.Errorf("working set [%d, %d]", m.low, m.high)
	}
}

func TestLockRefused(t *testing.T) {
	m := fake(t)
	s := owned(t)(MapAnon(1000 * PageSize()))
	m.refuse = windows.ERROR_PRIVILEGE_NOT_HELD
	if err := s.Lock(0, s.Size()); !errors.Is(err, windows.ERROR_PRIVILEGE_NOT_HELD) {
		t.Errorf("quota refused: %v", err)
	}
	m.refuse = nil
	virtualLock = func(addr, n uintptr) error { return windows.ERROR_WORKING_SET_QUOTA }
	if err := s.Lock(0, s.Size()); !errors.Is(err, windows.ERROR_WORKING_SET_QUOTA) {
		t.Errorf("never enough: %v", err)
	}
	virtualLock = func(addr, n uintptr) error { return windows.ERROR_NOACCESS }
	if err := s.Lock(0, s.Size()); !errors.Is(err, ErrUnreadable) {
		t.Errorf("unreadable: %v", err)
	}
	if locked, granted := quotaNow(); locked != 0 || granted != 0 || m.low != 50*uintptr(PageSize()) {
		t.Errorf("left behind: locked %d, granted %d, minimum %d", locked, granted, m.low)
	}
}

// One call refuses a range with a single page that is not locked.
func TestUnlockNotLocked(t *testing.T) {
	m := fake(t)
	p := PageSize()
	s := owned(t)(MapAnon(10 * p))
	if err := s.Unlock(0, 10*p); err != nil {
		t.Errorf("nothing locked: %v", err)
	}
	for _, page := range []int{1, 2, 7} {
		if err := s.Lock(page*p, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Unlock(0, 6*p); err != nil {
		t.Errorf("some locked: %v", err)
	}
	if locked, _ := quotaNow(); len(m.locked) != 1 || locked != p {
		t.Errorf("%d pages still locked, %d bytes counted, want one page", len(m.locked), locked)
	}
	virtualUnlock = func(addr, n uintptr) error { return windows.ERROR_NOACCESS }
	if err := s.Unlock(7*p, p); !errors.Is(err, windows.ERROR_NOACCESS) {
		t.Errorf("Unlock: %v", err)
	}
}

// A range locked twice is locked once.
func TestLockCountsNoMoreThanThereIs(t *testing.T) {
	fake(t)
	s := owned(t)(MapAnon(10 * PageSize()))
	for range 3 {
		if err := s.Lock(0, s.Size()); err != nil {
			t.Fatal(err)
		}
	}
	if locked, _ := quotaNow(); locked != s.Size() {
		t.Errorf("%d bytes counted, want %d", locked, s.Size())
	}
}

// What the kernel says of a page is looked for where it says it.
func TestWorkingSetFlags(t *testing.T) {
	m := fake(t)
	if tells, err := tryWorkingSet(); err != nil || !tells {
		t.Errorf("a working set that tells of locks is not used: %v, %v", tells, err)
	}
	clear(m.locked) // of memory that is gone
	oldTells := workingSetTells
	t.Cleanup(func() { workingSetTells = oldTells })
	workingSetTells = func() (bool, error) { return true, nil }

	p := PageSize()
	s := owned(t)(MapAnon(4 * p))
	if err := s.Lock(p, 2*p); err != nil {
		t.Fatal(err)
	}
	m.touched[s.Addr()] = true
	for _, tt := range []struct{ at, n, unlocked, absent int }{
		{0, 4 * p, 0, 3 * p}, {0, p, 0, -1}, {p, 2 * p, -1, -1}, {p, 3 * p, 3 * p, 3 * p},
	} {
		if got, err := s.Unlocked(tt.at, tt.n); got != tt.unlocked || err != nil {
			t.Errorf("Unlocked(%d, %d) = %d, %v, want %d", tt.at, tt.n, got, err, tt.unlocked)
		}
		if got, err := s.Absent(tt.at, tt.n); got != tt.absent || err != nil {
			t.Errorf("Absent(%d, %d) = %d, %v, want %d", tt.at, tt.n, got, err, tt.absent)
		}
	}
}
