//go:build !(386 || arm || mips || mipsle)

package slowfs

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

const helper = "MMAPIO_SLOWFS_HELPER"

// gone waits a little for the process and the mount to disappear.
func gone(t *testing.T, pid int, dir string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		ok(t, err)
		mounted := strings.Contains(string(mounts), dir+" ")
		if unix.Kill(pid, 0) == unix.ESRCH && !mounted {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("server %d: kill says %v; %s still mounted: %v", pid, unix.Kill(pid, 0), dir, mounted)
		}
	}
}

func TestNothingIsLeft(t *testing.T) {
	none := goleak.IgnoreCurrent()
	fds := descriptors(t)
	var pid int
	var dir string
	t.Run("busy", func(t *testing.T) {
		fs := Start(t, Options{})
		pid, dir = fs.PID(), fs.Dir()
		fs.AddFile("f", 1<<20, Offsets)
		f, err := os.OpenFile(fs.Path("f"), os.O_RDWR, 0)
		ok(t, err)
		m, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		ok(t, err)
		m[0] = 1 // dirty, and everything that would write it is held
		fs.Hold(OpWrite, "")
		fs.Hold(OpRead, "")
		stuck := make(chan error)
		go func() {
			_, err := f.ReadAt(make([]byte, 1), 512<<10)
			stuck <- err
		}()
		fs.WaitHeld(1)
		fs.Stop()
		fs.Stop()
		if err := <-stuck; err == nil {
			t.Error("a read that was held succeeded when the server went")
		}
		ok(t, unix.Munmap(m))
		_ = f.Close() // may well report that its server is gone
	})
	if t.Failed() || pid == 0 {
		return // and says so, or has no FUSE
	}
	gone(t, pid, dir)
	goleak.VerifyNone(t, none)
	if n := descriptors(t); n > fds {
		t.Errorf("%d descriptors before, %d after", fds, n)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	ok(t, err)
	return len(list)
}

// TestHelper is the test that fails, panics or dies in the tests below.
func TestHelper(t *testing.T) {
	how := os.Getenv(helper)
	if how == "" {
		return // a part of TestLeftAlone
	}
	fs := Start(t, Options{})
	fs.AddFile("f", 4096, Offsets)
	f, err := os.OpenFile(fs.Path("f"), os.O_RDWR, 0)
	ok(t, err)
	m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	ok(t, err)
	m[0] = 1
	fs.Hold(OpWrite, "")
	fmt.Printf("\nSERVER %d %s\n", fs.PID(), fs.Dir())
	switch how {
	case "fail":
		t.Fatal("on purpose")
	case "panic":
		panic("on purpose")
	case "exit":
		os.Exit(3)
	case "kill":
		ok(t, unix.Kill(os.Getpid(), unix.SIGKILL))
		select {}
	}
}

func TestLeftAlone(t *testing.T) {
	Start(t, Options{}).Stop() // skips where nothing can be served
	for _, how := range []string{"fail", "panic", "exit", "kill"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestHelper$")
			cmd.Env = append(os.Environ(), helper+"="+how, "TMPDIR="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatalf("the helper was to fail, but: %s", out)
			}
			var pid int
			var dir string
			for sc := bufio.NewScanner(strings.NewReader(string(out))); sc.Scan(); {
				_, _ = fmt.Sscanf(sc.Text(), "SERVER %d %s", &pid, &dir) // most lines are others
			}
			if pid == 0 {
				t.Fatalf("no server: %s", out)
			}
			gone(t, pid, dir)
		})
	}
}
