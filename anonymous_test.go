package mmapio_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/fault"
	"github.com/mmapio/mmapio/internal/prove"
)

// peek gives a test the File's memory to ask the kernel about. It keeps the
// slice no longer than the File is open.
func peek(t testing.TB, f *mmapio.File) (mem []byte) {
	t.Helper()
	if err := f.View(0, f.Size(), func(b []byte) error { mem = b; return nil }); err != nil {
		t.Fatal(err)
	}
	return mem
}

// TestAnonymous is what Anonymous says of itself, and that a page that cannot
// be touched lies on both sides of its memory.
func TestAnonymous(t *testing.T) {
	needFaults(t)
	prove.LeakCheck(t)
	for _, size := range []int64{1, pageSize - 1, pageSize, 3*pageSize + 1} {
		f := opened(t)(mmapio.Anonymous(size, &mmapio.Options{Mode: mmapio.ReadWrite}))
		if f.Name() != "anonymous" || f.Mode() != mmapio.ReadWrite || f.Size() != size {
			t.Errorf("Name %q, Mode %v, Size %d", f.Name(), f.Mode(), f.Size())
		}
		same(t, "fresh memory", contentOf(t, f), make([]byte, size))
		store(t, f, size-1, "x")
		if err := f.Sync(); err != nil {
			t.Errorf("Sync: %v", err)
		}
		if _, err := f.Stat(); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Stat: %v", err)
		}
		if _, err := f.SyscallConn(); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("SyscallConn: %v", err)
		}
		mem := peek(t, f)
		end := (size + pageSize - 1) / pageSize * pageSize
		for side, at := range map[string]int64{"before": -1, "behind": end} {
			// Go may not load it, not even to fail: see who owns it, and try.
			beyond := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(&mem[0]), at)), 1)
			err := mmapio.Guard(func() error { beyond[0]++; return nil })
			if fault := (*mmapio.FaultError)(nil); !errors.As(err, &fault) || fault.Path != "anonymous" {
				t.Errorf("a store %s the memory: %v", side, err)
			}
			if prove.Missing(prove.Pagemap) == "" {
				for _, v := range prove.Mappings(t, beyond) {
					if !strings.HasPrefix(v.Perms, "---") {
						t.Errorf("the page %s the memory is %s", side, v.Perms)
					}
				}
			}
		}
		mustClose(t, f)
	}
}

// What comes to lie where the memory of a closed File lay is not taken for it.
func TestAnonymousLeavesNoArea(t *testing.T) {
	f := opened(t)(mmapio.Anonymous(pageSize, nil))
	r := mustRegion(t, f, 0, 1)
	at := fault.Start(r.Bytes())
	mustClose(t, f)
	if fault.Find(at) == nil {
		t.Error("a fault on memory that is held is not known to be the File's")
	}
	r.Release()
	if fault.Find(at) != nil {
		t.Error("a fault where the memory was is still the File's")
	}
}

// A growth leaves a page on both sides that cannot be touched, also one that takes up
// all that was reserved.
func TestAnonymousGrowsBetweenGuards(t *testing.T) {
	needMaps(t)
	if !reserves {
		t.Skip(runtime.GOOS + ": no address space is reserved there")
	}
	for _, o := range []mmapio.Options{{}, {Reserve: 4 * pageSize}, {Reserve: 4 * pageSize, HugePages: true}} {
		f := opened(t)(mmapio.Anonymous(pageSize, &o))
		for n := range int64(12) {
			mustResize(t, f, n*pageSize+1)
			lo, hi := mmapio.SpaceOf(f)
			mem := mmapio.Memory(f)
			at := uintptr(unsafe.Pointer(&mem[0]))
			if end := at + uintptr((n+1)*pageSize); at-lo < uintptr(pageSize) || end > hi-uintptr(pageSize) {
				t.Errorf("reserve %d: of [%#x, %#x) pages [%#x, %#x) are used", o.Reserve, lo, hi, at, end)
			}
		}
		mustClose(t, f)
	}
}
