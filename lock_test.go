package mmapio_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// kernelHolds asks the kernel, past the library, which pages that hold a byte
// of b are locked and present. It is set where there is a way to ask.
var kernelHolds = func(t testing.TB, b []byte, want []bool) { t.Helper() }

// holds fails the test unless just the pages that are # in a text like "#.##"
// are held: by the library's books, by its own question to the kernel, and by
// what the kernel says to others.
func holds(t testing.TB, f *mmapio.File, pages string) {
	t.Helper()
	want := make([]bool, len(pages))
	for i := range want {
		want[i] = pages[i] == '#'
	}
	holdsPages(t, f, want)
}

func holdsPages(t testing.TB, f *mmapio.File, want []bool) {
	t.Helper()
	b := memoryOf(t, f)
	var ranges []mmapio.Range
	var sum int64
	for i, held := range want {
		from, to := pageOf(b, i)
		if last := len(ranges) - 1; held && last >= 0 && ranges[last].Off+ranges[last].Len == from {
			ranges[last].Len += to - from
		} else if held {
			ranges = append(ranges, mmapio.Range{Off: from, Len: to - from})
		}
		if held {
			sum += to - from
		}
		switch err := f.VerifyLocked(from, to-from); {
		case errors.Is(err, errors.ErrUnsupported), prove.Missing(prove.Verify) != "":
		case held && err != nil:
			t.Errorf("page %d is to be held, VerifyLocked: %v", i, err)
		case !held && err == nil:
			t.Errorf("page %d is not to be held, VerifyLocked finds it is", i)
		}
	}
	if got := f.LockedRanges(); !slices.Equal(got, ranges) {
		t.Errorf("LockedRanges: %v, want %v", got, ranges)
	}
	if got := f.LockedBytes(); got != sum {
		t.Errorf("LockedBytes: %d, want %d", got, sum)
	}
	kernelHolds(t, b, want)
}

// memoryOf is what the File maps: good as long as it is open and keeps its size.
func memoryOf(t testing.TB, f *mmapio.File) []byte {
	t.Helper()
	return mmapio.Memory(f)
}

// pageOf is the part of b that is on its nth page; the first and the last page
// may be cut by the ends of b.
func pageOf(b []byte, n int) (from, to int64) {
	delta := int64(uintptr(unsafe.Pointer(unsafe.SliceData(b))) % uintptr(pageSize))
	return max(int64(n)*pageSize-delta, 0), min(int64(n+1)*pageSize-delta, int64(len(b)))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needLockOf skips the test where n bytes cannot be locked for a reason that is
// not the library's: no such call here, or the limit of an ordinary user. Root
// has none, so for root there is no excuse.
func needLockOf(t testing.TB, n int64) {
	t.Helper()
	f := opened(t)(mmapio.Anonymous(1, nil))
	defer f.Close()
	if err := f.LockAll(); errors.Is(err, errors.ErrUnsupported) {
		prove.Unable(t, "%s locks no pages", runtime.GOOS)
	}
	lim, err := mmapio.ReadLockLimits()
	check(t, err)
	if !lim.Unlimited && lim.InUse >= 0 && lim.Soft >= 0 && lim.Soft-lim.InUse < n && os.Geteuid() != 0 {
		prove.Unable(t, "RLIMIT_MEMLOCK is %d, the test locks %d bytes", lim.Soft, n)
	}
}

// fileOf makes a file of n bytes.
func fileOf(t testing.TB, n int64) (path string) {
	t.Helper()
	path, _ = patternFile(t, n)
	return path
}

// everyMode runs a test on n bytes in all three modes and on memory without a file.
func everyMode(t *testing.T, n int64, test func(t *testing.T, f *mmapio.File)) {
	for _, mode := range allModes {
		t.Run(mode.String(), func(t *testing.T) {
			test(t, mustOpen(t, fileOf(t, n), &mmapio.Options{Mode: mode}))
		})
	}
	t.Run("Anonymous", func(t *testing.T) {
		test(t, opened(t)(mmapio.Anonymous(n, nil)))
	})
}

// The seed's first test: ranges, the empty range, what is out of bounds, all.
func TestProofLockAndUnlock(t *testing.T) {
	needLockOf(t, 2*pageSize)
	everyMode(t, 2*pageSize, func(t *testing.T, f *mmapio.File) {
		holds(t, f, "..")
		check(t, f.Lock(0, pageSize))
		holds(t, f, "#.")
		check(t, f.Unlock(0, pageSize))
		holds(t, f, "..")

		check(t, f.Lock(pageSize, 1))
		for _, off := range []int64{0, 1, pageSize, 2 * pageSize, 2*pageSize + 1, math.MaxInt64, -1, math.MinInt64} {
			check(t, f.Lock(off, 0))
			check(t, f.Unlock(off, 0))
		}
		holds(t, f, ".#")
		outOfBounds(t, f)
		holds(t, f, ".#")

		check(t, f.LockAll())
		holds(t, f, "##")
		check(t, f.UnlockAll())
		holds(t, f, "..")
	})
}

// outOfBounds tries every call with what is no range of two pages.
func outOfBounds(t *testing.T, f *mmapio.File) {
	t.Helper()
	size := 2 * pageSize
	for _, r := range []mmapio.Range{
		{size, 1}, {size - 1, 2}, {0, size + 1}, {size + 1, 1}, {-1, 1}, {-1, 2}, {0, -1}, {pageSize, -pageSize},
		{math.MaxInt64, 1}, {1, math.MaxInt64}, {math.MaxInt64, math.MaxInt64}, {0, math.MinInt64},
		{math.MinInt64, 1}, {math.MinInt64, math.MinInt64}, {size, math.MinInt64},
	} {
		for op, call := range map[string]func(off, n int64) error{
			"lock": f.Lock, "unlock": f.Unlock, "verifylocked": f.VerifyLocked,
			"pin": func(off, n int64) error { _, err := f.Pin(off, n); return err },
			"lockcontext": func(off, n int64) error {
				return f.LockContext(context.Background(), off, n, &mmapio.LockOptions{})
			},
		} {
			want := mmapio.RangeError{Op: op, Path: f.Name(), Off: r.Off, Len: r.Len, Size: size}
			var got *mmapio.RangeError
			if err := call(r.Off, r.Len); !errors.As(err, &got) || *got != want || !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%s(%d, %d) of %d bytes: %v", op, r.Off, r.Len, size, err)
			}
		}
	}
}

// The seed's second test: part of a page, in each mode.
func TestProofLockModes(t *testing.T) {
	needLockOf(t, pageSize)
	everyMode(t, 4096, func(t *testing.T, f *mmapio.File) {
		check(t, f.Lock(0, 1024))
		holds(t, f, "#")
	})
}

// The seed's third test: several regions, unlocked in another order.
func TestProofLockSeveralRegions(t *testing.T) {
	needLockOf(t, 3*pageSize)
	everyMode(t, 4*pageSize, func(t *testing.T, f *mmapio.File) {
		for i, want := range []string{"#...", "##..", "###."} {
			check(t, f.Lock(int64(i)*pageSize, pageSize))
			holds(t, f, want)
		}
		for _, step := range []struct {
			page int64
			want string
		}{{1, "#.#."}, {0, "..#."}, {2, "...."}} {
			check(t, f.Unlock(step.page*pageSize, pageSize))
			holds(t, f, step.want)
		}
	})
}

// A lock or an unlock, and what must be held then.
type lockStep struct {
	do     string
	off, n int64
	want   string
}

func (s lockStep) run(t *testing.T, f *mmapio.File) {
	t.Helper()
	call := map[string]func(off, n int64) error{"lock": f.Lock, "unlock": f.Unlock}[s.do]
	if err := call(s.off, s.n); err != nil {
		t.Fatalf("%s(%d, %d): %v", s.do, s.off, s.n, err)
	}
	holds(t, f, s.want)
	if t.Failed() {
		t.Fatalf("after %s(%d, %d)", s.do, s.off, s.n)
	}
}

// Locks are kept to the byte, though the kernel keeps pages.
func TestProofLockToTheByte(t *testing.T) {
	needLockOf(t, 6*pageSize)
	everyMode(t, 5*pageSize+10, func(t *testing.T, f *mmapio.File) {
		for _, step := range []lockStep{
			{"lock", 0, 100, "#....."}, // neighbours on one page
			{"lock", 200, 100, "#....."},
			{"unlock", 0, 100, "#....."},
			{"unlock", 200, 99, "#....."},
			{"unlock", 0, 200, "#....."},
			{"unlock", 299, 1, "......"},
			{"lock", pageSize, pageSize, ".#...."}, // not counted
			{"lock", pageSize, pageSize, ".#...."},
			{"unlock", pageSize, pageSize, "......"},
			{"unlock", pageSize, pageSize, "......"},
			{"lock", pageSize / 2, 2 * pageSize, "###..."}, // overlapping
			{"lock", 2 * pageSize, 2 * pageSize, "####.."},
			{"unlock", pageSize, 2 * pageSize, "#..#.."},
			{"lock", pageSize - 1, 2*pageSize + 2, "####.."},
			{"unlock", pageSize - 1, 2*pageSize + 2, "#..#.."},
			{"unlock", 0, 4 * pageSize, "......"},
			{"lock", 2*pageSize - 1, 2, ".##..."}, // over an edge
			{"unlock", 2 * pageSize, 1, ".#...."},
			{"unlock", 2*pageSize - 1, 1, "......"},
			{"lock", 5*pageSize + 9, 1, ".....#"}, // the last page, which is not whole
			{"unlock", 5 * pageSize, 9, ".....#"},
			{"unlock", 5 * pageSize, 10, "......"},
		} {
			step.run(t, f)
		}
	})
}

// Where the mapping starts inside a page, the pages are the file's.
func TestProofLockOffset(t *testing.T) {
	needLockOf(t, 4*pageSize)
	path := fileOf(t, 7*pageSize)
	for _, offset := range []int64{1, 100, pageSize - 1, pageSize + 100, 2*pageSize + 1, 3*pageSize - 1} {
		edge := pageSize - offset%pageSize // where the second page starts
		for _, mode := range allModes {
			t.Run(fmt.Sprint(offset, mode), func(t *testing.T) {
				f := mustOpen(t, path, &mmapio.Options{Mode: mode, Offset: offset, Length: 3 * pageSize})
				for _, step := range []lockStep{
					{"lock", 0, 1, "#..."},
					{"lock", edge, 1, "##.."},
					{"lock", 3*pageSize - 1, 1, "##.#"},
					{"unlock", 0, edge, ".#.#"},
					{"lock", edge - 1, 2*pageSize + 2, "####"},
					{"unlock", 0, edge + pageSize, "..##"},
					{"unlock", edge + 2*pageSize, 3*pageSize - edge - 2*pageSize, "..#."},
				} {
					step.run(t, f)
				}
				check(t, f.LockAll())
				holds(t, f, "####")
			})
		}
	}
}

// VerifyLocked names the first page that is not held.
func TestProofVerifyLocked(t *testing.T) {
	needLockOf(t, 5*pageSize)
	if runtime.GOOS == "linux" {
		prove.Need(t, prove.Verify)
	}
	everyMode(t, 4*pageSize+9, func(t *testing.T, f *mmapio.File) {
		check(t, f.LockAll())
		prove.WineLacks(t, "a QueryWorkingSetEx that knows of locks")
		if err := f.VerifyLocked(0, f.Size()); errors.Is(err, errors.ErrUnsupported) && runtime.GOOS != "windows" {
			prove.Unable(t, "%s does not tell what is locked", runtime.GOOS)
		} else if err != nil {
			t.Fatal(err)
		}
		check(t, f.Unlock(2*pageSize, 2*pageSize))
		for _, r := range []mmapio.Range{{0, 2 * pageSize}, {4*pageSize + 1, 1}, {0, 0}, {4*pageSize + 9, 0}} {
			check(t, f.VerifyLocked(r.Off, r.Len))
		}
		for _, r := range []mmapio.Range{{0, 4*pageSize + 9}, {2*pageSize - 1, 2}, {2*pageSize + 7, 1}, {2 * pageSize, 2*pageSize + 1}} {
			wantNotHeld(t, f, f.VerifyLocked(r.Off, r.Len), 2)
		}
		check(t, f.UnlockAll())
		wantNotHeld(t, f, f.VerifyLocked(1, 1), 0)
		wantNotHeld(t, f, f.VerifyLocked(4*pageSize+8, 1), 4)
	})
}

// wantNotHeld wants the error of VerifyLocked that names a page.
func wantNotHeld(t testing.TB, f *mmapio.File, err error, page int) *mmapio.LockError {
	t.Helper()
	off, end := pageOf(memoryOf(t, f), page)
	var e *mmapio.LockError
	if !errors.As(err, &e) {
		t.Fatalf("VerifyLocked: %v, want a LockError for page %d", err, page)
	}
	text := fmt.Sprintf("verifylocked %s [%d, %d): ", f.Name(), off, end)
	if e.Op != "verifylocked" || e.Path != f.Name() || e.Off != off || e.Len != end-off || !strings.HasPrefix(e.Error(), text) {
		t.Errorf("%+v, want one that begins with %q", e, text)
	}
	return e
}

// After Close every call says so, whatever its arguments, and nothing is held.
func TestLockAfterClose(t *testing.T) {
	needLockOf(t, 2*pageSize)
	everyMode(t, 2*pageSize, func(t *testing.T, f *mmapio.File) {
		check(t, f.LockAll())
		check(t, f.Close())
		for name, err := range map[string]error{
			"Lock": f.Lock(0, 1), "Lock nothing": f.Lock(0, 0), "Lock out of bounds": f.Lock(-1, 1),
			"Unlock": f.Unlock(0, 1), "LockAll": f.LockAll(), "UnlockAll": f.UnlockAll(),
			"VerifyLocked": f.VerifyLocked(0, 1),
		} {
			var pe *fs.PathError
			if !errors.Is(err, fs.ErrClosed) || !errors.As(err, &pe) || pe.Path != f.Name() {
				t.Errorf("%s: %v", name, err)
			}
		}
		if r, n := f.LockedRanges(), f.LockedBytes(); len(r) != 0 || n != 0 {
			t.Errorf("LockedRanges %v, LockedBytes %d", r, n)
		}
	})
}

// There is nothing to lock in a file of zero length, and that is no error.
func TestLockEmptyFile(t *testing.T) {
	f := mustOpen(t, fileOf(t, 0), nil)
	for _, call := range []func() error{f.LockAll, f.UnlockAll, func() error { return f.VerifyLocked(0, 0) }} {
		check(t, call())
	}
	if err := f.Lock(0, 1); !errors.As(err, new(*mmapio.RangeError)) {
		t.Error(err)
	}
	holds(t, f, "")
}
