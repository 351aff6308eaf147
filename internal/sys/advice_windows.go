package sys

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

var procPrefetchVirtualMemory = kernel32.NewProc("PrefetchVirtualMemory")

func advises(h Hint) bool { return h == WillNeed && procPrefetchVirtualMemory.Find() == nil }

// memoryRange is WIN32_MEMORY_RANGE_ENTRY of memoryapi.h.
type memoryRange struct{ address, bytes uintptr }

func (s *Space) advise(at, n int, h Hint) error {
	if !advises(h) {
		return ErrUnsupported
	}
	r := memoryRange{s.addr + uintptr(at), uintptr(n)}
	ok, _, err := procPrefetchVirtualMemory.Call(uintptr(windows.CurrentProcess()), 1, uintptr(unsafe.Pointer(&r)), 0)
	if ok == 0 {
		return err
	}
	return nil
}
