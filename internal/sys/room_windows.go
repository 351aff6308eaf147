package sys

import "golang.org/x/sys/windows"

var procMapViewOfFileEx = kernel32.NewProc("MapViewOfFileEx")

// A view cannot take the place of reserved address space, so that is released
// right before the view is mapped to where it was. What another thread maps
// there in between sends the view elsewhere.
func setAside(n int) (Room, error) {
	addr, err := windows.VirtualAlloc(0, uintptr(n), windows.MEM_RESERVE, windows.PAGE_NOACCESS)
	return Room{addr}, err
}

func (r *Room) free() {
	_ = windows.VirtualFree(r.addr, 0, windows.MEM_RELEASE) // ours, whole
}

// mapView maps at an address if it is free, 0 for any, and anywhere else if not.
func mapView(section windows.Handle, access uint32, off int64, n int, at uintptr) (addr uintptr, err error) {
	if at != 0 {
		addr, _, _ = procMapViewOfFileEx.Call(uintptr(section), uintptr(access),
			uintptr(uint32(off>>32)), uintptr(uint32(off)), uintptr(n), at)
	}
	if addr == 0 {
		addr, err = windows.MapViewOfFile(section, access, uint32(off>>32), uint32(off), uintptr(n))
	}
	return addr, err
}
