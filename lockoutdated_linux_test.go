package mmapio_test

import (
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// A long call in a mapping that a growth has replaced meanwhile finds what a shrink has
// cut off since to be out of range, and does not blame the file for it.
func TestCutInOlderMapping(t *testing.T) {
	prove.Need(t, prove.Advice, prove.FileEnd)
	const size, left = 4 * mib, mib
	needLockOf(t, 2*size)
	for _, c := range []struct {
		op   string
		call func(f *mmapio.File) error
	}{
		{"lock", func(f *mmapio.File) error { return f.Lock(0, size) }},
		{"pin", func(f *mmapio.File) error { _, err := f.Pin(0, size); return err }},
		{"populate", func(f *mmapio.File) error { return f.Populate(t.Context(), 0, size) }},
	} {
		path, _ := patternFile(t, size)
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
		moved := false
		restore := mmapio.SetFailpoint(func(step string) error {
			if step == "populate" && !moved {
				moved = true
				mustResize(t, f, size+pageSize)
				mustResize(t, f, left)
			}
			return nil
		})
		err := c.call(f)
		restore()
		wantRangeError(t, err, mmapio.RangeError{Op: c.op, Path: path, Len: size, Size: left})
		if n := f.LockedBytes(); n != 0 {
			t.Errorf("%s: %d bytes are locked", c.op, n)
		}
		mustClose(t, f)
	}
}
