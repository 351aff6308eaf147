package sys

import (
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

const openFlags = 0

// FlushFileBuffers does not write what was stored through views.
const flushBeforeSync = true

func syncFile(f *os.File) error { return bare(f.Sync()) }

// NTFS keeps its own log of a directory's entries, and FlushFileBuffers wants a
// handle that may write, which a directory does not give.
func syncDir(string, *os.File) (lasting bool, err error) { return false, nil }

var procNtQueryObject = windows.NewLazySystemDLL("ntdll.dll").NewProc("NtQueryObject")

// objectBasic is PUBLIC_OBJECT_BASIC_INFORMATION of winternl.h, which x/sys
// lacks. Its information class is number 0.
type objectBasic struct {
	attributes, granted, handles, pointers uint32
	_                                      [10]uint32
}

// What a handle may do is what it was opened for.
func describe(f *os.File) (d Descriptor, err error) {
	err = control(f, func(h windows.Handle) error {
		var info objectBasic
		status, _, _ := procNtQueryObject.Call(uintptr(h), 0, uintptr(unsafe.Pointer(&info)), unsafe.Sizeof(info), 0)
		if status != 0 {
			return windows.NTStatus(status).Errno()
		}
		anywhere := info.granted&windows.FILE_WRITE_DATA != 0
		atEnd := info.granted&windows.FILE_APPEND_DATA != 0
		d = Descriptor{
			Read:   info.granted&windows.FILE_READ_DATA != 0,
			Write:  anywhere || atEnd,
			Append: atEnd && !anywhere,
		}
		return nil
	})
	return d, err
}

// ReOpenFile of fileapi.h goes by the handle, not the name. All sharing is
// allowed, or whoever holds the file for removal would make it fail.
func reopen(f *os.File, write bool) (n *os.File, shared bool, err error) {
	access := uintptr(windows.GENERIC_READ)
	if write {
		access |= windows.GENERIC_WRITE
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	err = control(f, func(h windows.Handle) error {
		r, _, _ := procReOpenFile.Call(uintptr(h), access, share, 0)
		got := windows.Handle(r)
		if got == windows.InvalidHandle {
			shared = true
			self := windows.CurrentProcess()
			if err := windows.DuplicateHandle(self, h, self, &got, 0, false, windows.DUPLICATE_SAME_ACCESS); err != nil {
				return err
			}
		}
		n = os.NewFile(uintptr(got), f.Name())
		return nil
	})
	return n, shared, err
}

// fileStandard is FILE_STANDARD_INFO of winbase.h, which x/sys lacks.
type fileStandard struct {
	allocated, endOfFile int64
	links                uint32
	removed, directory   bool
}

func standardInfo(h windows.Handle) (info fileStandard, err error) {
	err = windows.GetFileInformationByHandleEx(h, windows.FileStandardInfo,
		(*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	return info, err
}

// A file that is neither sparse nor compressed has no holes. Both calls would
// also make it shorter, so they are made only if it is not long enough.
func allocate(f *os.File, off, n int64) (was int64, err error) {
	end := off + n
	err = control(f, func(h windows.Handle) error {
		var file windows.ByHandleFileInformation
		if err := windows.GetFileInformationByHandle(h, &file); err != nil {
			return err
		}
		if file.FileAttributes&(windows.FILE_ATTRIBUTE_SPARSE_FILE|windows.FILE_ATTRIBUTE_COMPRESSED) != 0 {
			return ErrUnsupported
		}
		info, err := standardInfo(h)
		was = info.endOfFile
		if err != nil || was >= end {
			return err
		}
		if info.allocated < end {
			err = setInfo(h, windows.FileAllocationInfo, end)
		}
		if err == nil {
			err = setInfo(h, windows.FileEndOfFileInfo, end)
		}
		if errors.Is(err, ErrUnsupported) || err == windows.ERROR_INVALID_FUNCTION { //nolint:errorlint // bare errno
			return ErrUnsupported
		}
		return err
	})
	return was, err
}

// setInfo sets one of the informations that are a single number.
func setInfo(h windows.Handle, class uint32, v int64) error {
	return windows.SetFileInformationByHandle(h, class, (*byte)(unsafe.Pointer(&v)), uint32(unsafe.Sizeof(v)))
}

func allowHoles(f *os.File) {
	_ = control(f, func(h windows.Handle) error {
		var n uint32
		return windows.DeviceIoControl(h, windows.FSCTL_SET_SPARSE, nil, 0, nil, 0, &n, nil)
	})
}

// readFile is replaced by tests: Wine lets everybody read what is locked.
var readFile = windows.ReadFile

// ReadFile takes the place to read at from the OVERLAPPED, also of a handle
// that is not asynchronous. LockFileEx keeps all handles but one from reading, also
// of the same process, but no views.
func readAt(f *os.File, b []byte, off int64) (n int, err error) {
	err = control(f, func(h windows.Handle) error {
		for n < len(b) {
			at := off + int64(n)
			o := windows.Overlapped{Offset: uint32(at), OffsetHigh: uint32(at >> 32)}
			var got uint32
			err := readFile(h, b[n:min(len(b), n+1<<30)], &got, &o)
			n += int(got)
			if err == windows.ERROR_HANDLE_EOF || err == nil && got == 0 { //nolint:errorlint // bare errno
				return io.EOF
			}
			if err == windows.ERROR_LOCK_VIOLATION { //nolint:errorlint // bare errno
				return ErrUnsupported
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}
