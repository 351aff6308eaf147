package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// ignored returns which of four signals are ignored, as /proc/PID/status says.
func ignored(t *testing.T, status string) uint64 {
	t.Helper()
	_, rest, _ := strings.Cut(status, "SigIgn:\t")
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(line, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return mask & (bit(syscall.SIGINT) | bit(syscall.SIGQUIT) | bit(syscall.SIGHUP) | bit(syscall.SIGTERM))
}

func bit(sig syscall.Signal) uint64 { return 1 << (sig - 1) }

// A signal ends a lock that waits for a page, once that has come. The next one
// does not wait. (Where no system call brings pages in, the wait is a page fault: whoever
// has to stop all goroutines then, as the collector, keeps the signal from being seen.)
func TestSecondSignalEndsAtOnce(t *testing.T) {
	prove.Need(t, prove.Advice)
	disk := slowfs.Start(t, slowfs.Options{})
	disk.AddFile("f", 1<<20, slowfs.Offsets)
	release := disk.Hold(slowfs.OpRead, "f")
	defer release()
	p := command.Start(t, prove.Args("lock", disk.Path("f")))
	disk.WaitHeld(1)
	process, err := os.FindProcess(p.PID())
	if err != nil {
		t.Fatal(err)
	}
	// How many it takes until the first has been seen is not to be had.
	for range 600 {
		if process.Signal(syscall.SIGTERM) != nil {
			break // it has ended
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.Kill()
	if res := p.Wait(); !strings.Contains(res.String(), "terminated") {
		t.Error(res)
	}
}

// The command has the standard output that mmapio was given, and what it leaves
// behind is not waited for.
func TestCommandOutputIsItsOwn(t *testing.T) {
	needLock(t)
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "file"), 1)
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	const script = "readlink /proc/self/fd/1; sleep 20 2>/dev/null & echo $!; exit 7"
	var stderr bytes.Buffer
	code := Main(t.Context(), []string{"lock", file, "--", "sh", "-c", script}, os.Stdin, out, &stderr)
	said, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	to, left, _ := strings.Cut(strings.TrimSpace(string(said)), "\n")
	if code != 7 || to != out.Name() {
		t.Errorf("status %d, its standard output is %s: %s", code, to, stderr.String())
	}
	pid, err := strconv.Atoi(left)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("what it left behind was waited for: %v", err)
	}
}

// What is ignored stays ignored, in the command too: a shell starts what comes
// before & so.
func TestIgnoredSignalsStayIgnored(t *testing.T) {
	prove.Need(t, prove.Linux)
	needLock(t)
	file := write(t, filepath.Join(t.TempDir(), "file"), 1)
	bin := filepath.Join(t.TempDir(), "mmapio")
	if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/mmapio").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	statusOf := func(script string) string {
		t.Helper()
		out, err := exec.Command("sh", "-c", script).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	already := ignored(t, statusOf("cat /proc/self/status")) // under nohup
	for script, want := range map[string]uint64{
		"%s":               0,
		"%s & wait":        bit(syscall.SIGINT) | bit(syscall.SIGQUIT),
		"trap '' INT; %s":  bit(syscall.SIGINT) | bit(syscall.SIGQUIT),
		"trap '' HUP; %s":  bit(syscall.SIGHUP),
		"trap '' TERM; %s": 0, // the Go runtime takes it over at the start
	} {
		script = fmt.Sprintf(script, bin+" lock "+file+" -- cat /proc/self/status 2>/dev/null")
		if got := ignored(t, statusOf(script)); got != want|already {
			t.Errorf("%s: signals %#x are ignored, want %#x", script, got, want|already)
		}
	}
}

func TestSignalsReachTheCommand(t *testing.T) {
	needLock(t)
	file := write(t, filepath.Join(prove.PublicDir(t), "file"), 1)
	for name, sig := range map[string]syscall.Signal{
		"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "TERM": syscall.SIGTERM,
		"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "ALRM": syscall.SIGALRM, "WINCH": syscall.SIGWINCH,
	} {
		if signal.Ignored(sig) {
			continue // no shell can trap it then
		}
		script := fmt.Sprintf("trap 'exit 5' %s; echo ready; for i in $(seq 100); do sleep 0.1; done", name)
		p := command.Start(t, prove.Args("lock", file, "--", "sh", "-c", script))
		p.Expect("ready")
		p.Signal(sig)
		if res := p.Wait(); res.Code != 5 {
			t.Errorf("%s: %v", name, res)
		}
	}
}

// signalling sends this process a signal once the table is there, and then keeps
// the processor for a while.
type signalling struct{ then time.Duration }

func (s signalling) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("locked 1 file")) {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			return 0, err
		}
		for start := time.Now(); time.Since(start) < s.then; {
		}
	}
	return len(p), nil
}

// A signal right before the command starts is told, or passed on.
func TestNoSignalIsLost(t *testing.T) {
	needLock(t)
	other := make(chan os.Signal, 1) // who does not listen ends by it
	signal.Notify(other, syscall.SIGTERM)
	defer signal.Stop(other)
	file := write(t, filepath.Join(t.TempDir(), "file"), 1)
	told, passed := 0, 0
	for i := range 400 {
		args := []string{"lock", file, "--", "sleep", "0.2"}
		switch code := Main(t.Context(), args, os.Stdin, io.Discard, signalling{time.Duration(i%40) * time.Microsecond}); code {
		case exitFailed:
			told++
		case exitSignal + int(syscall.SIGTERM):
			passed++
		default:
			t.Fatalf("status %d after a signal, %d were told before and %d passed on", code, told, passed)
		}
	}
	t.Logf("%d told, %d passed on", told, passed)
}
