package prove

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// sysctlOwners says which test of this process has changed a parameter, so that it may change it again.
var sysctlOwners sync.Map // name → testing.TB

func sysctlFile(name string) string {
	return "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
}

// setSysctl holds a lock per parameter until the old value is back: two tests that save and restore in an overlapping
// way would leave the machine with a value that neither found.
func setSysctl(t testing.TB, name, value string) {
	t.Helper()
	if owner, ok := sysctlOwners.Load(name); ok && owner == t {
		if err := os.WriteFile(sysctlFile(name), []byte(value), 0); err != nil {
			t.Fatalf("sysctl %s=%s: %v", name, value, err)
		}
		return
	}
	if err := os.MkdirAll(ledgerDir, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(ledgerDir, "sysctl."+name+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	if err := waitLock(lock, 2*time.Minute); err != nil {
		t.Fatalf("sysctl %s: another test has it: %v", name, err)
	}
	sweep() // before the old value is read: it may be a dead run's
	old, err := os.ReadFile(sysctlFile(name))
	if err != nil {
		t.Fatal(err)
	}
	condition(t, entry{Kind: "sysctl", Path: name, Value: strings.TrimSpace(string(old))})
	sysctlOwners.Store(name, t)
	t.Cleanup(func() { sysctlOwners.Delete(name) })
	if err := os.WriteFile(sysctlFile(name), []byte(value), 0); err != nil {
		t.Fatalf("sysctl %s=%s: %v", name, value, err)
	}
}

func undoSysctl(e entry) error {
	return os.WriteFile(sysctlFile(e.Path), []byte(e.Value), 0)
}
