// Package prove asks the kernel what the library claims, by other routes than the library takes, and sets up the
// conditions under which a claim can turn out to be false: swap, a small memory cgroup, a full disk, a user without
// privilege. Only test files import it.
//
// A proof in this module has three parts: an oracle that is not the code under test, a condition that would break a
// wrong implementation, and a control that the same condition does break. The oracles here read smaps, pagemap and
// cachestat, and never share code with internal/sys.
//
// It builds on every system, so that the tests that import it do; where the kernel cannot be asked, its functions skip
// the test and say why. With MMAPIO_E2E=1 a missing condition on Linux is a failure and not a skip: a CI that silently
// proves nothing is worse than none.
//
// Every condition is undone in t.Cleanup, and is written down first in a ledger under /run, so that the next run undoes
// what a crashed one left (see ledger_linux.go).
package prove
