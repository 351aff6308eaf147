package mmapio_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

var secretOptions = mmapio.Options{Lock: mmapio.LockNow, NoDump: true, NoFork: true}

// newSecret makes a secret inside of the memory that it is to stay in.
func newSecret(t testing.TB, size int64, o mmapio.Options) *mmapio.File {
	t.Helper()
	f := opened(t)(mmapio.Anonymous(size, &o))
	check(t, f.Update(0, size, func(b []byte) error { _, err := rand.Read(b); return err }))
	return f
}

var secretSizes = []int64{1, 13, 32, 100, 4095, pageSize - 1, pageSize, pageSize + 8, 3*pageSize + 5}

// The byte behind the last one is a fault, and so is the page before the first.
func TestProofSecretGuards(t *testing.T) {
	needFaults(t)
	needLockOf(t, 8*pageSize)
	prove.LeakCheck(t)
	for _, size := range secretSizes {
		f := newSecret(t, size, secretOptions)
		b := memoryOf(t, f)
		beyond := func(at int64) (byte, error) {
			var v byte
			p := (*byte)(unsafe.Add(unsafe.Pointer(&b[0]), at))
			err := mmapio.Guard(func() error { v = *p; return nil })
			return v, err
		}
		if v, err := beyond(size - 1); err != nil || v != b[size-1] {
			t.Errorf("%d bytes: the last one: %v", size, err)
		}
		var fe *mmapio.FaultError
		if _, err := beyond(size); !errors.As(err, &fe) || fe.Off != size || fe.FileOff != size || fe.Path != "anonymous" {
			t.Errorf("%d bytes: the one behind: %v", size, err)
		}
		start := int64(uintptr(unsafe.Pointer(&b[0])) % uintptr(pageSize))
		if _, err := beyond(-start - 1); !errors.As(err, &fe) {
			t.Errorf("%d bytes: the page before: %v", size, err)
		}
		if v := prove.Mapping(t, b); !v.IsLocked() || !v.Has("dd") || !v.Has("dc") {
			t.Errorf("%d bytes: %v", size, v)
		}
		holdsPages(t, f, slices.Repeat([]bool{true}, int((start+size+pageSize-1)/pageSize)))
		mustClose(t, f)
	}
}

// align8 is the alignment of a uint64: 4 on some processors of 32 bits.
const align8 = int64(unsafe.Alignof(uint64(0)))

// Values must suit where the memory really lies.
func TestSecretAlignment(t *testing.T) {
	needLockOf(t, pageSize)
	for _, size := range []int64{8, 13, 16, 100, 4096} {
		f := newSecret(t, size, secretOptions)
		for off := int64(0); off+8 <= size; off++ {
			_, err := mmapio.LoadAt[uint64](f, off)
			if (size-off)%align8 == 0 != (err == nil) || err != nil && !errors.As(err, new(*mmapio.AlignError)) {
				t.Errorf("LoadAt[uint64] at %d of %d: %v", off, size, err)
			}
			if v, err := mmapio.ValueAt[uint64](f, off); err == nil {
				if a := uintptr(unsafe.Pointer(v.Ptr())); int64(a)%align8 != 0 {
					t.Errorf("ValueAt[uint64] at %d of %d is at %#x", off, size, a)
				}
				v.Release()
			}
		}
	}
}

// The error says where a value could lie, and a Resize changes nothing about that.
func TestSecretAlignmentIsExplained(t *testing.T) {
	needLockOf(t, pageSize)
	f := newSecret(t, 13, secretOptions)
	for range 2 {
		_, err := mmapio.LoadAt[uint64](f, 0)
		want := fmt.Sprintf("loadat anonymous: offset 0 is not at a multiple of %d bytes, since memory for a secret ends where a page does; "+
			"the first that is: %d (0 if the size is a multiple of 8)", align8, 13%align8)
		if !errors.As(err, new(*mmapio.AlignError)) || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		_, err = mmapio.LoadAt[uint64](f, 13%align8)
		check(t, err)
		mustResize(t, f, 16)
	}
}

// overrun reads a byte, the last or the one behind it, with no guard.
var overrun = prove.Register("overrun", func(args []string) int {
	t := prove.T()
	size, err := strconv.ParseInt(args[0], 10, 64)
	check(t, err)
	past, err := strconv.ParseInt(args[1], 10, 64)
	check(t, err)
	f := newSecret(t, size, secretOptions)
	p := (*byte)(unsafe.Add(unsafe.Pointer(&memoryOf(t, f)[0]), size-1+past))
	v := *p
	fmt.Println("read", v, "true")
	return 0
})

// Without Guard the byte behind is the end of the program.
func TestSecretOverrunCrashes(t *testing.T) {
	prove.Need(t, prove.Linux)
	needLockOf(t, 8*pageSize)
	for _, size := range []int64{32, 100, pageSize, pageSize + 1} {
		if r := overrun.Run(t, prove.Args(fmt.Sprint(size), "0")); r.Code != 0 || !strings.Contains(r.Output, "true") {
			t.Errorf("the last of %d bytes: %v", size, r)
		}
		if r := overrun.Run(t, prove.Args(fmt.Sprint(size), "1")); r.Code == 0 || !strings.Contains(r.Output, "unexpected fault address") {
			t.Errorf("the byte behind %d: %v", size, r)
		}
	}
}

// A secret is zeroed while it is still locked, and before its memory is given
// back, on every way on which that happens.
func TestProofSecretZeroed(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	needLockOf(t, 64*pageSize)
	const size = 5000
	last := int64(size) - 1
	ways := []struct {
		name string
		do   func(t *testing.T, f *mmapio.File, wiped func() int64)
		want int64 // bytes, in whole pages
	}{
		{"close", func(t *testing.T, f *mmapio.File, _ func() int64) { mustClose(t, f) }, 2 * pageSize},
		{"close while held", func(t *testing.T, f *mmapio.File, wiped func() int64) {
			r := mustRegion(t, f, 0, size)
			was := bytes.Clone(r.Bytes())
			mustClose(t, f)
			if wiped() != 0 || !bytes.Equal(was, r.Bytes()) {
				t.Error("zeroed while it was held")
			}
			prove.AssertHeld(t, r.Bytes())
			r.Release()
		}, 2 * pageSize},
		{"close in a View", func(t *testing.T, f *mmapio.File, wiped func() int64) {
			check(t, f.View(0, size, func(b []byte) error {
				mustClose(t, f)
				if wiped() != 0 || b[last] == 0 && b[last-1] == 0 && b[last-2] == 0 && b[last-3] == 0 {
					t.Error("zeroed while it was held")
				}
				return nil
			}))
		}, 2 * pageSize},
		{"shrink", func(t *testing.T, f *mmapio.File, _ func() int64) { mustResize(t, f, 16) }, 0},
		{"move", func(t *testing.T, f *mmapio.File, _ func() int64) {
			was := contentOf(t, f)
			mustResize(t, f, 20*pageSize)
			same(t, "moved", contentOf(t, f)[:size], was)
		}, 2 * pageSize},
		{"dropped", nil, 2 * pageSize},
	}
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			done := make(chan int64, 8)
			restore := mmapio.SetZeroed(func(b []byte) {
				if i := bytes.IndexFunc(b, func(r rune) bool { return r != 0 }); i >= 0 {
					t.Errorf("byte %d of %d is not zero", i, len(b))
				}
				for i, locked := range prove.LockedPages(t, b) {
					if !locked {
						t.Errorf("page %d was unlocked before it was zeroed", i)
					}
				}
				done <- int64(len(b))
			})
			defer restore()
			wiped := func() int64 { return int64(len(done)) }
			if w.do == nil {
				dropSecret(t, size)
				for deadline := time.Now().Add(10 * time.Second); len(done) == 0 && time.Now().Before(deadline); {
					runtime.GC()
					time.Sleep(time.Millisecond)
				}
			} else {
				w.do(t, newSecret(t, size, secretOptions), wiped)
			}
			if len(done) == 0 {
				t.Fatal("nothing was zeroed")
			}
			if n := <-done; w.want > 0 && n != w.want {
				t.Errorf("%d bytes were zeroed, want %d", n, w.want)
			}
		})
	}
	// The rest is given back as it is.
	defer mmapio.SetZeroed(func(b []byte) { t.Errorf("%d bytes of no secret were zeroed", len(b)) })()
	for _, o := range []mmapio.Options{{}, {Lock: mmapio.LockNow}, {NoDump: true, NoFork: true}, {Lock: mmapio.LockNow, NoFork: true}} {
		mustClose(t, newSecret(t, size, o))
	}
}

//go:noinline
func dropSecret(t *testing.T, size int64) {
	f, err := mmapio.Anonymous(size, &secretOptions)
	check(t, err)
	check(t, f.Update(0, size, func(b []byte) error { _, err := rand.Read(b); return err }))
}

// What a shrink cuts off of a secret is gone, also on the page that stays.
func TestProofSecretShrinks(t *testing.T) {
	needLockOf(t, 64*pageSize)
	for _, reserve := range []int64{0, 64 * pageSize} {
		o := secretOptions
		o.Reserve = reserve
		f := newSecret(t, 3*pageSize+100, o)
		was := contentOf(t, f)
		mustResize(t, f, 50)
		for i, b := range mmapio.Slack(f) {
			if b != 0 {
				t.Fatalf("byte %d behind the end has something", i)
			}
		}
		mustResize(t, f, 40*pageSize)
		same(t, "grown again", contentOf(t, f), resized(was[:50], 40*pageSize))
		holdsPages(t, f, slices.Repeat([]bool{true}, len(prove.LockedPages(t, memoryOf(t, f)))))
		mustClose(t, f)
	}
}

// A window hashes 32 bytes at a time, wherever they begin.
const window = 32

func windowHash(b []byte) (h uint64) {
	for _, c := range b[:window] {
		h = h*prime + uint64(c) + 1
	}
	return h
}

const prime = 0x9E3779B97F4A7C15

// windowHashes finds which of the hashes occur anywhere in b.
func windowHashes(b []byte, wanted map[uint64]string) map[string]int {
	found := map[string]int{}
	out := uint64(1)
	for range window {
		out *= prime
	}
	if len(b) < window {
		return found
	}
	h := windowHash(b)
	for i := 0; ; i++ {
		if name, ok := wanted[h]; ok {
			found[name]++
		}
		if i+window >= len(b) {
			return found
		}
		h = h*prime + uint64(b[i+window]) + 1 - (uint64(b[i])+1)*out
	}
}

// dumped makes secrets, tells their hashes, and ends with a core dump.
var dumped = prove.Register("dumped", func(args []string) int {
	t, size := prove.T(), 2*pageSize+40
	for name, o := range map[string]mmapio.Options{"secret": secretOptions, "moved": secretOptions, "control": {Lock: mmapio.LockNow, NoFork: true}} {
		f := newSecret(t, size, o)
		if name == "moved" {
			mustResize(t, f, 9*pageSize)
		}
		b := memoryOf(t, f)
		for _, at := range []int64{0, 777, pageSize + 5, size - window} {
			fmt.Println(name, windowHash(b[at:]))
		}
	}
	fmt.Println("end")
	debug.SetTraceback("crash")
	check(t, syscall.Kill(os.Getpid(), syscall.SIGABRT))
	time.Sleep(time.Minute)
	return 0
})

// The kernel's core dump has what no option keeps out of it, and nothing of a
// secret, at no place and however aligned.
func TestSecretNotInCore(t *testing.T) {
	prove.NeedE2E(t, prove.SysctlRW, prove.Pagemap)
	prove.Sysctl(t, "kernel.core_pattern", "core")
	prove.Sysctl(t, "kernel.core_uses_pid", "0")
	dir := prove.DiskDir(t)
	p := dumped.Start(t, prove.Dir(dir), prove.Limit(prove.CoreSize, prove.Unlimited, prove.Unlimited))
	hashes := map[uint64]string{}
	for line, ok := p.Line(); ok && line != "end"; line, ok = p.Line() {
		name, text, _ := strings.Cut(line, " ")
		h, err := strconv.ParseUint(text, 10, 64)
		check(t, err)
		hashes[h] = name
	}
	if r := p.Wait(); r.Signal != syscall.SIGABRT || len(hashes) != 12 {
		t.Fatalf("%d hashes, %v", len(hashes), r)
	}
	core, err := os.ReadFile(filepath.Join(dir, "core"))
	check(t, err)
	found := windowHashes(core, hashes)
	t.Logf("of %d MiB: %v", len(core)>>20, found)
	if found["control"] < 4 || found["secret"] != 0 || found["moved"] != 0 {
		t.Errorf("in the core dump are %v, want the four of control", found)
	}
}

// A forked child does not have the memory at all.
func TestSecretNotInChild(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	needLockOf(t, 8*pageSize)
	secret := newSecret(t, 5000, secretOptions)
	control := newSecret(t, 5000, mmapio.Options{Lock: mmapio.LockNow, NoDump: true})
	pid, errno := forkOnly()
	if errno != 0 {
		t.Fatal(errno)
	}
	child, err := os.FindProcess(int(pid))
	check(t, err)
	defer child.Wait() //nolint:errcheck // it was killed
	defer child.Kill() //nolint:errcheck // it sleeps
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	check(t, err)
	has := func(f *mmapio.File) bool {
		at := uint64(uintptr(unsafe.Pointer(&memoryOf(t, f)[0])))
		for line := range strings.Lines(string(maps)) {
			var lo, hi uint64
			if _, err := fmt.Sscanf(line, "%x-%x", &lo, &hi); err == nil && lo <= at && at < hi {
				return true
			}
		}
		return false
	}
	if has(secret) || !has(control) {
		t.Errorf("the child has the secret: %v, the control: %v", has(secret), has(control))
	}
}
