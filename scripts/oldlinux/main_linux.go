//go:build amd64 || arm64

// Command oldlinux runs a program as on Linux 5.10 (that of Debian 11): the kernel
// refuses, with the errors of such a kernel, what it has learned since then of
// what this module asks for. MMAPIO_OLDLINUX=1 tells the program.
//
//	oldlinux PROGRAM [ARGUMENTS]
//
// go test -exec takes it.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A refusal is about a system call, or about those with one of some values as an
// argument.
type refusal struct {
	call   uint32
	arg    int
	values []uint32
	errno  syscall.Errno
}

var newer = []refusal{
	{unix.SYS_MADVISE, 2, []uint32{
		unix.MADV_POPULATE_READ, unix.MADV_POPULATE_WRITE, // 5.14
		unix.MADV_COLLAPSE, // 6.1
	}, unix.EINVAL},
	{unix.SYS_IOCTL, 1, []uint32{
		0xC0606610, // PAGEMAP_SCAN, 6.7
		0xC0686611, // PROCMAP_QUERY, 6.11
	}, unix.ENOTTY},
	{call: unix.SYS_CACHESTAT, errno: unix.ENOSYS},    // 6.5
	{call: unix.SYS_MEMFD_SECRET, errno: unix.ENOSYS}, // 5.14
}

const (
	numberAt = 0  // in struct seccomp_data
	argsAt   = 16 // of 64 bits each
)

func filter(all []refusal) []unix.SockFilter {
	load := func(at int) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(at)}
	}
	unless := func(value uint32, skip int) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: uint8(skip)}
	}
	low := 0 // where an argument has its low half
	if one := uint16(1); *(*byte)(unsafe.Pointer(&one)) == 0 {
		low = 4
	}
	var code []unix.SockFilter
	for _, r := range all {
		refuse := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(r.errno)}
		var then []unix.SockFilter
		if len(r.values) == 0 {
			then = []unix.SockFilter{refuse}
		} else {
			then = []unix.SockFilter{load(argsAt + 8*r.arg + low)}
			for _, v := range r.values {
				then = append(then, unless(v, 1), refuse)
			}
		}
		code = append(code, load(numberAt), unless(r.call, len(then)))
		code = append(code, then...)
	}
	return append(code, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
}

func run(argv []string) error {
	if len(argv) == 0 {
		return errors.New("usage: oldlinux PROGRAM [ARGUMENTS]")
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	code := filter(newer)
	prog := &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	runtime.LockOSThread() // the filter is the thread's, and goes along with exec
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(prog)), 0, 0); err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	return syscall.Exec(path, argv, append(os.Environ(), "MMAPIO_OLDLINUX=1"))
}

func main() {
	fmt.Fprintln(os.Stderr, "oldlinux:", run(os.Args[1:]))
	os.Exit(2)
}
