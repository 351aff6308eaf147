package prove

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refuseCalls makes system calls of this process fail from now on, in all its threads. The filter looks at the number
// only: a child here makes the calls of one architecture.
func refuseCalls(all []refusal) error {
	if len(all) == 0 {
		return nil
	}
	code := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // seccomp_data.nr
	for _, r := range all {
		code = append(code,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(r.Call)},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(r.Errno)})
	}
	return filterCalls(append(code, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}))
}

// RefuseArgs makes a system call of this child fail from now on where the lower halves of its first arguments are these.
func RefuseArgs(t testing.TB, call uintptr, errno int, args ...uint32) {
	t.Helper()
	var f filter
	f.load(numberAt)
	f.require(unix.BPF_JEQ, uint32(call))
	for i, v := range args {
		f.load(lowAt(i))
		f.require(unix.BPF_JEQ, v)
	}
	f.refuse(t, errno)
}

// RefuseOver makes a call such as madvise(2), of an address, a length and a number, fail from now on where the memory
// it is about holds a certain byte. The lower half of an address has to do for that: no call may reach over 4 GiB.
func RefuseOver(t testing.TB, call uintptr, errno int, addr uintptr, number uint32) {
	t.Helper()
	var f filter
	f.load(numberAt)
	f.require(unix.BPF_JEQ, uint32(call))
	f.load(lowAt(2))
	f.require(unix.BPF_JEQ, number)
	f.load(lowAt(0))
	f.exclude(unix.BPF_JGT, uint32(addr)) // begins behind it
	f.add(unix.SockFilter{Code: unix.BPF_MISC | unix.BPF_TAX})
	f.load(lowAt(1))
	f.add(unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_ADD | unix.BPF_X})
	f.require(unix.BPF_JGT, uint32(addr))
	f.refuse(t, errno)
}

// Where a filter finds a call's number, and the lower half of an argument: struct seccomp_data.
const numberAt = 0

func lowAt(arg int) uint32 {
	half := uint32(binary.NativeEndian.Uint16([]byte{0, 4})) & 4
	return 16 + 8*uint32(arg) + half
}

// A filter refuses calls of which all is true that it requires.
type filter []unix.SockFilter

// toAllow is a jump to the end, wherever that will be.
const toAllow = 255

func (f *filter) add(code unix.SockFilter) { *f = append(*f, code) }

func (f *filter) load(at uint32) {
	f.add(unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at})
}

func (f *filter) require(cmp uint16, v uint32) {
	f.add(unix.SockFilter{Code: unix.BPF_JMP | cmp | unix.BPF_K, K: v, Jf: toAllow})
}

func (f *filter) exclude(cmp uint16, v uint32) {
	f.add(unix.SockFilter{Code: unix.BPF_JMP | cmp | unix.BPF_K, K: v, Jt: toAllow})
}

func (f *filter) refuse(t testing.TB, errno int) {
	t.Helper()
	code := append(*f,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	for i := range code {
		rest := uint8(len(code) - 2 - i)
		if code[i].Jt == toAllow {
			code[i].Jt = rest
		}
		if code[i].Jf == toAllow {
			code[i].Jf = rest
		}
	}
	if err := filterCalls(code); err != nil {
		t.Fatal(err)
	}
}

func filterCalls(code []unix.SockFilter) error {
	prog := &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	runtime.LockOSThread() // of which the flag is
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	// TSYNC is all threads, and takes the flag along.
	_, _, errno := syscall.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(prog)))
	runtime.KeepAlive(code)
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}

// tryFilters asks whether a filter could answer with an errno.
func tryFilters() string {
	const actionAvailable = 2 // SECCOMP_GET_ACTION_AVAIL
	action := uint32(unix.SECCOMP_RET_ERRNO)
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, actionAvailable, 0, uintptr(unsafe.Pointer(&action))); errno != 0 {
		return "no seccomp filters: " + errno.Error()
	}
	return ""
}
