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
	var code []unix.SockFilter
	require := func(at uintptr, v uint32) {
		rest := 2 * (len(args) - len(code)/2) // up to what refuses
		code = append(code,
			unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(at)},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: uint8(rest + 1), K: v})
	}
	require(0, uint32(call))
	low := uintptr(binary.NativeEndian.Uint16([]byte{0, 4})) & 4 // where the lower half of 64 bits is
	for i, v := range args {
		require(16+8*uintptr(i)+low, v) // seccomp_data.args
	}
	err := filterCalls(append(code,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}))
	if err != nil {
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
