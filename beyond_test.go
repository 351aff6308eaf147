package mmapio_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// TestBeyond4GiB maps a file with data where numbers of 32 bits end, and,
// where the address space ends there too, wants to be told so.
func TestBeyond4GiB(t *testing.T) {
	needMaps(t)
	prove.LeakCheck(t)
	// Not much larger: where the address space ends there as well, it has no more room in
	// one piece.
	const size, at = 1<<32 + 256<<20 + 123, 1<<32 + 77
	path := filepath.Join(tempDir(t), "sparse")
	o := &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: size, Sparse: true}
	if strconv.IntSize == 32 {
		_, err := mmapio.OpenFile(path, o)
		wantOptionError(t, err, "open", path, "Length", errors.ErrUnsupported)
		mustNotExist(t, path)
		if _, err := mmapio.Anonymous(size, nil); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Anonymous(%d): %v", int64(size), err)
		}
		o.Length = 1
	}
	mustClose(t, mustOpen(t, path, o))
	if n := sizeOnDisk(t, path); n != size {
		t.Fatalf("the file has %d bytes, want %d", n, int64(size))
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// What is at the same place below 4 GiB is what an offset cut to 32 bits finds.
	for off, s := range map[int64]string{at: "beyond", at - 1<<32: "below!", size - 3: "end"} {
		if _, err := file.WriteAt([]byte(s), off); err != nil {
			t.Fatal(err)
		}
	}

	needFarMappings(t, file, at, "beyond")
	if strconv.IntSize == 32 {
		before := sizeOnDisk(t, path)
		_, err := mmapio.OpenFile(path, &mmapio.Options{Mode: mmapio.ReadWrite, MinSize: size + 1})
		wantOptionError(t, err, "open", path, "Length", errors.ErrUnsupported)
		_, err = mmapio.Open(path)
		wantOptionError(t, err, "open", path, "Length", errors.ErrUnsupported)
		if n := sizeOnDisk(t, path); n != before {
			t.Errorf("a refused open made the file %d bytes long", n)
		}
	}
	for _, mode := range allModes {
		for _, start := range []int64{0, at - 5, at, 1 << 32, size - 200} {
			if strconv.IntSize == 32 && start == 0 {
				continue
			}
			f := mustOpen(t, path, &mmapio.Options{Mode: mode, Offset: start})
			if f.Size() != size-start {
				t.Fatalf("%v from %d: %d bytes", mode, start, f.Size())
			}
			end := make([]byte, 10)
			if n, err := f.ReadAt(end, f.Size()-3); n != 3 || err != io.EOF || string(end[:3]) != "end" { //nolint:errorlint // io.ReaderAt
				t.Errorf("%v from %d: the end is %q, %v", mode, start, end[:n], err)
			}
			if start <= at {
				if err := f.View(at-start, 6, func(b []byte) error {
					if string(b) != "beyond" {
						t.Errorf("%v from %d: %q", mode, start, b)
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
			}
			if mode != mmapio.ReadOnly {
				store(t, f, f.Size()-3, "END")
				want := map[mmapio.Mode]string{mmapio.ReadWrite: "END", mmapio.CopyOnWrite: "end"}[mode]
				if _, err := file.ReadAt(end[:3], size-3); err != nil || string(end[:3]) != want {
					t.Errorf("%v from %d: the file has %q after a store, %v", mode, start, end[:3], err)
				}
				if _, err := file.WriteAt([]byte("end"), size-3); err != nil {
					t.Fatal(err)
				}
			}
			mustClose(t, f)
		}
	}
}
