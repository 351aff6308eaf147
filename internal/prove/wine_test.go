package prove

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTempDir(t *testing.T) {
	var dir string
	t.Run("", func(t *testing.T) {
		dir = TempDir(t)
		deep := filepath.Join(dir, "a", "b")
		if err := os.MkdirAll(deep, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, d := range []string{dir, deep} {
			if err := os.WriteFile(filepath.Join(d, "file"), []byte("text"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	})
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

func TestTruncate(t *testing.T) {
	path := filepath.Join(TempDir(t), "file")
	if err := os.WriteFile(path, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{4, 7} {
		Truncate(t, path, size)
		if got, err := os.ReadFile(path); err != nil || string(got) != "0123456789"[:4]+"\x00\x00\x00"[:size-4] {
			t.Errorf("%q, %v", got, err)
		}
	}
}
