package prove

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
)

// WineEnv names Wine's loader if the tests run under Wine, which is Windows but for what it lacks; scripts/winetest
// sets it.
const WineEnv = "MMAPIO_WINE"

// Wine says whether the tests run under Wine.
func Wine() bool { return runtime.GOOS == "windows" && os.Getenv(WineEnv) != "" }

// WineLacks skips the test under Wine, and only there: a real Windows must run it. docs/platforms.md lists what.
func WineLacks(t testing.TB, what string) {
	t.Helper()
	if Wine() {
		t.Skip("Wine 8 lacks " + what)
	}
}

// TempDir is t.TempDir, but for Wine 8: os.RemoveAll removes by a call (FileDispositionInformationEx) that it answers
// with STATUS_NOT_IMPLEMENTED, where an old Windows says something that package os knows. There all must be closed and
// unmapped before the directory goes, as on Windows.
func TempDir(t testing.TB) string {
	t.Helper()
	if !Wine() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("", "mmapio")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeAll(t, dir) })
	return dir
}

// removeAll removes by name, one by one, the deepest first.
func removeAll(t testing.TB, dir string) {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Errorf("clean up: %v", err)
	}
	for _, path := range slices.Backward(all) {
		if err := os.Remove(path); err != nil {
			t.Errorf("clean up: %v", err)
		}
	}
}

// Truncate changes the length of a file as another process does, also while it is mapped. Windows does not shorten a
// mapped file for anybody: there the test is skipped, but under Wine a program of the system below it does it.
func Truncate(t testing.TB, path string, size int64) {
	t.Helper()
	if runtime.GOOS != "windows" {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !CanTruncate() {
		t.Skip("Windows does not shorten a file that is mapped")
	}
	truncateBelow(t, path, size)
}

// CanTruncate says whether Truncate can shorten a mapped file.
func CanTruncate() bool { return runtime.GOOS != "windows" || Wine() }
