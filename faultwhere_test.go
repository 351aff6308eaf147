package mmapio_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// A loop whose body closes the File lets go of the memory before Guard sees what
// ended it, and it may be unmapped by then. The error still says what was wrong.
func TestFaultInLoopThatCloses(t *testing.T) {
	needFaults(t)
	path, _ := patternFile(t, 4*pageSize)
	f := mustOpen(t, path, nil)
	err := mmapio.Guard(func() error {
		for c, err := range f.Chunks(0, f.Size(), pageSize) {
			if err != nil {
				return err
			}
			if c.Off == 2*pageSize {
				mustClose(t, f)
				c.Data[7] = 1 // into a ReadOnly File
			}
		}
		return nil
	})
	wantFault(t, err, "guard", 2*pageSize, 0, mmapio.ErrReadOnly)
}

// What a Region holds may be memory of before the File has moved. A fault on it
// inside of View is one on the File's memory all the same.
func TestFaultInHeldGeneration(t *testing.T) {
	needFaults(t)
	path, _ := patternFile(t, 3*pageSize)
	f := mustOpen(t, path, nil)
	r, err := f.Region(0, f.Size())
	check(t, err)
	defer r.Release()
	check(t, appendTo(path, make([]byte, 64*pageSize)))
	_, err = f.Refresh()
	check(t, err)
	err = f.View(0, 1, func([]byte) error { r.Bytes()[pageSize+5] = 1; return nil })
	wantFault(t, err, "view", pageSize, 0, mmapio.ErrReadOnly)
	err = f.View(0, 1, func([]byte) error { return mmapio.Guard(func() error { r.Bytes()[2*pageSize] = 1; return nil }) })
	wantFault(t, err, "guard", 2*pageSize, 0, mmapio.ErrReadOnly)
}

// Address space that is only reserved belongs to the File, but shows nothing of the
// file: the error is not about a page of it, nor puts the fault down to its end.
func TestFaultOutside(t *testing.T) {
	needFaults(t)
	if !canReserve(t) {
		prove.Unable(t, "no Reserve on %s", runtime.GOOS)
	}
	path, _ := patternFile(t, 3*pageSize)
	anonymous, err := mmapio.Anonymous(3*pageSize, nil)
	check(t, err)
	defer mustClose(t, anonymous)
	for _, c := range []struct {
		f        *mmapio.File
		at, want int64 // pages
	}{
		{mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Reserve: 64 * pageSize}), 40, 3}, // from the end of the file on all are bad
		{anonymous, -1, -1},
		{anonymous, 3, 3},
	} {
		err := c.f.View(0, c.f.Size(), func(b []byte) error {
			sum(unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(&b[0]), c.at*pageSize+123)), 1))
			return nil
		})
		var fe *mmapio.FaultError
		if !errors.As(err, &fe) || fe.Off != c.want*pageSize || !strings.Contains(err.Error(), "outside of the mapped bytes") {
			t.Errorf("%s: got %v, want a fault outside of the mapped bytes at %d", c.f.Name(), err, c.want*pageSize)
		}
	}
}
