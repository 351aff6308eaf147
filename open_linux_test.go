package mmapio_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// TestSpecialFiles: what is no regular file is refused by its name, at once,
// though an open of a FIFO waits for a writer and one of a device does things.
func TestSpecialFiles(t *testing.T) {
	prove.LeakCheck(t)
	dir := t.TempDir()
	fifo, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "link")
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.Symlink(fifo, link)); err != nil {
		t.Fatal(err)
	}
	short, err := os.MkdirTemp("", "s") // a socket's name has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(short) //nolint:errcheck // it is temporary
	socket := filepath.Join(short, "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, name := range []string{fifo, link, socket, "/dev/null", "/dev/zero", "/dev/tty", "/proc", dir} {
		for _, o := range []*mmapio.Options{
			nil,
			{Mode: mmapio.CopyOnWrite, Populate: true},
			{Mode: mmapio.ReadWrite, Create: true, Truncate: true, MinSize: 10},
		} {
			result := make(chan error, 1)
			go func() {
				f, err := mmapio.OpenFile(name, o)
				if err == nil {
					f.Close()
				}
				result <- err
			}()
			select {
			case err := <-result:
				wantPathError(t, err, "open", name, fs.ErrInvalid)
			case <-time.After(5 * time.Second):
				t.Fatalf("%s: the open waits", name)
			}
		}
	}

	// An open that did wait would be seen by the other side.
	if fd, err := unix.Open(fifo, unix.O_WRONLY|unix.O_NONBLOCK, 0); err != unix.ENXIO { //nolint:errorlint // bare errno
		t.Errorf("somebody has the FIFO open: %d, %v", fd, err)
	}
}

// TestMapDeleted: a file without a name is one all the same.
func TestMapDeleted(t *testing.T) {
	prove.LeakCheck(t)
	path, content := patternFile(t, pageSize+5)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for _, mode := range allModes {
		f := opened(t)(mmapio.Map(file, &mmapio.Options{Mode: mode}))
		same(t, mode.String(), contentOf(t, f), content)
		if mode != mmapio.ReadOnly {
			store(t, f, 1, mode.String())
		}
		if mode == mmapio.ReadWrite {
			copy(content[1:], mode.String())
		}
		if err := f.Sync(); err != nil {
			t.Error(err)
		}
		mustClose(t, f)
	}
	got := make([]byte, len(content))
	if _, err := file.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	same(t, "the file", got, content)
	mustNotExist(t, path)
}

// fdOf is the number of the File's own descriptor.
func fdOf(t testing.TB, f *mmapio.File) (fd int) {
	t.Helper()
	c, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Control(func(n uintptr) { fd = int(n) }); err != nil {
		t.Fatal(err)
	}
	return fd
}

// sharesDescription moves the file's offset and looks whether the descriptor's
// moves too.
func sharesDescription(t testing.TB, file *os.File, fd int) bool {
	t.Helper()
	for _, to := range []int64{3, 77} {
		if _, err := file.Seek(to, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		at, err := unix.Seek(fd, 0, io.SeekCurrent)
		if err != nil {
			t.Fatal(err)
		}
		if at != to {
			return false
		}
	}
	return true
}

// TestMapOwnDescription: the kernel reports a failed write-back once for each
// open file description, so a File needs one that is not the caller's. And it
// must not be passed on to programs that are started.
func TestMapOwnDescription(t *testing.T) {
	prove.Need(t, prove.Maps)
	prove.LeakCheck(t)
	path, _ := patternFile(t, 100)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	dup, err := unix.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dup)
	if !sharesDescription(t, file, dup) {
		t.Fatal("a duplicate is told from nothing")
	}
	for _, mode := range allModes {
		f := opened(t)(mmapio.Map(file, &mmapio.Options{Mode: mode}))
		fd := fdOf(t, f)
		if sharesDescription(t, file, fd) {
			t.Errorf("%v: the File shares the caller's open file description", mode)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%v: descriptor flags %#x, %v: not close-on-exec", mode, flags, err)
		}
		mustClose(t, f)
	}
	f := mustOpen(t, path, nil)
	if flags, err := unix.FcntlInt(uintptr(fdOf(t, f)), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("Open: descriptor flags %#x, %v: not close-on-exec", flags, err)
	}
	mustClose(t, f)
}

// noRights is what an ordinary user is refused, args[0] being a directory that
// it may write to, with "secret" and "theirs" in it and "closed" below.
var noRights = prove.Register("noRights", func(args []string) int {
	t := prove.T()
	prove.LeakCheck(t)
	dir := args[0]
	rw := &mmapio.Options{Mode: mmapio.ReadWrite}
	create := &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: 5}
	for _, tt := range []struct {
		name string
		o    *mmapio.Options
	}{
		{"secret", nil},
		{"secret", rw},
		{"secret", create},
		{"secret", &mmapio.Options{Mode: mmapio.CopyOnWrite}},
		{"theirs", rw},
		{"theirs", &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, Truncate: true}},
		{"closed/new", create},
		{"closed/new", nil},
	} {
		name := filepath.Join(dir, tt.name)
		_, err := mmapio.OpenFile(name, tt.o)
		wantPathError(t, err, "open", name, fs.ErrPermission)
	}
	name := filepath.Join(dir, "theirs")
	for _, mode := range []mmapio.Mode{mmapio.ReadOnly, mmapio.CopyOnWrite} {
		f := mustOpen(t, name, &mmapio.Options{Mode: mode, Populate: true})
		same(t, name, contentOf(t, f), []byte("theirs"))
		mustClose(t, f)
	}
	return 0
})

// TestPermissions: who may not is told so, and by which file.
func TestPermissions(t *testing.T) {
	prove.Need(t, prove.Children)
	dir := prove.PublicDir(t)
	closed := filepath.Join(dir, "closed")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0), os.Mkdir(closed, 0o600),
		os.WriteFile(filepath.Join(dir, "theirs"), []byte("theirs"), 0o444)); err != nil {
		t.Fatal(err)
	}
	opts := []prove.Option{prove.Args(dir)}
	if os.Geteuid() == 0 {
		opts = append(opts, prove.AsNobody())
	}
	if res := noRights.Run(t, opts...); res.Code != 0 {
		t.Error(res)
	}
	if err := os.Chmod(closed, 0o700); err != nil { // the test may run as a user who cannot look, either
		t.Fatal(err)
	}
	mustNotExist(t, filepath.Join(closed, "new"))
	for _, name := range []string{"secret", "theirs"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() != 6 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// blocks is how many bytes of disk the file has.
func blocks(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// TestReservesBlocks: what MinSize adds has blocks, and holes that were there
// before get them, but for Sparse. Old bytes stay, new ones are zero.
func TestReservesBlocks(t *testing.T) {
	prove.LeakCheck(t)
	dir := prove.DiskDir(t)
	const size, larger = 1 << 20, 4 << 20
	for _, sparse := range []bool{false, true} {
		path := filepath.Join(dir, fmt.Sprint("sparse ", sparse))
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil { // a hole
			t.Fatal(err)
		}
		if n := blocks(t, path); n >= size {
			prove.Unable(t, "the file system has no holes: %d bytes of disk", n)
		}
		want := append([]byte("old"), make([]byte, larger-3)...)
		o := &mmapio.Options{Mode: mmapio.ReadWrite, MinSize: larger, Sparse: sparse}
		f := mustOpen(t, path, o)
		same(t, "the mapping", contentOf(t, f), want)
		mustClose(t, f)
		same(t, "the file", onDisk(t, path), want)
		if n := blocks(t, path); n >= larger == sparse {
			t.Errorf("sparse %v: a file of %d bytes has %d bytes of disk", sparse, larger, n)
		}

		// Never shorter.
		o.MinSize = 5
		mustClose(t, mustOpen(t, path, o))
		if n := sizeOnDisk(t, path); n != larger {
			t.Errorf("MinSize 5 made a file of %d bytes %d bytes long", larger, n)
		}
		created := opened(t)(mmapio.Create(filepath.Join(dir, "created"), size))
		if n := blocks(t, created.Name()); n < size {
			t.Errorf("Create(…, %d) has %d bytes of disk", size, n)
		}
		mustClose(t, created)
	}
}

// TestFullDisk: no room is an error of the open, which leaves no trace.
func TestFullDisk(t *testing.T) {
	prove.NeedE2E(t)
	for name, mount := range map[string]func(t testing.TB) string{
		"ext4":  func(t testing.TB) string { return prove.LoopFS(t, "ext4", 64<<20).Dir },
		"xfs":   func(t testing.TB) string { return prove.LoopFS(t, "xfs", 320<<20).Dir },
		"tmpfs": func(t testing.TB) string { return prove.SmallTmpfs(t, 32<<20) },
	} {
		t.Run(name, func(t *testing.T) { tooLarge(t, mount(t), 512<<20, unix.ENOSPC) })
	}
}

// overLimit is a file system that is full for one process only.
var overLimit = prove.Register("overLimit", func(args []string) int {
	tooLarge(prove.T(), args[0], 2<<20, unix.EFBIG)
	return 0
})

func TestFileSizeLimit(t *testing.T) {
	prove.Need(t, prove.Pagemap)
	if res := overLimit.Run(t, prove.Args(t.TempDir()), prove.Limit(prove.FileSize, 1<<20, 1<<20)); res.Code != 0 {
		t.Error(res)
	}
}

// tooLarge makes files of a size that cannot be had.
func tooLarge(t testing.TB, dir string, size int64, want error) {
	prove.LeakCheck(t)
	content := pattern(pageSize+1, 4)
	path, absent := filepath.Join(dir, "old"), filepath.Join(dir, "new")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	free := func() int64 {
		unix.Sync() // what was not yet written has no blocks of its own
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		return int64(st.Bfree) * int64(st.Bsize) //nolint:gosec,unconvert // of other types elsewhere
	}
	before := free()
	for _, populate := range []bool{false, true} {
		o := &mmapio.Options{Mode: mmapio.ReadWrite, MinSize: size, Populate: populate}
		_, err := mmapio.OpenFile(path, o)
		wantPathError(t, err, "open", path, want)
		same(t, "the file", onDisk(t, path), content)

		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = mmapio.Map(file, o)
		file.Close()
		wantPathError(t, err, "map", path, want)
		same(t, "the file", onDisk(t, path), content)

		o.Create = true
		_, err = mmapio.OpenFile(absent, o)
		wantPathError(t, err, "open", absent, want)
		mustNotExist(t, absent)
		_, err = mmapio.Create(absent, size)
		wantPathError(t, err, "open", absent, want)
		mustNotExist(t, absent)
	}
	if errors.Is(want, unix.ENOSPC) {
		// What one file of the size of a hole cannot have, either.
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		_, err := mmapio.OpenFile(path, &mmapio.Options{Mode: mmapio.ReadWrite, MinSize: size})
		wantPathError(t, err, "open", path, want)
		if want := fmt.Sprintf("no space left on device: each of %d bytes was to have a block; free as much", size); !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
		if n := sizeOnDisk(t, path); n != size {
			t.Errorf("the file has %d bytes now, had %d", n, size)
		}
		// A disk that is full is no reason not to open as it is.
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, MinSize: size, Sparse: true})
		if err := f.View(0, pageSize+1, func(b []byte) error {
			if !bytes.Equal(b, content) {
				t.Error("the old bytes have changed")
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		mustClose(t, f)
		if err := os.Truncate(path, int64(len(content))); err != nil {
			t.Fatal(err)
		}
	}
	if !errors.Is(want, unix.ENOSPC) {
		return // others use the disk as well
	}
	runtime.GC()
	if after := free(); after < before-1<<20 {
		t.Errorf("refused opens keep %d bytes of the disk", before-after)
	}
}

// What the kernel shows as files has no length, or cannot be mapped.
func TestOpenOfTheKernels(t *testing.T) {
	prove.Need(t, prove.Linux)
	for _, path := range []string{"/proc/meminfo", "/proc/self/maps", "/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"} {
		f, err := mmapio.Open(path)
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "maps no files") {
			t.Errorf("%s: %v, %v", path, f, err)
		}
	}
}
