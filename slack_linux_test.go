package mmapio_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// TestGrowthKeepsAppend: what is appended where a growth begins is not taken for
// what was stored behind the end.
func TestGrowthKeepsAppend(t *testing.T) {
	prove.Need(t, prove.FileEnd)
	rounds := 20_000
	if testing.Short() {
		rounds = 2000
	}
	t.Run("disk", func(t *testing.T) { keepsAppend(t, tempDir(t), rounds) })
	t.Run("tmpfs", func(t *testing.T) { keepsAppend(t, prove.SmallTmpfs(t, 1<<20), rounds) })
}

func keepsAppend(t *testing.T, dir string, rounds int) {
	t.Helper()
	path, record := filepath.Join(dir, "file"), []byte("RRRRRRRR")
	check(t, os.WriteFile(path, pattern(100, 1), 0o600))
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	a, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	check(t, err)
	for i := range rounds {
		if i%2 == 1 { // something there is to be zeroed
			for at := range mmapio.Slack(f) {
				mmapio.Slack(f)[at] = 0xEE
			}
		}
		grown := make(chan error)
		go func() { grown <- f.Resize(3000) }()
		for spin := range i % 800 * 4 {
			spun += spin
		}
		_, err := a.Write(record)
		check(t, err)
		check(t, <-grown)
		if content := onDisk(t, path); !bytes.Contains(content, record) {
			t.Fatalf("round %d: a record is lost from %d bytes", i, len(content))
		}
		mustResize(t, f, 100)
	}
	check(t, a.Close())
	mustClose(t, f)
}

// spun is what keeps a loop from being left out.
var spun int
