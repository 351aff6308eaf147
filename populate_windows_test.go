package mmapio_test

import (
	"errors"
	"io"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// mappedIn counts the pages of [off, off+n) that the process has in its working
// set.
func mappedIn(t *testing.T, f *mmapio.File, off, n int64) (pages int64) {
	t.Helper()
	r, err := f.Region(off, n) // of Files that do not prefault
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	for b := r.Bytes(); len(b) > 0; b = b[min(pageSize, int64(len(b))):] {
		var info windows.PSAPI_WORKING_SET_EX_INFORMATION
		info.VirtualAddress = windows.Pointer(unsafe.Pointer(&b[0]))
		if err := windows.QueryWorkingSetEx(windows.CurrentProcess(), uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info))); err != nil {
			t.Fatal(err)
		}
		if info.VirtualAttributes&1 != 0 {
			pages++
		}
	}
	return pages
}

// TestPopulateTouches: there is no call that brings pages in, and without a
// descriptor nothing to read them by.
func TestPopulateTouches(t *testing.T) {
	const n = 700
	path, _ := patternFile(t, n*pageSize-5)
	for name, open := range map[string]func(o *mmapio.Options) (*mmapio.File, error){
		"Anonymous": func(o *mmapio.Options) (*mmapio.File, error) { return mmapio.Anonymous(n*pageSize-5, o) },
		"DropFD": func(o *mmapio.Options) (*mmapio.File, error) {
			o.DropFD = true
			return mmapio.OpenFile(path, o)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := opened(t)(open(&mmapio.Options{Prefault: -1}))
			if got := mappedIn(t, f, 0, f.Size()); got != 0 {
				t.Errorf("%d pages are there before", got)
			}
			was := contentOf(t, opened(t)(open(&mmapio.Options{})))
			check(t, f.Populate(t.Context(), 3*pageSize+1, 600*pageSize))
			if got := mappedIn(t, f, 3*pageSize, 601*pageSize); got != 601 {
				t.Errorf("%d pages of 601 are there", got)
			}
			same(t, name, contentOf(t, f), was)
		})
	}
	f := opened(t)(mmapio.Anonymous(n*pageSize, &mmapio.Options{Populate: true, Prefault: -1}))
	if got := mappedIn(t, f, 0, f.Size()); got != n {
		t.Errorf("Options.Populate: %d pages of %d are there", got, n)
	}
}

// A page that cannot be had is the error of the call that was to bring it in.
func TestPopulateTouchesCut(t *testing.T) {
	path, _ := patternFile(t, 64*pageSize)
	f := mustOpen(t, path, &mmapio.Options{DropFD: true})
	prove.Truncate(t, path, 20*pageSize+1)
	want := func(err error, off int64) {
		t.Helper()
		var fe *mmapio.FaultError
		if !errors.As(err, &fe) || fe.Off != off || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%v, want a fault at %d", err, off)
		}
	}
	want(f.Populate(t.Context(), 0, f.Size()), 21*pageSize)
	want(f.Populate(t.Context(), 30*pageSize, 1), 30*pageSize)
	check(t, f.Populate(t.Context(), 0, 21*pageSize))
	_, err := f.Region(10*pageSize, 20*pageSize)
	want(err, 21*pageSize)
	le := (*mmapio.LockError)(nil)
	if err := f.LockAll(); !errors.As(err, &le) || le.Cause != mmapio.CauseBeyondEOF {
		t.Errorf("LockAll: %v", err)
	}
}

// TestMapKeepsOffset: a file that was opened for nobody else cannot be opened anew,
// and to read by a duplicate of the handle moves the offset of both.
func TestMapKeepsOffset(t *testing.T) {
	const n = 64
	path, content := patternFile(t, n*pageSize)
	name, err := windows.UTF16PtrFromString(path)
	check(t, err)
	h, err := windows.CreateFile(name, windows.GENERIC_READ, 0, nil, windows.OPEN_EXISTING, 0, 0)
	check(t, err)
	file := os.NewFile(uintptr(h), path)
	defer file.Close()
	_, err = file.Seek(5, io.SeekStart)
	check(t, err)
	kept := func(what string) {
		t.Helper()
		if at, err := file.Seek(0, io.SeekCurrent); at != 5 || err != nil {
			t.Errorf("%s: the offset is %d, %v", what, at, err)
		}
	}

	f := opened(t)(mmapio.Map(file, &mmapio.Options{Populate: true}))
	kept("Options.Populate")
	if got := mappedIn(t, f, 0, f.Size()); got != n {
		t.Errorf("Options.Populate: %d pages of %d are there", got, n)
	}
	f = opened(t)(mmapio.Map(file, nil))
	same(t, "the file", contentOf(t, f), content)
	kept("View and ReadAt")
	check(t, f.LockAll())
	kept("LockAll")
	if prove.CanTruncate() {
		prove.Truncate(t, path, 20*pageSize)
		var fe *mmapio.FaultError
		if err := f.Populate(t.Context(), 0, f.Size()); !errors.As(err, &fe) || fe.Off != 20*pageSize || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Populate of a file that was cut: %v", err)
		}
		kept("Populate of a file that was cut")
	}
}
