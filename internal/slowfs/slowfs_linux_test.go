//go:build !(386 || arm || mips || mipsle)

package slowfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio/internal/prove"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	ok(t, err)
	t.Cleanup(func() { _ = f.Close() }) // most tests close it themselves
	return f
}

func mmap(t *testing.T, f *os.File, n int) []byte {
	t.Helper()
	m, err := unix.Mmap(int(f.Fd()), 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	ok(t, err)
	t.Cleanup(func() { _ = unix.Munmap(m) }) // the same
	return m
}

// ops is the log as short text, without what the kernel sends when it pleases.
func ops(fs *FS) []string {
	var out []string
	for _, e := range fs.Log() {
		switch e.Op {
		case OpOpen, OpRelease, OpRead:
		case OpWrite:
			out = append(out, fmt.Sprintf("WRITE %d %d", e.Off, e.Len))
		case OpFsync:
			out = append(out, fmt.Sprintf("FSYNC datasync=%v", e.Datasync))
		case OpSetattr:
			if e.Len >= 0 {
				out = append(out, fmt.Sprintf("SETATTR %d", e.Len))
			}
		default:
			out = append(out, string(e.Op))
		}
	}
	return out
}

func wantOps(t *testing.T, fs *FS, want ...string) {
	t.Helper()
	if got := ops(fs); !slices.Equal(got, want) {
		t.Errorf("requests %q, want %q", got, want)
	}
}

func TestBytes(t *testing.T) {
	fs := Start(t, Options{})
	const size = 4<<30 + 5000
	fs.AddFile("sub/big", size, Offsets)
	f := open(t, fs.Path("sub/big"))
	m := mmap(t, f, size)
	for _, off := range []int{0, 4095, 1<<20 - 3, 1 << 31, 4<<30 + 1, size - 100} {
		want, got := make([]byte, 100), make([]byte, 100)
		Offsets.Bytes(want, int64(off))
		_, err := f.ReadAt(got, int64(off))
		ok(t, err)
		if !bytes.Equal(got, want) || !bytes.Equal(m[off:off+100], want) {
			t.Errorf("at %d: pread %x, mapping %x, want %x", off, got[:8], m[off:off+8], want[:8])
		}
	}
	fs.AddData("small", []byte("hello"))
	got, err := os.ReadFile(fs.Path("small"))
	if string(got) != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestFilesAndDirectories(t *testing.T) {
	for _, o := range []Options{{}, {WritebackCache: true, NoFlush: true}} {
		fs := Start(t, o)
		ok(t, os.Mkdir(fs.Path("d"), 0o755))
		ok(t, os.WriteFile(fs.Path("d/a"), []byte("one"), 0o600))
		ok(t, os.WriteFile(fs.Path("b"), []byte("two two"), 0o600))
		ok(t, os.Rename(fs.Path("d/a"), fs.Path("b")))
		if got, err := os.ReadFile(fs.Path("b")); string(got) != "one" || err != nil {
			t.Errorf("after rename %q, %v", got, err)
		}
		f, err := os.OpenFile(fs.Path("b"), os.O_APPEND|os.O_RDWR, 0)
		ok(t, err)
		_, err = f.WriteString(" more")
		ok(t, err)
		ok(t, f.Truncate(6))
		ok(t, os.Remove(fs.Path("b"))) // still open
		got := make([]byte, 10)
		if n, _ := f.ReadAt(got, 0); string(got[:n]) != "one mo" {
			t.Errorf("after append and truncate %q", got[:n])
		}
		ok(t, f.Close())
		for i := range 500 { // more than one READDIR
			ok(t, os.WriteFile(fs.Path(fmt.Sprintf("d/file-%03d", i)), nil, 0o600))
		}
		list, err := os.ReadDir(fs.Path("d"))
		if len(list) != 500 || err != nil || list[499].Name() != "file-499" {
			t.Errorf("ReadDir: %d entries, %v", len(list), err)
		}
		if err := os.Remove(fs.Path("d")); !errors.Is(err, unix.ENOTEMPTY) {
			t.Errorf("rmdir of a full directory: %v", err)
		}
		if _, err := os.Stat(fs.Path("b")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("stat of what was removed: %v", err)
		}
	}
}

func TestReadsRunSideBySide(t *testing.T) {
	prove.Need(t, prove.Advice)
	const readers, apart, delay = 64, 64 << 10, 20 * time.Millisecond
	fs := Start(t, Options{ReadDelay: delay, ReadAhead: -1})
	fs.AddFile("f", readers*apart, Offsets)
	f := open(t, fs.Path("f"))
	// Held, so that it is known and not guessed that all of them are in the server at the same time.
	release := fs.Hold(OpRead, "f")
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			if _, err := f.ReadAt(make([]byte, 1), int64(i)*apart); err != nil {
				t.Error(err)
			}
		})
	}
	fs.WaitHeld(readers)
	start := time.Now()
	release()
	wg.Wait()
	took, st := time.Since(start), fs.Stats()
	if took < delay || took > readers*delay/2 {
		t.Errorf("%d reads of %v took %v", readers, delay, took)
	}
	if st.Count[OpRead] != readers || st.Peak[OpRead] != readers || st.Held != 0 {
		t.Errorf("stats %+v", st)
	}
	for _, e := range fs.Log(OpRead) {
		if e.Took < delay || !e.Done || e.Path != "f" {
			t.Errorf("log has %+v", e)
		}
	}
	fs.ResetLog()
	fs.SetReadDelay(0)
	m := mmap(t, f, readers*apart)
	ok(t, unix.Madvise(m, unix.MADV_POPULATE_READ))
	// Without read-ahead, populating reads page by page what is not there yet. Of what is, another program may have
	// dropped something: drop_caches is for the whole machine.
	if n, want := fs.Count(OpRead), readers*(apart/4096-1); os.Getpagesize() == 4096 && (n < want || n > want+readers) {
		t.Errorf("populate sent %d reads, want %d", n, want)
	}
}

func TestReadAhead(t *testing.T) {
	prove.Need(t, prove.Advice)
	const size = 4 << 20
	for _, c := range []struct {
		o        Options
		min, max int
	}{
		{Options{}, 32, 48}, // 128 KiB each
		{Options{ReadAhead: 1 << 20, MaxRequest: 1 << 20}, 4, 8},     // as the kernel would never do by itself
		{Options{ReadAhead: 1 << 20, MaxRequest: 64 << 10}, 64, 100}, // cut into requests
	} {
		fs := Start(t, c.o)
		fs.AddFile("f", size, Offsets)
		m := mmap(t, open(t, fs.Path("f")), size)
		ok(t, unix.Madvise(m, unix.MADV_POPULATE_READ))
		if n := fs.Count(OpRead); n < c.min || n > c.max {
			t.Errorf("%+v: %d reads, want %d to %d", c.o, n, c.min, c.max)
		}
		fs.DropCache("f", 0, 0)
		ok(t, unix.Madvise(m, unix.MADV_POPULATE_READ))
		if n := fs.Count(OpRead); n < 2*c.min {
			t.Errorf("%+v: %d reads after the cache was dropped", c.o, n)
		}
	}
}

func TestUnreadable(t *testing.T) {
	prove.Need(t, prove.Advice)
	fs := Start(t, Options{})
	const size, bad = 1 << 20, 40 * 4096
	fs.AddFile("f", size, Offsets)
	remove := fs.FailReads("f", bad, 4096, unix.EIO)
	f := open(t, fs.Path("f"))
	m := mmap(t, f, size)

	start := time.Now()
	if err := unix.Madvise(m, unix.MADV_POPULATE_READ); err != unix.EFAULT {
		t.Errorf("populate: %v, want EFAULT", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("populate took %v to fail", took)
	}
	p := make([]byte, 8)
	if _, err := f.ReadAt(p, bad); !errors.Is(err, unix.EIO) {
		t.Errorf("pread of the bad page: %v, want EIO", err)
	}
	for _, off := range []int64{bad - 8, bad + 4096} { // read-ahead met the bad page, but these are fine
		want := make([]byte, 8)
		Offsets.Bytes(want, off)
		if _, err := f.ReadAt(p, off); err != nil || !bytes.Equal(p, want) {
			t.Errorf("pread beside it, at %d: %x, %v", off, p, err)
		}
	}
	remove()
	ok(t, unix.Madvise(m, unix.MADV_POPULATE_READ))
	Offsets.Bytes(p, bad)
	if !bytes.Equal(m[bad:bad+8], p) {
		t.Errorf("after the disk was mended: %x", m[bad:bad+8])
	}
}

func TestFull(t *testing.T) {
	fs := Start(t, Options{Capacity: 1 << 20})
	f := open(t, fs.Path("f"))
	if _, err := f.Write(make([]byte, 2<<20)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("write of 2 MiB: %v, want ENOSPC", err)
	}
	ok(t, f.Truncate(0))
	if used := fs.Used(); used != 0 {
		t.Errorf("%d bytes used after truncate", used)
	}
	ok(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 512<<10))
	ok(t, unix.Fallocate(int(f.Fd()), 0, 0, 512<<10))
	var sfs unix.Statfs_t
	ok(t, unix.Statfs(fs.Dir(), &sfs))
	if sfs.Blocks != 256 || sfs.Bavail != 128 {
		t.Errorf("statfs: %d of %d blocks free", sfs.Bavail, sfs.Blocks)
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, 2<<20); err != unix.ENOSPC {
		t.Errorf("fallocate of 2 MiB: %v, want ENOSPC", err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != 512<<10 {
		t.Errorf("the failed fallocate left %v, %v", st, err)
	}
	ok(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, 0, 512<<10))

	// A store into a hole of a full file system: FUSE says so only when it writes.
	fs.SetCapacity(4096)
	m := mmap(t, f, 512<<10)
	m[0], m[100<<10] = 1, 1
	if err := unix.Fdatasync(int(f.Fd())); err != unix.ENOSPC {
		t.Errorf("fdatasync: %v, want ENOSPC", err)
	}
	fs.SetCapacity(0)
	m[100<<10] = 2
	ok(t, unix.Fdatasync(int(f.Fd())))
}

func TestTruncateBehindTheKernel(t *testing.T) {
	prove.Need(t, prove.Advice)
	fs := Start(t, Options{})
	fs.AddFile("f", 1<<20, Offsets)
	f := open(t, fs.Path("f"))
	m := mmap(t, f, 1<<20)
	ok(t, unix.Madvise(m, unix.MADV_POPULATE_READ))
	fs.Truncate("f", 4096)
	if err := unix.Madvise(m, unix.MADV_POPULATE_READ); err != unix.EFAULT {
		t.Errorf("populate beyond the new end: %v, want EFAULT", err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != 4096 {
		t.Errorf("size %v, %v", st, err)
	}
	fs.Truncate("f", 1<<20)
	ok(t, unix.Madvise(m, unix.MADV_POPULATE_READ))
	if !bytes.Equal(m[4096:], make([]byte, 1<<20-4096)) {
		t.Error("what was cut off came back")
	}
}

func TestHold(t *testing.T) {
	fs := Start(t, Options{})
	f := open(t, fs.Path("f"))
	release := fs.Hold(OpFsync, "f")
	done := make(chan error, 1)
	go func() { done <- f.Sync() }()
	fs.WaitHeld(1)
	select {
	case err := <-done:
		t.Fatalf("fsync returned while it was held: %v", err)
	default:
	}
	release()
	ok(t, <-done)
	// A rule with a delay, and one that ends by itself.
	fs.Add(Rule{Op: OpFsync, Delay: 20 * time.Millisecond, Times: 1})
	ok(t, f.Sync())
	ok(t, f.Sync())
	log := fs.Log(OpFsync)
	if len(log) != 3 || log[1].Took < 20*time.Millisecond {
		t.Errorf("log %+v", log)
	}
}
