package mmapio_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// heldPages counts the pages that are locked and there.
func heldPages(t *testing.T, f *mmapio.File) (n int) {
	t.Helper()
	b := memoryOf(t, f)
	present := prove.PresentPages(t, b)
	for i, locked := range prove.LockedPages(t, b) {
		if locked && present[i] {
			n++
		}
	}
	return n
}

// Pages that are locked on fault, and were touched, stay locked whatever the
// library does to their mapping, or beside them.
func TestProofLockOnFaultStays(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Scan)
	needLockOf(t, 4<<20)
	const size, pages = 2 << 20, 2 << 20 >> 12
	for name, c := range map[string]struct {
		do   func(f *mmapio.File, path string) error
		want int // pages, at least
	}{
		"nothing": {func(*mmapio.File, string) error { return nil }, pages},
		"growth":  {func(f *mmapio.File, _ string) error { return f.Resize(size + 1) }, pages},
		"refresh": {func(f *mmapio.File, path string) error {
			check(t, appendTo(path, []byte("more")))
			_, err := f.Refresh()
			return err
		}, pages},
		"shrink": {func(f *mmapio.File, _ string) error { return f.Resize(size - 5*pageSize - 1) }, pages - 5},
		"unlock": {func(f *mmapio.File, _ string) error { return f.Unlock(7*pageSize, pageSize) }, pages - 1},
		"advise": {func(f *mmapio.File, _ string) error {
			return f.Advise(7*pageSize, pageSize, mmapio.AdviceRandom)
		}, pages},
		"growth that fails": {func(f *mmapio.File, _ string) error {
			restore := mmapio.SetFailpoint(func(step string) error {
				if step == "length" {
					return errInjected
				}
				return nil
			})
			defer restore()
			check(t, appendTo(f.Name(), make([]byte, 9*pageSize)))
			if f.Resize(size+pageSize) == nil {
				t.Error("it succeeds")
			}
			return nil
		}, pages},
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := patternFile(t, size)
			f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Lock: mmapio.LockOnFault})
			contentOf(t, f)
			check(t, c.do(f, path))
			if n := heldPages(t, f); n < c.want {
				t.Errorf("%d pages are locked and there, want %d", n, c.want)
			}
			dropCache(t, path)
			if _, n := prove.Resident(t, path); n < c.want {
				t.Errorf("%d pages are kept in RAM, want %d", n, c.want)
			}
			mustClose(t, f)
			dropCache(t, path)
			if _, n := prove.Resident(t, path); n > 0 {
				t.Errorf("%d pages are kept in RAM after Close", n)
			}
		})
	}
}

// What was not touched is not brought in by a growth.
func TestProofLockOnFaultLeavesTheRest(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Scan)
	needLockOf(t, 16<<20)
	const size = 4 << 20
	path, content := patternFile(t, size)
	dropCache(t, path)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Lock: mmapio.LockOnFault, Prefault: -1})
	check(t, f.View(size/2, 1, func(b []byte) error {
		if want := content[size/2]; b[0] != want {
			t.Errorf("%d, want %d", b[0], want)
		}
		return nil
	}))
	dropCache(t, path)
	before := heldPages(t, f)
	mustResize(t, f, size+1)
	dropCache(t, path)
	if after := heldPages(t, f); before == 0 || after < before || after > before+1 {
		t.Errorf("%d pages were locked and there, now %d", before, after)
	}
	mustClose(t, f)
}

// A read locks what it reads also where LockContext asked for that, and not
// Options.Lock: it goes through the mapping, though the file would be read faster.
func TestProofLockContextOnFaultReads(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Scan)
	needLockOf(t, 4<<20)
	path, content := patternFile(t, 2<<20)
	dropCache(t, path)
	f := mustOpen(t, path, &mmapio.Options{Prefault: -1})
	check(t, f.LockContext(t.Context(), 0, f.Size(), &mmapio.LockOptions{OnFault: true}))
	b := make([]byte, pageSize)
	if _, err := f.ReadAt(b, 1<<20); err != nil {
		t.Fatal(err)
	}
	same(t, "ReadAt", b, content[1<<20:1<<20+pageSize])
	if at := 1 << 20 / pageSize; !prove.PresentPages(t, memoryOf(t, f))[at] || !prove.LockedPages(t, memoryOf(t, f))[at] {
		t.Error("the page that was read is not locked")
	}
}

// Once a Pin is released, what it brought in is as firmly locked as before, and
// not more: it need not be there, and the next Lock brings it in.
func TestProofLockOnFaultAfterPin(t *testing.T) {
	prove.Need(t, prove.Advice, prove.Verify, prove.Pagemap)
	needLockOf(t, 8*pageSize)
	f := mustOpen(t, fileOf(t, 4*pageSize), &mmapio.Options{Lock: mmapio.LockOnFault})
	release(t, pin(t, f, 0, f.Size()))
	truncated(t, f.Name(), pageSize)
	truncated(t, f.Name(), 4*pageSize)
	check(t, f.VerifyLocked(0, f.Size()))
	check(t, f.Lock(pageSize, 2*pageSize))
	prove.AssertHeld(t, memoryOf(t, f)[pageSize:3*pageSize])
}

// What is only read through ReadAt is locked, too, in a File that was empty when it
// was opened.
func TestProofLockOnFaultReadAtGrown(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.Scan, prove.Disk)
	needLockOf(t, 4<<20)
	const pages = 16
	path := filepath.Join(prove.DiskDir(t), "file")
	check(t, os.WriteFile(path, nil, 0o600))
	f := mustOpen(t, path, &mmapio.Options{Lock: mmapio.LockOnFault})
	check(t, appendTo(path, pattern(pages*pageSize, 1)))
	dropCache(t, path)
	_, err := f.Refresh()
	check(t, err)
	for p := range int64(pages) {
		check(t, readByte(f, p*pageSize))
	}
	if n := heldPages(t, f); n < pages {
		t.Errorf("of %d pages that were read %d are locked and there", pages, n)
	}
}
