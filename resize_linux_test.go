package mmapio_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

func init() {
	blocksOf = func(t testing.TB, path string) int64 {
		t.Helper()
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks
	}
}

// refusedGrowth resizes a File in every way, wants the same errno each time,
// and nothing changed but spare blocks.
func refusedGrowth(t testing.TB, path string, size, spare int64, want error) {
	t.Helper()
	for _, o := range []mmapio.Options{
		{Mode: mmapio.ReadWrite},
		{Mode: mmapio.ReadWrite, Reserve: size},
		{Mode: mmapio.ReadWrite, Offset: 5},
	} {
		f := mustOpen(t, path, &o)
		store(t, f, 1, "!")
		was := standOf(t, f, path)
		was.spare = spare
		for range 2 {
			wantPathError(t, f.Resize(size), "resize", path, want)
			was.unchanged(t, fmt.Sprintf("growth of %+v", o), f, path)
		}
		stillStores(t, f)
		mustResize(t, f, f.Size()+1)
		mustResize(t, f, f.Size()-1)
		mustClose(t, f)
	}
}

// wantGrowth checks what a refused growth says for people.
func wantGrowth(t testing.TB, path string, size int64, want string) {
	t.Helper()
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	if err, want := f.Resize(size), "resize "+path+": "+want; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	_, err := mmapio.OpenFile(path, &mmapio.Options{Mode: mmapio.ReadWrite, MinSize: size})
	if want := "open " + path + ": " + want; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	mustClose(t, f)
}

// TestResizeFullDisk: blocks that were given before the disk was full are given
// back.
func TestResizeFullDisk(t *testing.T) {
	prove.Need(t, prove.BusAddress)
	const size, first = 4 << 20, 300 << 10
	for name, dir := range map[string]func(t *testing.T) string{
		"tmpfs": func(t *testing.T) string { return prove.SmallTmpfs(t, size) },
		"ext4": func(t *testing.T) string {
			prove.NeedE2E(t, prove.LoopDevice, prove.Ext4)
			return prove.LoopFS(t, "ext4", 16<<20).Dir
		},
		"xfs": func(t *testing.T) string {
			prove.NeedE2E(t, prove.LoopDevice, prove.XFS)
			return prove.LoopFS(t, "xfs", 300<<20).Dir
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir(t), "file")
			if err := os.WriteFile(path, pattern(first, 1), 0o600); err != nil {
				t.Fatal(err)
			}
			// What is delayed gets its blocks now, so that they can be counted.
			if f, err := os.Open(path); err != nil || errors.Join(f.Sync(), f.Close()) != nil {
				t.Fatal(err)
			}
			// ext4 keeps a block of its own, the index to the others.
			refusedGrowth(t, path, 1<<30, 16, syscall.ENOSPC)
			wantGrowth(t, path, 1<<30, "no space left on device: the file has 307200 bytes and was to have 1073741824; "+
				"free as much, or set Options.Sparse, which takes blocks when bytes are stored")
			same(t, "the file", onDisk(t, path)[7:], pattern(first, 1)[7:])

			// Sparse growth needs no blocks, and gives none.
			f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Sparse: true})
			mustResize(t, f, 1<<30)
			err := f.Update(0, f.Size(), func(b []byte) error {
				for i := first; i < len(b); i += int(pageSize) {
					b[i] = 1
				}
				return nil
			})
			// The reason is found by looking, and some space may be free again.
			if fe := (*mmapio.FaultError)(nil); !errors.As(err, &fe) {
				t.Errorf("stores to a full disk: %v", err)
			}
			mustResize(t, f, first)
			same(t, "the file at last", onDisk(t, path)[7:], pattern(first, 1)[7:])
		})
	}
}

// TestResizeFileLimit: RLIMIT_FSIZE comes with SIGXFSZ, which ends a C program.
// The Go runtime catches it and does nothing, so it is EFBIG.
func TestResizeFileLimit(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	path, _ := patternFile(t, 10*pageSize)
	limit := uint64(64 * pageSize)
	if r := fileLimitBody.Run(t, prove.Args(path), prove.Limit(prove.FileSize, limit, limit)); r.Code != 0 {
		t.Error(r)
	}
}

var fileLimitBody = prove.Register("resize-fsize", func(args []string) int {
	refusedGrowth(prove.T(), args[0], 100*pageSize, 0, syscall.EFBIG)
	want := fmt.Sprintf("file too large: the file has %d bytes and was to have %d", 10*pageSize, 100*pageSize)
	wantGrowth(prove.T(), args[0], 100*pageSize, want)
	_, err := mmapio.OpenFile(args[0], &mmapio.Options{Mode: mmapio.ReadWrite, MinSize: 100 * pageSize, Sparse: true})
	if want = "open " + args[0] + ": " + want; err == nil || err.Error() != want {
		prove.T().Errorf("got  %v\nwant %s", err, want)
	}
	return 0
})

// TestResizeAddressLimit: RLIMIT_AS refuses the mapping when the file is long
// already.
func TestResizeAddressLimit(t *testing.T) {
	prove.Need(t, prove.Pagemap, prove.AddressLimit)
	if strconv.IntSize == 32 {
		t.Skip(runtime.GOARCH + ", 32 bits: the address space is its own limit")
	}
	path, _ := patternFile(t, 10*pageSize)
	if r := addressLimitBody.Run(t, prove.Args(path)); r.Code != 0 {
		t.Error(r)
	}
}

var addressLimitBody = prove.Register("resize-as", func(args []string) int {
	t, path := prove.T(), args[0]
	const large = 4 << 30
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Sparse: true})
	roomy := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Sparse: true, Reserve: large})
	cow := mustOpen(t, path, &mmapio.Options{Mode: mmapio.CopyOnWrite})
	anon := opened(t)(mmapio.Anonymous(5*pageSize, nil))
	store(t, cow, 5, "copy")
	store(t, anon, 5, "copy")

	var lim syscall.Rlimit
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	lim.Cur = uint64(pages*pageSize + 256<<20) // some for Go itself
	lim.Max = lim.Cur
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &lim); err != nil {
		t.Fatal(err)
	}
	was, wasAnon := standOf(t, f, path), standOf(t, anon, "")
	for range 3 {
		wantPathError(t, f.Resize(large), "resize", path, syscall.ENOMEM)
		was.unchanged(t, "growth", f, path)
		wantPathError(t, anon.Resize(large), "resize", "anonymous", syscall.ENOMEM)
		wasAnon.unchanged(t, "growth of anonymous", anon, "")
	}
	stillStores(t, f)
	stillStores(t, anon)
	mustResize(t, roomy, large) // its addresses were taken before
	n, err := cow.Refresh()
	wantPathError(t, err, "refresh", path, syscall.ENOMEM)
	if n != 10*pageSize || string(contentOf(t, cow)[5:9]) != "copy" {
		t.Errorf("after a refused Refresh: %d bytes", n)
	}
	stillStores(t, cow)
	return 0
})

// memfd is a file in memory, whose seals refuse what one asks them to.
func memfd(t *testing.T, size int64, seals int) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("resize", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		prove.Unable(t, "memfd_create: %v", err)
	}
	f := os.NewFile(uintptr(fd), "memfd:resize")
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteAt(pattern(size, 1), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestResizeSealed: the length can be sealed against growing and against
// shrinking, and the file against being mapped once more.
func TestResizeSealed(t *testing.T) {
	prove.Need(t, prove.Maps)
	size := 3*pageSize + 5
	for _, c := range []struct {
		name  string
		seals int
		to    int64
		ok    int64 // what is not refused
	}{
		{"grow", unix.F_SEAL_GROW, 20 * pageSize, 2 * pageSize},
		{"grow in the last page", unix.F_SEAL_GROW, size + 1, 9},
		{"shrink", unix.F_SEAL_SHRINK, 2 * pageSize, 20 * pageSize},
		{"shrink to nothing", unix.F_SEAL_SHRINK, 0, size + 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := memfd(t, size, c.seals)
			for _, reserve := range []int64{0, 40 * pageSize} {
				f := opened(t)(mmapio.Map(m, &mmapio.Options{Mode: mmapio.ReadWrite, Reserve: reserve}))
				if err := f.Lock(1, 2*pageSize); err != nil {
					t.Fatal(err)
				}
				path := "/proc/self/fd/" + strconv.Itoa(int(m.Fd()))
				was := standOf(t, f, path)
				wantPathError(t, f.Resize(c.to), "resize", m.Name(), syscall.EPERM)
				was.unchanged(t, "a sealed file", f, path)
				stillStores(t, f)
				if reserve > 0 {
					mustResize(t, f, c.ok)
				}
			}
		})
	}
	t.Run("map", func(t *testing.T) {
		m := memfd(t, size, 0)
		f := opened(t)(mmapio.Map(m, &mmapio.Options{Mode: mmapio.ReadWrite}))
		if _, err := unix.FcntlInt(m.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE); err != nil {
			prove.Unable(t, "F_SEAL_FUTURE_WRITE: %v", err)
		}
		path := "/proc/self/fd/" + strconv.Itoa(int(m.Fd()))
		was := standOf(t, f, path)
		wantPathError(t, f.Resize(20*pageSize), "resize", m.Name(), syscall.EPERM)
		was.unchanged(t, "a file that cannot be mapped again", f, path)
		stillStores(t, f)
	})
}

// TestResizeImmutable: chattr +i and +a come after the open, so the descriptor
// is there, and the length still cannot be changed.
func TestResizeImmutable(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	const immutable, appendOnly = 0x10, 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL
	path, _ := patternFile(t, 3*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	h, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	flags, err := unix.IoctlGetInt(int(h.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		prove.Unable(t, "this file system has no flags: %v", err)
	}
	set := func(flags int) error { return unix.IoctlSetPointerInt(int(h.Fd()), unix.FS_IOC_SETFLAGS, flags) }
	t.Cleanup(func() { _ = set(flags) })
	for flag, sizes := range map[int][]int64{
		immutable:  {0, 1, 2 * pageSize, 4 * pageSize},
		appendOnly: {0, 1, 2 * pageSize},
	} {
		if err := set(flags | flag); err != nil {
			prove.Unable(t, "not allowed: %v", err)
		}
		for _, size := range sizes {
			was := standOf(t, f, path)
			wantPathError(t, f.Resize(size), "resize", path, syscall.EPERM)
			was.unchanged(t, "a file that cannot be changed", f, path)
		}
	}
	if err := set(flags); err != nil {
		t.Fatal(err)
	}
	mustResize(t, f, 20*pageSize)
	mustResize(t, f, 5)
}
