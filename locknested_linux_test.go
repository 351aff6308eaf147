package mmapio_test

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// forbidCalls has the kernel end the process at the next system call that this
// thread makes, but for those by which the Go runtime waits, ends and starts threads.
func forbidCalls(t testing.TB) {
	t.Helper()
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	allowed := []uint32{
		unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_SCHED_YIELD, unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGPROCMASK,
		unix.SYS_SIGALTSTACK, unix.SYS_GETPID, unix.SYS_TGKILL, unix.SYS_WRITE, unix.SYS_EXIT_GROUP,
		sysMmap, unix.SYS_MPROTECT, unix.SYS_CLONE, unix.SYS_CLONE3,
	}
	allowed = append(allowed, waitCalls...)
	code := []unix.SockFilter{{Code: load, K: 0}} // the number of the call
	for i, nr := range allowed {
		code = append(code, unix.SockFilter{Code: equal, Jt: uint8(len(allowed) - i), K: nr})
	}
	code = append(code, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_KILL_PROCESS}, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW})
	check(t, unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if _, _, errno := syscall.Syscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		t.Fatal(errno)
	}
}

// nested locks, pins and reads what is locked already, under a filter.
var nested = prove.Register("nested", func(args []string) int {
	t := prove.T()
	f := opened(t)(mmapio.Anonymous(64*pageSize, nil))
	store(t, f, 0, string(pattern(64*pageSize, 1))) // else the rest is no page of its own to read
	f.Expire()
	check(t, f.Lock(0, 32*pageSize))
	debug.SetGCPercent(-1)
	runtime.LockOSThread()
	forbidCalls(t)
	for i := range int64(10_000) {
		off := i % 31 * pageSize
		check(t, f.Lock(off+1, pageSize))
		p, err := f.Pin(off+2, pageSize)
		check(t, err)
		check(t, p.Release())
		check(t, f.View(off, pageSize, touchSlice))
		check(t, readByte(f, off+3))
	}
	switch args[0] {
	case "control":
		check(t, f.Lock(40*pageSize, 1))
	case "control read":
		check(t, readByte(f, 40*pageSize))
	}
	fmt.Println("done")
	os.Exit(0) // from this thread: others end it by calls that are not allowed here
	return 0
})

// To lock what is locked, to pin inside of it, and to read it for the first time,
// makes no system call.
func TestNestedLocksMakeNoSystemCall(t *testing.T) {
	needLockOf(t, 33*pageSize)
	prove.Need(t, prove.Linux)
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		prove.Unable(t, "the race detector makes calls of its own")
	}
	if res := nested.Run(t, prove.Args("nested")); res.Code != 0 {
		t.Error(res)
	}
	for _, control := range []string{"control", "control read"} {
		if res := nested.Run(t, prove.Args(control)); res.Signal != syscall.SIGSYS {
			t.Errorf("%s, of what is not locked: %v", control, res)
		}
	}
}

func TestLockAllocatesNothingWhereNested(t *testing.T) {
	needLockOf(t, 4*pageSize)
	f := opened(t)(mmapio.Anonymous(4*pageSize, nil))
	check(t, f.LockAll())
	if n := testing.AllocsPerRun(200, func() { check(t, f.Lock(pageSize, 100)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
