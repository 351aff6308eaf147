//go:build unix

package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/sys"
)

// command is mmapio in a process of its own. It has no terminal: in the foreground
// of one, that of who runs the tests, an interrupt is taken for Ctrl-C.
var command = prove.Register("mmapio", func(args []string) int {
	_, _ = unix.Setsid() // no child leads a group already
	return Main(context.Background(), args, os.Stdin, os.Stdout, os.Stderr)
})

// heldBy fails the test unless the process has each file mapped once, locked
// and all of it present, as smaps says.
func heldBy(t *testing.T, p *prove.Process, dir string, want map[string]int64) {
	t.Helper()
	seen := map[string]int64{}
	for _, v := range prove.MappingsOf(t, p.PID(), dir) {
		seen[filepath.Base(v.Path)] += v.Size()
		if !v.Has("lo") || v.Rss != v.Size() {
			t.Errorf("not held: %v", v)
		}
	}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("mapped is %v, want %v", seen, want)
	}
}

func TestLockHolds(t *testing.T) {
	needLock(t)
	pg := int64(page)
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		dir := prove.PublicDir(t)
		prove.NewFile(t, dir, "a", 3*pg)
		prove.NewFile(t, dir, "b", 1<<20)
		prove.NewFile(t, dir, "c", 1)
		p := command.Start(t, prove.Args("lock", dir))
		p.Expect("FILE")
		p.Expect(fmt.Sprintf("locked 3 files, %d bytes (%d pages), confirmed by the kernel", 3*pg+1<<20+1, 3+1<<20/pg+1))
		heldBy(t, p, dir, map[string]int64{"a": 3 * pg, "b": 1 << 20, "c": pg})
		p.Signal(sig)
		if res := p.Wait(); res.Code != 0 {
			t.Errorf("%v: %v", sig, res)
		}
	}
}

// nobody has 64 KiB, as users had on older systems.
func nobody(limit uint64, args ...string) []prove.Option {
	return []prove.Option{prove.AsNobody(), prove.Memlock(limit), prove.Args(args...)}
}

func TestLockAsNobody(t *testing.T) {
	needLock(t)
	dir := prove.PublicDir(t)
	prove.NewFile(t, dir, "fits", 64<<10)
	p := command.Start(t, nobody(64<<10, "lock", dir)...)
	p.Expect("locked 1 file, 65536 bytes")
	heldBy(t, p, dir, map[string]int64{"fits": 64 << 10})
	p.Signal(syscall.SIGTERM)
	if res := p.Wait(); res.Code != 0 {
		t.Error(res)
	}
}

// What does not fit is named with all of the numbers, and nothing is locked or
// reported.
func TestLockOverLimit(t *testing.T) {
	dir := prove.PublicDir(t)
	prove.NewFile(t, dir, "a", 48<<10)
	big := prove.NewFile(t, dir, "big", 20<<20)
	for _, limit := range []uint64{0, 64 << 10} {
		for _, verb := range []string{"lock", "check"} {
			res := command.Run(t, nobody(limit, verb, dir)...)
			how := []string{"LimitMEMLOCK=32M", "memlock=33554432", "CAP_IPC_LOCK"}
			if sys.RaiseHint != "" {
				how = []string{"to 32 MiB", sys.RaiseHint}
			}
			for _, want := range append(how, "RLIMIT_MEMLOCK",
				"20 MiB (21020672 bytes)", fmt.Sprintf("soft %d, hard %d", limit, limit)) {
				if res.Code != 1 || !strings.Contains(res.Output, want) {
					t.Errorf("%s with %d: want %q, got %v", verb, limit, want, res)
				}
			}
			if verb == "lock" && (!strings.HasPrefix(res.Output, "mmapio: lock "+big+" [0, 20971520) (") && limit > 0 ||
				strings.Count(res.Output, "\n") != 1) {
				t.Errorf("lock with %d: %v", limit, res)
			}
		}
	}
}

func TestLockRaisesSoftLimit(t *testing.T) {
	needLock(t)
	dir := prove.PublicDir(t)
	prove.NewFile(t, dir, "file", 1<<20)
	soft := prove.Limit(prove.LockedMemory, 64<<10, 2<<20)
	res := command.Run(t, prove.AsNobody(), soft, prove.Args("check", dir))
	if res.Code != 0 || !strings.Contains(res.Output, "lock raises the soft limit by itself") {
		t.Error(res)
	}
	res = command.Run(t, prove.AsNobody(), soft, prove.Args("lock", "--for", "0s", dir))
	if res.Code != 0 || !strings.Contains(res.Output, "locked 1 file, 1048576 bytes") {
		t.Error(res)
	}
}

func TestLockUnreadable(t *testing.T) {
	dir := prove.PublicDir(t)
	prove.NewFile(t, dir, "a", 1)
	for _, name := range []string{"b", "c"} {
		if err := os.Chmod(prove.NewFile(t, dir, name, 1), 0); err != nil {
			t.Fatal(err)
		}
	}
	res := command.Run(t, nobody(64<<10, "lock", dir)...)
	want := fmt.Sprintf("mmapio: open %s/b: permission denied\nmmapio: open %s/c: permission denied\n", dir, dir)
	if res.Code != 1 || res.Output != want {
		t.Errorf("got %v, want %s", res, want)
	}
}

func TestStatusUnknown(t *testing.T) {
	dir := prove.PublicDir(t)
	file := prove.NewFile(t, dir, "roots", 4<<10)
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	res := command.Run(t, prove.AsNobody(), prove.Args("status", dir))
	if res.Code != 0 || strings.Contains(res.Output, "%") || !strings.Contains(res.Output, "? of 1 page in RAM (?)") {
		t.Error(res)
	}
}

func TestCommandStatus(t *testing.T) {
	needLock(t)
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "file"), page)
	for _, tc := range []struct {
		command []string
		code    int
		stdout  string
		stderr  string // the end of it, after the table if there is one
		table   bool
	}{
		{[]string{"sh", "-c", "exit 0"}, 0, "", "", true},
		{[]string{"sh", "-c", "exit 7"}, 7, "", "", true},
		{[]string{"sh", "-c", "kill -KILL $$"}, 137, "", "", true},
		{[]string{"sh", "-c", "cat; echo err >&2; exit 3"}, 3, "from stdin\n", "err\n", true},
		{[]string{"sh", "-c", "echo $0 $1", "--for", "x"}, 0, "--for x\n", "", true},
		{[]string{"no-such-command"}, 127, "", "executable file not found in $PATH\n", false},
		{[]string{dir + "/no"}, 127, "", dir + "/no\": stat " + dir + "/no: no such file or directory\n", false},
		{[]string{file}, 126, "", file + "\": permission denied\n", false},
		{[]string{dir}, 126, "", "is a directory\n", false},
	} {
		got := run(t, append([]string{"lock", file, "--"}, tc.command...)...)
		if got.code != tc.code || got.stdout != tc.stdout || !strings.HasSuffix(got.stderr, tc.stderr) ||
			strings.Contains(got.stderr, "locked 1 file") != tc.table {
			t.Errorf("%q: got %+v, want %+v", tc.command, got, tc)
		}
	}
}

// While the command runs the files are locked, and the signals are its own.
func TestCommandSignals(t *testing.T) {
	needLock(t)
	dir := prove.PublicDir(t)
	prove.NewFile(t, dir, "file", 1<<20)
	for sig, name := range map[os.Signal]string{syscall.SIGTERM: "TERM", os.Interrupt: "INT", syscall.SIGHUP: "HUP"} {
		if signal.Ignored(sig) {
			continue // as under nohup: then it is not the command's either
		}
		script := fmt.Sprintf("trap 'echo got; exit 5' %s; echo ready; while :; do sleep 0.05; done", name)
		p := command.Start(t, prove.Args("lock", dir, "--", "sh", "-c", script))
		p.Expect("ready")
		heldBy(t, p, dir, map[string]int64{"file": 1 << 20})
		p.Signal(sig)
		p.Expect("got")
		if res := p.Wait(); res.Code != 5 {
			t.Errorf("%s: %v", name, res)
		}
	}
}

// --for lets go while the command goes on.
func TestCommandFor(t *testing.T) {
	needLock(t)
	dir := prove.PublicDir(t)
	prove.NewFile(t, dir, "file", 1<<20)
	p := command.Start(t, prove.Args("lock", dir, "--for", "200ms", "--", "sh", "-c", "echo ready; read x; exit 4"))
	p.Expect("ready")
	for deadline := time.Now().Add(10 * time.Second); len(prove.MappingsOf(t, p.PID(), dir)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("still mapped")
		}
	}
	p.Send("x")
	if res := p.Wait(); res.Code != 4 {
		t.Error(res)
	}
}
