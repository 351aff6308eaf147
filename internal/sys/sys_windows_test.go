package sys

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/windows"

	"github.com/mmapio/mmapio/internal/prove"
)

func TestUnlockedAndAbsent(t *testing.T) {
	p := PageSize()
	s := owned(t)(MapAnon(4 * p))
	prove.WineLacks(t, "a QueryWorkingSetEx that knows of locks")
	if err := s.Lock(p, 2*p); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ at, n, want int }{{0, 4 * p, 0}, {p, 2 * p, -1}, {p, 3 * p, 3 * p}} {
		if got, err := s.Unlocked(tt.at, tt.n); got != tt.want || err != nil {
			t.Errorf("Unlocked(%d, %d) = %d, %v, want %d", tt.at, tt.n, got, err, tt.want)
		}
		if got, err := s.Absent(tt.at, tt.n); got != tt.want || err != nil {
			t.Errorf("Absent(%d, %d) = %d, %v, want %d", tt.at, tt.n, got, err, tt.want)
		}
	}
}

func TestWorkingSetQuery(t *testing.T) {
	p := PageSize()
	s := owned(t)(MapAnon(3000 * p))
	for at := 0; at < s.Size(); at += p {
		if at != 2500*p {
			s.Bytes(at, 1)[0] = 1
		}
	}
	got, err := s.firstWithout(0, s.Size(), pageValid)
	if err != nil || got != 2500*p {
		t.Errorf("first page not valid: %d, %v, want %d", got, err, 2500*p)
	}
	if err := s.Lock(0, p); err != nil {
		t.Fatal(err)
	}
	got, err = s.firstWithout(0, p, pageValid|pageLocked)
	t.Logf("a locked page: first not locked is %d, %v; not used: %v", got, err, workingSetFails())
}

func TestAllocateReserves(t *testing.T) {
	prove.WineLacks(t, "FileAllocationInfo")
	f := newFile(t, 0)
	if _, err := Allocate(f, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	err := control(f, func(h windows.Handle) error {
		info, err := standardInfo(h)
		if info.allocated < 1<<20 || info.endOfFile != 1<<20 {
			t.Errorf("allocated %d, end of file %d, want both %d", info.allocated, info.endOfFile, 1<<20)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestReadLocked: that bytes are locked says nothing about the file.
func TestReadLocked(t *testing.T) {
	old := readFile
	t.Cleanup(func() { readFile = old })
	readFile = func(windows.Handle, []byte, *uint32, *windows.Overlapped) error { return windows.ERROR_LOCK_VIOLATION }
	f, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := ReadAt(f, make([]byte, 1), 0); n != 0 || !errors.Is(err, ErrUnsupported) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
