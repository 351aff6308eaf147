package prove

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// countFaults opens events for each thread, which those that the thread starts inherit. It looks for threads until it
// has seen no new one, since they start others meanwhile.
func countFaults(t testing.TB) (read func() Faults) {
	t.Helper()
	bringProgramIn(t)
	events := map[uint64][]int{unix.PERF_COUNT_SW_PAGE_FAULTS_MAJ: nil, unix.PERF_COUNT_SW_PAGE_FAULTS_MIN: nil}
	t.Cleanup(func() {
		for _, fds := range events {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
		}
	})
	seen := map[int]bool{}
	for again := true; again; {
		again = false
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, thread := range threads {
			tid, err := strconv.Atoi(thread.Name())
			if err != nil || seen[tid] {
				continue
			}
			seen[tid], again = true, true
			for config := range events {
				fd, err := openEvent(tid, config)
				if err == unix.ESRCH { //nolint:errorlint // bare errno
					continue // the thread has ended
				}
				if err != nil {
					Unable(t, "page faults cannot be counted (perf_event_open: %v)", err)
				}
				events[config] = append(events[config], fd)
			}
		}
	}
	sum := func(config uint64) (n int64) {
		for _, fd := range events[config] {
			var b [8]byte
			if _, err := unix.Read(fd, b[:]); err != nil {
				t.Fatalf("read a counter: %v", err)
			}
			n += int64(binary.NativeEndian.Uint64(b[:]))
		}
		return n
	}
	now := func() Faults {
		return Faults{sum(unix.PERF_COUNT_SW_PAGE_FAULTS_MAJ), sum(unix.PERF_COUNT_SW_PAGE_FAULTS_MIN)}
	}
	start := now()
	return func() Faults {
		end := now()
		return Faults{end.Major - start.Major, end.Minor - start.Minor}
	}
}

// bringProgramIn maps the program's own code and constants in: who drops the caches of the machine spares what is
// mapped, and else the first step into a page of code could be a major fault.
func bringProgramIn(t testing.TB) {
	t.Helper()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(all)) {
		var lo, hi uintptr
		if _, err := fmt.Sscanf(line, "%x-%x r", &lo, &hi); err != nil || !strings.HasSuffix(strings.TrimSpace(line), exe) {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, lo, hi-lo, unix.MADV_POPULATE_READ); errno == 0 {
			continue
		}
		for at := lo; at < hi; at += uintptr(unix.Getpagesize()) { // before Linux 5.14
			var b [1]byte
			to := []unix.Iovec{{Base: &b[0]}}
			to[0].SetLen(1)
			from := []unix.RemoteIovec{{Base: at, Len: 1}}
			if _, err := unix.ProcessVMReadv(os.Getpid(), to, from, 0); err != nil {
				t.Fatal("the program is not brought in:", err)
			}
		}
	}
}

func openEvent(tid int, config uint64) (int, error) {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: config,
		Bits: unix.PerfBitInherit | unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv,
	}
	attr.Size = uint32(unsafe.Sizeof(attr))
	fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	runtime.KeepAlive(&attr)
	return fd, err
}
