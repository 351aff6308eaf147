package mmapio_test

import (
	"errors"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/limits"
	"github.com/mmapio/mmapio/internal/prove"
)

// What is larger than memory is refused before any of it is brought in: the kernel
// would have ended one program after another, this one among them.
func TestLockMoreThanMemory(t *testing.T) {
	if strconv.IntSize == 32 {
		t.Skip(runtime.GOARCH + ", 32 bits: no mapping is larger than memory")
	}
	m, err := limits.ReadMemory()
	check(t, err)
	t.Run("by far", func(t *testing.T) { lockMoreThanMemory(t, m.Total+m.Room()+1<<30) })
	t.Run("just so", func(t *testing.T) {
		prove.Need(t, prove.Cachestat)
		lockMoreThanMemory(t, m.Room()+2<<30)
	})
}

func lockMoreThanMemory(t *testing.T, size int64) {
	needLockOf(t, size)
	path := filepath.Join(prove.DiskDir(t), "f")
	f, err := mmapio.OpenFile(path, &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: size, Sparse: true})
	if errors.Is(err, syscall.ENOMEM) {
		prove.Unable(t, "no addresses for so much: %v", err) // an emulator has fewer
	}
	check(t, err)
	t.Cleanup(func() { check(t, f.Close()) })
	refused := func(what string, err error) {
		t.Helper()
		var le *mmapio.LockError
		if !errors.As(err, &le) || le.Cause != mmapio.CauseMemory || !errors.Is(err, syscall.ENOMEM) ||
			!strings.Contains(le.Error(), "MemAvailable ") || !strings.Contains(le.Error(), "lock less") {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("LockAll", f.LockAll())
	_, err = f.Pin(0, size)
	refused("Pin", err)
	if n := prove.VmLck(t, 0); f.LockedBytes() != 0 || n != 0 {
		t.Errorf("%d bytes are locked after that, %d by the kernel's word", f.LockedBytes(), n)
	}
	if r, err := f.Residency(0, size); err != nil || r.Resident > 1<<20 {
		t.Errorf("%+v, %v: something was brought in", r, err)
	}
	check(t, f.LockContext(t.Context(), 0, size, &mmapio.LockOptions{OnFault: true})) // takes no memory yet
	check(t, f.UnlockAll())

	grows := mustOpen(t, filepath.Join(prove.DiskDir(t), "g"), &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: pageSize, Sparse: true, Lock: mmapio.LockNow})
	refused("Resize", grows.Resize(size))
	if grows.Size() != pageSize {
		t.Errorf("%d bytes after a growth that was refused", grows.Size())
	}
	check(t, grows.VerifyLocked(0, pageSize))
}

// What is there already needs no room, but is none any more once it is locked.
func TestRoomInMemory(t *testing.T) {
	m := limits.Memory{Total: 1000, Available: 500, Files: 400, SwapFree: 100}
	for _, c := range []struct{ fresh, cached, lack int64 }{
		{600, 0, 0},
		{601, 0, 1},
		{0, 999, -200}, // of that, at most what counts as available is taken from it
		{200, 400, 0},
		{200, 900, 0},
		{201, 400, 1},
		{300, 300, 0},
		{0, 0, -600},
	} {
		if got := mmapio.Lack(c.fresh, c.cached, m); got != c.lack {
			t.Errorf("%d to bring in and %d in memory: %d lack, want %d", c.fresh, c.cached, got, c.lack)
		}
	}
}
