package mmapio_test

import (
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/mmapio/mmapio/internal/prove"
)

// systemActs are those that take a system call of this system.
var systemActs = map[string]func(t testing.TB, path string){
	"plain load": func(t testing.TB, path string) {
		b := plainView(t, path, windows.PAGE_READONLY, windows.FILE_MAP_READ)
		ask(t, "cut")
		sum(b)
	},
	"plain store": func(t testing.TB, path string) {
		b := plainView(t, path, windows.PAGE_READWRITE, windows.FILE_MAP_WRITE)
		ask(t, "cut")
		clear(b)
	},
	"plain store into read-only": func(t testing.TB, path string) {
		plainView(t, path, windows.PAGE_READONLY, windows.FILE_MAP_READ)[0] = 1
	},
}

// plainView maps a file as every program does.
func plainView(t testing.TB, path string, protection, access uint32) []byte {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	section, err := windows.CreateFileMapping(windows.Handle(f.Fd()), nil, protection, 0, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer windows.CloseHandle(section)
	addr, err := windows.MapViewOfFile(section, access, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&addr)), sizeOnDisk(t, path))
}

// TestInPageError: Windows says EXCEPTION_IN_PAGE_ERROR where a page of a file
// cannot be had. Wine says EXCEPTION_ACCESS_VIOLATION, so here a handler in
// front of Go's makes the one of the other.
func TestInPageError(t *testing.T) {
	needCut(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("windows/" + runtime.GOARCH + ": the handler is machine code for amd64")
	}
	for _, name := range []string{"ReadAt", "WriteAt", "View copy", "Update", "Region", "LoadAt", "StoreAt", "Chunks in Guard"} {
		t.Run(name, func(t *testing.T) {
			path, _ := patternFile(t, filePages*pageSize)
			if res := runFault(t, name, path, cutting(t, path), "in-page"); res.Code != 0 {
				t.Error(res)
			}
		})
	}
	for _, name := range []string{"plain load", "plain store", "Region unguarded"} {
		t.Run(name, func(t *testing.T) {
			path, _ := patternFile(t, filePages*pageSize)
			wantDeath(t, runFault(t, name, path, cutting(t, path), "in-page"), "0xc0000006")
		})
	}
}

// inPageErrors puts a vectored handler first that changes the code of the
// exception and lets the search go on. It is machine code, since Go code cannot
// run there.
func inPageErrors(t testing.TB) {
	code := []byte{
		0x48, 0x8b, 0x01, // mov rax, [rcx]: the EXCEPTION_RECORD
		0x81, 0x38, 0x05, 0x00, 0x00, 0xc0, // cmp dword [rax], EXCEPTION_ACCESS_VIOLATION
		0x75, 0x06, // jne over the next
		0xc7, 0x00, 0x06, 0x00, 0x00, 0xc0, // mov dword [rax], EXCEPTION_IN_PAGE_ERROR
		0x31, 0xc0, // xor eax, eax: EXCEPTION_CONTINUE_SEARCH
		0xc3, // ret
	}
	addr, err := windows.VirtualAlloc(0, uintptr(len(code)), windows.MEM_RESERVE|windows.MEM_COMMIT, windows.PAGE_EXECUTE_READWRITE)
	if err != nil {
		t.Fatal(err)
	}
	copy(unsafe.Slice(*(**byte)(unsafe.Pointer(&addr)), len(code)), code)
	add := windows.NewLazySystemDLL("kernel32.dll").NewProc("AddVectoredExceptionHandler")
	if h, _, err := add.Call(1, addr); h == 0 {
		t.Fatal(err)
	}
	prove.T().Log("faults are in-page errors")
}
