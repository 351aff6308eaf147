package mmapio_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

func TestPopulateBadInput(t *testing.T) {
	path := fileOf(t, 3*pageSize)
	f := mustOpen(t, path, nil)
	ctx := t.Context()
	for _, r := range []mmapio.Range{{Off: -1, Len: 1}, {Off: 0, Len: -1}, {Off: 1, Len: 3 * pageSize}, {Off: 3*pageSize + 1, Len: 0}, {Off: 1, Len: 1<<63 - 1}} {
		wantRangeError(t, f.Populate(ctx, r.Off, r.Len), mmapio.RangeError{Op: "populate", Path: path, Off: r.Off, Len: r.Len, Size: 3 * pageSize})
	}
	check(t, f.Populate(ctx, 3*pageSize, 0))
	check(t, f.Populate(ctx, 5, 2*pageSize))
	done, cancel := context.WithCancelCause(ctx)
	why := errors.New("why")
	cancel(why)
	wantPathError(t, f.Populate(done, 0, 1), "populate", path, why)
	check(t, f.Close())
	wantPathError(t, f.Populate(ctx, 0, 0), "populate", path, fs.ErrClosed)
}

// A page that the file no longer has is a FaultError, as it is of Options.Populate.
func TestPopulateBeyondEOF(t *testing.T) {
	needMaps(t)
	if !locksAll {
		prove.Need(t, prove.Advice)
	}
	path := fileOf(t, 8*pageSize)
	f := mustOpen(t, path, nil)
	if err := os.Truncate(path, 3*pageSize+1); err != nil {
		prove.Unable(t, "%s: %v", runtime.GOOS, err) // Windows
	}
	var fe *mmapio.FaultError
	if err := f.Populate(t.Context(), 0, f.Size()); !errors.As(err, &fe) || fe.Off != 4*pageSize || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
	check(t, f.Populate(t.Context(), 0, 4*pageSize))
}

// Everything at a time, on one File.
func TestPopulateConcurrently(t *testing.T) {
	needMaps(t)
	const n = 8 << 20
	t.Cleanup(mmapio.SideBySide(2))
	f := opened(t)(mmapio.Create(filepath.Join(tempDir(t), "f"), n))
	locks := true
	if err := f.Lock(0, 1); err != nil {
		locks = false
	}
	var wg sync.WaitGroup
	for i := range int64(6) {
		wg.Go(func() {
			for j := range int64(20) {
				off := (i*3 + j) % 7 * (1 << 20)
				var err error
				switch k := (i + j) % 4; {
				case k == 0 && locks:
					err = f.LockContext(t.Context(), off, n/4-1<<20, nil)
				case k == 1:
					err = f.Unlock(off, 1<<20)
				case k == 2 && j%10 == 0:
					err = f.Resize(n + i*4096)
				default:
					err = f.Populate(t.Context(), off, 1<<20)
				}
				le := (*mmapio.LockError)(nil)
				if err != nil && !errors.As(err, &le) && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, mmapio.ErrBusy) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if locks {
		check(t, f.UnlockAll())
		if got := f.LockedBytes(); got != 0 {
			t.Errorf("%d bytes are locked", got)
		}
	}
}
