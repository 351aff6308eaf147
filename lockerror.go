package mmapio

import (
	"fmt"
	"io/fs"
	"strconv"
)

// LockCause says what stood in the way of a lock. It was found by looking: the
// error number of the system stands for several causes each.
type LockCause int

const (
	// CauseUnknown: none of the others was found to be so. Err has the errno;
	// EIO means that a page cannot be read.
	CauseUnknown LockCause = iota
	// CauseLimit: more would be locked than RLIMIT_MEMLOCK allows, or than the
	// system allows to be wired.
	CauseLimit
	// CausePermission: the process may not lock anything.
	CausePermission
	// CauseMapCount: the locks of this process would take too many of the
	// mappings that vm.max_map_count allows.
	CauseMapCount
	// CauseMemory: there is not enough memory, or none left on a file system
	// that keeps its files in memory.
	CauseMemory
	// CauseBeyondEOF: the file is now shorter than what is mapped.
	CauseBeyondEOF
	// CauseCgroup: a memory cgroup of the process has no room, and the kernel
	// would end the process rather than fail.
	CauseCgroup
)

func (c LockCause) String() string {
	switch c {
	case CauseUnknown:
		return "unknown"
	case CauseLimit:
		return "limit"
	case CausePermission:
		return "permission"
	case CauseMapCount:
		return "map count"
	case CauseMemory:
		return "memory"
	case CauseBeyondEOF:
		return "beyond end of file"
	case CauseCgroup:
		return "cgroup"
	}
	return "LockCause(" + strconv.Itoa(int(c)) + ")"
}

// A LockError says why pages are not locked: what the caller asked for, what
// stood in the way, in numbers, and what to do about it.
type LockError struct {
	Op, Path string
	Off, Len int64 // the range asked for; for VerifyLocked the page that is not held
	Cause    LockCause
	Limits   LockLimits // as they were then
	Err      error      // the errno

	fact, remedy string
}

func (e *LockError) Error() string {
	s := fmt.Sprintf("%s %s [%d, %d): ", e.Op, e.Path, e.Off, e.Off+e.Len)
	if e.fact == "" {
		s += e.Cause.String()
		if e.Err != nil {
			s += ": " + e.Err.Error()
		}
		return s
	}
	s += e.fact
	if e.remedy != "" {
		s += "; " + e.remedy
	}
	return s
}

// Unwrap returns the errno.
func (e *LockError) Unwrap() error { return e.Err }

// Is reports whether target is fs.ErrPermission and the cause is that the
// process may not lock.
func (e *LockError) Is(target error) bool {
	return target == fs.ErrPermission && e.Cause == CausePermission
}
