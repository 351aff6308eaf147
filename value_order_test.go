package mmapio_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/mmapio/mmapio"
)

// TestByteOrder: values are the machine's, whatever the file was written on.
// Two machines of unlike order run it in CI.
func TestByteOrder(t *testing.T) {
	path := filepath.Join(tempDir(t), "file")
	b := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f := mustOpen(t, path, nil)
	got, err := mmapio.LoadAt[uint64](f, 0)
	if want := binary.NativeEndian.Uint64(b); err != nil || got != want {
		t.Errorf("LoadAt: %#x, %v, want %#x", got, err, want)
	}
	if first := binary.BigEndian.Uint64(b); got != first && got != binary.LittleEndian.Uint64(b) {
		t.Errorf("LoadAt: %#x is in no order", got)
	}
	v, err := mmapio.ValueAt[uint16](f, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Release()
	if want := binary.NativeEndian.Uint16(b[2:]); *v.Ptr() != want {
		t.Errorf("ValueAt: %#x, want %#x", *v.Ptr(), want)
	}
}
