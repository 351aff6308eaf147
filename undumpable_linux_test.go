package mmapio_test

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// undumpable is a daemon that nobody may look into, as it is after setuid(2), too:
// its files in /proc belong to root from then on.
var undumpable = prove.Register("undumpable", func(args []string) int {
	t := prove.T()
	check(t, unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
	if file, err := os.Open("/proc/self/pagemap"); err == nil {
		t.Errorf("%s may be opened", file.Name())
	}
	undumpableCases[args[0]](t, args[1])
	return 0
})

const undumpablePages = 16

var undumpableCases = map[string]func(t testing.TB, path string){
	// VerifyLocked needs no privilege.
	"VerifyLocked": func(t testing.TB, path string) {
		for _, mode := range allModes {
			f := opened(t)(mmapio.OpenFile(path, &mmapio.Options{Mode: mode}))
			check(t, f.LockAll())
			check(t, f.VerifyLocked(0, f.Size()))
			b := memoryOf(t, f)
			check(t, unix.Munlock(b[5*pageSize:6*pageSize]))
			wantNotHeld(t, f, f.VerifyLocked(0, f.Size()), 5)
			gone := b[2*pageSize : 3*pageSize] // locked, but present no longer
			check(t, unix.Munlock(gone))
			check(t, unix.Madvise(gone, unix.MADV_DONTNEED))
			mlockOnFault(t, gone)
			wantNotHeld(t, f, f.VerifyLocked(0, f.Size()), 2)
			check(t, f.LockAll())
			check(t, f.VerifyLocked(0, f.Size()))
		}
	},
	// Memory that was only read is the page of zeroes, which is nobody's.
	"Anonymous": func(t testing.TB, _ string) {
		f := opened(t)(mmapio.Anonymous(undumpablePages*pageSize, &mmapio.Options{Lock: mmapio.LockNow, NoDump: true, NoFork: true}))
		check(t, f.VerifyLocked(0, f.Size()))
		gone := memoryOf(t, f)[3*pageSize : 4*pageSize]
		check(t, unix.Munlock(gone))
		check(t, unix.Madvise(gone, unix.MADV_DONTNEED))
		mlockOnFault(t, gone)
		wantNotHeld(t, f, f.VerifyLocked(0, f.Size()), 3)
	},
	// What cannot be brought in is found, and the reason with it.
	"cut": func(t testing.TB, path string) {
		f := opened(t)(mmapio.OpenFile(path, &mmapio.Options{Mode: mmapio.ReadWrite}))
		check(t, os.Truncate(path, 5*pageSize))
		var le *mmapio.LockError
		if err := f.LockAll(); !errors.As(err, &le) || le.Cause != mmapio.CauseBeyondEOF {
			t.Errorf("LockAll: %v, want CauseBeyondEOF", err)
		}
		var fe *mmapio.FaultError
		err := f.Populate(prove.T().Context(), 0, f.Size())
		if !errors.As(err, &fe) || fe.Off != 5*pageSize || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Populate: %v, want a fault at offset %d", err, 5*pageSize)
		}
	},
}

// Where a filter of system calls refuses move_pages(2) as well, as those of containers
// do, VerifyLocked says what it lacks; what cannot be brought in is found all the same.
func TestProofUndumpableFiltered(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Populating, prove.Filters)
	needLockOf(t, undumpablePages*pageSize)
	for name, want := range map[string]string{"cut": "", "VerifyLocked": "unsupported operation: /proc/self/pagemap may not be opened"} {
		t.Run(name, func(t *testing.T) {
			res := runUndumpable(t, name, prove.Refuse(unix.SYS_MOVE_PAGES, int(unix.EPERM)))
			if (res.Code == 0) != (want == "") || !strings.Contains(res.Output, want) {
				t.Errorf("want %q: %v", want, res)
			}
		})
	}
}

func runUndumpable(t *testing.T, name string, opts ...prove.Option) prove.Result {
	t.Helper()
	path := prove.NewFile(t, prove.PublicDir(t), "f", undumpablePages*pageSize)
	check(t, os.Chmod(path, 0o666)) // whatever the umask
	return undumpable.Run(t, asUser(append(opts, prove.Args(name, path), prove.Env(coldEnv+"=1"))...)...)
}

// A process that may not open its own /proc/self/pagemap is told all the same
// what of its memory is in RAM.
func TestProofUndumpable(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Scan, prove.Populating)
	needLockOf(t, undumpablePages*pageSize)
	if _, _, errno := unix.Syscall6(unix.SYS_MOVE_PAGES, 0, 0, 0, 0, 0, 0); errno != 0 {
		prove.Unable(t, "move_pages: %v", errno)
	}
	for name := range undumpableCases {
		t.Run(name, func(t *testing.T) {
			if res := runUndumpable(t, name); res.Code != 0 {
				t.Error(res)
			}
		})
	}
}
