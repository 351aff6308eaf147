package mmapio_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// TestOverlayCopy: a mapping stays with the original when a store by somebody else
// makes overlayfs copy a file, and Refresh cannot change that. What is documented
// as the way out, to open the file again, is one, and errors name it.
func TestOverlayCopy(t *testing.T) {
	prove.Need(t, prove.Root, prove.Ext4, prove.Advice)
	prove.LeakCheck(t)
	lower := prove.DiskDir(t)
	before, after := pattern(2*pageSize, 1), pattern(4*pageSize, 2)
	check(t, os.WriteFile(filepath.Join(lower, "file"), before, 0o600))
	path := filepath.Join(mountOverlay(t, lower), "file")
	f := mustOpen(t, path, nil)
	defer mustClose(t, f)
	check(t, os.WriteFile(path, after, 0o600))

	got := make([]byte, len(before))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, before) {
		t.Fatalf("the mapping does not show the original (%v)", err)
	}
	if size, err := f.Refresh(); size != int64(len(after)) || err != nil {
		t.Fatalf("Refresh: %d, %v", size, err)
	}
	if err := f.LockAll(); err == nil || !strings.Contains(err.Error(), "open the file again") {
		t.Errorf("the lock of what the original lacks: %v", err)
	}

	again := mustOpen(t, path, &mmapio.Options{Lock: mmapio.LockNow})
	defer mustClose(t, again)
	got = make([]byte, len(after))
	if _, err := again.ReadAt(got, 0); err != nil || !bytes.Equal(got, after) {
		t.Fatalf("opened again it does not show the copy (%v)", err)
	}
}
