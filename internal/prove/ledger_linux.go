package prove

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// What outlives a process (swap, mounts, cgroups, sysctls) is written into the ledger before it is made: a file for
// each, locked by the process that owns it. The kernel drops the lock when that process dies, however it dies, so an
// entry whose lock can be had is a dead run's, and whoever comes next undoes it. /run is emptied by a reboot, as the
// conditions are.
const ledgerDir = "/run/mmapio-prove"

// An entry says what to undo.
type entry struct {
	Kind  string // a key of undoers
	Path  string
	Value string // what a sysctl was before
}

// undoers are idempotent: undoing what was never done, or was undone, succeeds.
var undoers map[string]func(entry) error

func init() { //nolint:gochecknoinits // a literal would be an initialisation cycle
	undoers = map[string]func(entry) error{
		"swap": undoSwap, "mount": undoMount, "cgroup": undoCgroup, "sysctl": undoSysctl,
	}
}

var entries atomic.Int64

// record writes an entry down and returns what undoes it. Undone at most once.
func record(e entry) (undo func() error, err error) {
	sweep()
	if err := os.MkdirAll(ledgerDir, 0o700); err != nil {
		return nil, err
	}
	text, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	name := filepath.Join(ledgerDir, fmt.Sprintf("%s-%d-%d", e.Kind, os.Getpid(), entries.Add(1)))
	f, err := os.OpenFile(name+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if err = tryLock(f); err == nil {
		if _, err = f.Write(text); err == nil {
			err = os.Rename(name+".new", name+".json") // only now can a sweep see it, complete and locked
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	done := false
	return func() error {
		if done {
			return nil
		}
		done = true
		err := undoers[e.Kind](e)
		if err == nil {
			err = os.Remove(name + ".json")
		}
		return errors.Join(err, f.Close()) // if undoing failed, the next run tries again
	}, nil
}

// condition records an entry and undoes it when the test ends, failing it if that cannot be done.
func condition(t testing.TB, e entry) {
	t.Helper()
	undo, err := record(e)
	if err != nil {
		t.Fatalf("ledger: %v", err)
	}
	t.Cleanup(func() {
		if err := undo(); err != nil {
			t.Errorf("undo %s %s: %v", e.Kind, e.Path, err)
		}
	})
}

// sweep undoes what dead runs left. Best effort: an entry that cannot be undone stays for the next sweep.
func sweep() {
	names, _ := filepath.Glob(filepath.Join(ledgerDir, "*.json"))
	for i := len(names) - 1; i >= 0; i-- {
		sweepOne(names[i])
	}
}

func sweepOne(name string) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	if tryLock(f) != nil {
		return
	}
	var st syscall.Stat_t
	if syscall.Fstat(int(f.Fd()), &st) != nil || st.Nlink == 0 {
		return // its owner removed it between the open and the lock
	}
	var e entry
	if json.NewDecoder(f).Decode(&e) != nil || undoers[e.Kind] == nil || undoers[e.Kind](e) != nil {
		return
	}
	_ = os.Remove(name)
}

func tryLock(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// waitLock waits for a lock that other tests on this machine may hold.
func waitLock(f *os.File, limit time.Duration) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := tryLock(f)
		if err == nil || !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(deadline) {
			return err
		}
	}
}

// insist repeats what fails for a moment because something has just ended and is still in the way.
func insist(limit time.Duration, do func() error) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		err := do()
		if err == nil || !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}
