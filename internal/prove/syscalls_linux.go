package prove

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// CountSyscalls returns how many system calls a process (0 is this one) makes while during runs, all its threads together.
// The kernel counts them (the tracepoint raw_syscalls:sys_enter), which takes root.
func CountSyscalls(t testing.TB, pid int, during func()) int {
	t.Helper()
	return count(t, "raw_syscalls/sys_enter", pid, during)
}

// CountCalls returns how often this process makes one system call while during runs (the tracepoint
// syscalls:sys_enter_NAME). The Go runtime's own calls, more of them the longer it takes, are not counted.
func CountCalls(t testing.TB, name string, during func()) int {
	t.Helper()
	return count(t, "syscalls/sys_enter_"+name, 0, during)
}

func count(t testing.TB, event string, pid int, during func()) int {
	t.Helper()
	Need(t, Root)
	id, err := tracepoint(t, event)
	if err != nil {
		lack(t, Root, "system calls cannot be counted: "+err.Error())
	}
	if pid == 0 {
		pid = os.Getpid()
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	attr := &unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Bits: unix.PerfBitInherit}
	attr.Size = uint32(unsafe.Sizeof(*attr))
	var fds []int
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PerfEventOpen(attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err == unix.ESRCH { //nolint:errorlint // bare errno
			continue // a thread that has ended
		}
		if err != nil {
			lack(t, Root, "perf_event_open: "+err.Error())
		}
		fds = append(fds, fd)
	}
	during()
	var sum int
	for _, fd := range fds {
		var count [8]byte
		if _, err := unix.Read(fd, count[:]); err != nil {
			t.Fatal(err)
		}
		sum += int(binary.NativeEndian.Uint64(count[:]))
	}
	return sum
}

// tracepoint asks for the number of one, on a mount of its own.
func tracepoint(t testing.TB, event string) (uint64, error) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tracefs", 0, ""); err != nil {
		return 0, fmt.Errorf("mount tracefs: %w", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH) //nolint:errcheck // the next run does not need its place
	text, err := os.ReadFile(filepath.Join(dir, "events", event, "id"))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}
