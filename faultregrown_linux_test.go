package mmapio_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// TestFaultRegrown: who stores to a file while it is written anew is not told that
// a disk with room is full, because the file has a hole there by now.
func TestFaultRegrown(t *testing.T) {
	prove.Need(t, prove.BusAddress)
	prove.Need(t, prove.Root, prove.Ext4)
	path := filepath.Join(prove.LoopFS(t, "ext4", 64<<20).Dir, "file")
	check(t, os.WriteFile(path, pattern(4*pageSize, 1), 0o600))
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	err := f.Update(0, f.Size(), func(b []byte) error {
		// Before the reason is looked for.
		defer func() { check(t, os.Truncate(path, f.Size())) }()
		check(t, os.Truncate(path, 0))
		b[2*pageSize] = 1
		return nil
	})
	var fe *mmapio.FaultError
	if !errors.As(err, &fe) || errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want a fault that is not for want of space", err)
	}
}
