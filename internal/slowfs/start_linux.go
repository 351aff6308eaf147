//go:build !(386 || arm || mips || mipsle)

package slowfs

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio/internal/prove"
)

// environ carries the options to the child and tells it that it is one.
const environ = "MMAPIO_SLOWFS_SERVE"

type config struct {
	Dir    string
	Parent int
	Options
}

// Start mounts a file system for the length of the test.
func Start(t testing.TB, o Options) *FS {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root, to mount")
	}
	if why := prove.Missing(prove.Children); why != "" {
		t.Skip("slowfs needs children: " + why)
	}
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 && prove.Missing(prove.Linux) != "" {
		t.Skip("slowfs: the kernel below the emulator speaks FUSE in another byte order")
	}
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		missing(t, err.Error())
	}
	_ = dev.Close() // opened to see whether it can be

	// Both before our own Cleanup, so that they are removed after it.
	dir, side := t.TempDir(), t.TempDir()
	fs := launch(t, dir, side, o)
	t.Cleanup(fs.stop)

	fs.mu.Lock()
	err = fs.in.SetReadDeadline(time.Now().Add(controlTimeout))
	r := reply{}
	if err == nil {
		r, err = fs.receive()
	}
	fs.mu.Unlock()
	switch syscall.Errno(r.Errno) {
	case unix.EPERM, unix.EACCES, unix.ENODEV, unix.ENOENT, unix.ENXIO:
		missing(t, fmt.Sprintf("a FUSE mount: %v", err))
	}
	if err != nil {
		t.Fatalf("slowfs: the server did not start: %v", err)
	}
	if err := tune(dir, o); err != nil {
		missing(t, "the settings of its backing device: "+err.Error())
	}
	return fs
}

// missing skips, or fails where everything is meant to be there: a proof that was not made must not look like one.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("MMAPIO_E2E") == "1" {
		t.Fatal("slowfs needs " + what)
	}
	t.Skip("slowfs needs " + what)
}

func launch(t testing.TB, dir, side string, o Options) *FS {
	t.Helper()
	conf, err := json.Marshal(config{dir, os.Getpid(), o})
	if err != nil {
		t.Fatal(err)
	}
	// Files and pipes, not io.Readers: with those exec starts no goroutine in the process under test. Not stdin and
	// stdout, because what other packages print while they initialize must not end up among the answers.
	var fds []*os.File
	closeAll := func() {
		for _, f := range fds {
			_ = f.Close() // whether it was open is not known on the way out
		}
	}
	theirIn, ourOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fds = append(fds, theirIn, ourOut)
	ourIn, theirOut, err := os.Pipe()
	if err != nil {
		closeAll()
		t.Fatal(err)
	}
	fds = append(fds, ourIn, theirOut)
	errs, err := os.Create(filepath.Join(side, "stderr"))
	if err != nil {
		closeAll()
		t.Fatal(err)
	}
	fds = append(fds, errs)

	cmd := exec.Command("/proc/self/exe") // works even when the binary was removed meanwhile
	// Under the race detector every process sleeps for a second before it exits.
	cmd.Env = append(os.Environ(), environ+"="+string(conf), "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0")
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = errs, errs
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	if err := cmd.Start(); err != nil {
		closeAll()
		t.Fatal(err)
	}
	_ = theirIn.Close() // the child has its own; ours would keep the pipe open when it dies
	_ = theirOut.Close()

	fs := &FS{t: t, dir: dir, pid: cmd.Process.Pid, in: ourIn, out: ourOut}
	fs.enc, fs.dec = json.NewEncoder(ourOut), json.NewDecoder(ourIn)
	fs.stop = sync.OnceFunc(func() {
		// Force aborts the connection first. Then nothing waits for an answer any more, neither a test that is stuck in
		// a fault, nor the unmount, which would want to write dirty pages back. Lazy, because files may still be open.
		if err := unmount(dir); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Errorf("slowfs: unmount: %v", err)
		}
		_ = ourOut.Close() // the child goes when it reads the end of this
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		kill.Stop()
		_ = ourIn.Close()
		_ = errs.Close()
		if err != nil || t.Failed() {
			said, _ := os.ReadFile(errs.Name()) // a help for the reader of the failure, no more
			t.Logf("slowfs: server ended with %v, it said: %s", err, said)
		}
		if err != nil {
			t.Errorf("slowfs: server: %v", err)
		}
	})
	return fs
}

func unmount(dir string) error { return unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH) }

// tune sets what FUSE cannot ask for itself: it can lower the read-ahead but not raise it over 128 KiB.
func tune(dir string, o Options) error {
	if o.ReadAhead == 0 && !o.NoDirtyLimit {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	bdi := fmt.Sprintf("/sys/class/bdi/%d:%d/", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)))
	set := func(name string, v int) error { return os.WriteFile(bdi+name, []byte(strconv.Itoa(v)), 0) }
	if o.ReadAhead != 0 {
		if err := set("read_ahead_kb", max(o.ReadAhead, 0)/1024); err != nil {
			return err
		}
	}
	if o.NoDirtyLimit {
		return errors.Join(set("strict_limit", 0), set("max_ratio", 100))
	}
	return nil
}

func errnoOf(err error) (int, bool) {
	if err == nil {
		return 0, true
	}
	var no syscall.Errno
	ok := errors.As(err, &no)
	return int(no), ok
}

func errOf(no int) error {
	if no == 0 {
		return nil
	}
	return syscall.Errno(no)
}
