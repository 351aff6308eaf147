package prove

import "testing"

// Faults are page faults that instructions of this process took, in user mode. Those inside of system calls are not
// among them, unlike in ru_majflt.
type Faults struct {
	Major int64 // that had to read
	Minor int64
}

// CountFaults begins to count, in all threads of the process, those to come included. What other goroutines do
// meanwhile is counted too, so the test must be alone.
func CountFaults(t testing.TB) (read func() Faults) {
	t.Helper()
	Need(t, Linux)
	return countFaults(t)
}
