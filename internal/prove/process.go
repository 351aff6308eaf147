package prove

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Process is a child that runs.
type Process struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	life  *os.File // this end of the pipe by which the child sees that its parent is gone
	out   *tape

	done     chan struct{} // closed when it was waited for
	result   Result
	timedOut bool
	timeout  time.Duration
}

func start(t testing.TB, spec *childSpec) *Process {
	t.Helper()
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" || runtime.GOOS == "ios" {
		t.Skipf("%s starts no processes", runtime.GOOS)
	}
	if canPrepare || spec.UID != 0 || spec.Cgroup != "" || len(spec.Limits) > 0 {
		Need(t, Children)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if spec.UID != 0 {
		Need(t, Root)
		self = PublicCopy(t, self)
		if spec.dir == "" {
			spec.dir = filepath.Dir(self)
		}
	}
	if overHard(spec.Limits) {
		Need(t, RaiseHard)
	}
	if spec.timeout == 0 {
		spec.timeout = time.Minute
	}
	p := &Process{t: t, cmd: exec.Command(self), out: newTape(), done: make(chan struct{}), timeout: spec.timeout}
	p.cmd.Dir = spec.dir
	if p.cmd.Env, err = spec.environment(); err != nil {
		t.Fatal(err)
	}
	if len(spec.Exec) > 0 && !canPrepare {
		// Nothing to prepare, and no exec to become the program by: start it itself.
		p.cmd = exec.Command(spec.Exec[0], spec.Exec[1:]...)
		p.cmd.Dir, p.cmd.Env = spec.dir, append(os.Environ(), spec.env...)
	}
	p.cmd.Stdout, p.cmd.Stderr = p.out, tapeErr{p.out}
	p.cmd.WaitDelay = 5 * time.Second // a grandchild may hold the pipes open
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	theirs := p.lifeline()
	err = p.cmd.Start()
	if theirs != nil {
		_ = theirs.Close()
	}
	if err != nil {
		p.cut()
		t.Fatalf("start a child: %v", err)
	}
	go p.wait()
	t.Cleanup(func() {
		p.Kill()
		<-p.done
	})
	return p
}

// lifeline gives the child descriptor 3, which ends when this process does.
func (p *Process) lifeline() (theirs *os.File) {
	if !canPrepare {
		return nil
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	p.life = ours
	p.cmd.ExtraFiles = []*os.File{theirs}
	return theirs
}

func (p *Process) cut() {
	if p.life != nil {
		_ = p.life.Close()
	}
}

func (p *Process) wait() {
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	var err error
	select {
	case err = <-ended:
	case <-time.After(p.timeout):
		p.timedOut = true
		askForStacks(p.cmd.Process)
		select {
		case err = <-ended:
		case <-time.After(2 * time.Second):
			p.Kill()
			err = <-ended
		}
	}
	p.cut()
	p.result = Result{Code: p.cmd.ProcessState.ExitCode(), Signal: endedBy(p.cmd.ProcessState), Output: p.out.end()}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.result.Output += "\n" + err.Error()
	}
	close(p.done)
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Kill kills it; nothing happens if it has ended.
func (p *Process) Kill() { _ = p.cmd.Process.Kill() }

// Signal sends it a signal.
func (p *Process) Signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("signal %v: %v", sig, err)
	}
}

// Send writes a line to its standard input.
func (p *Process) Send(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		p.t.Fatalf("the child does not listen: %v; it said:\n%s", err, p.out.text())
	}
}

// CloseStdin ends its standard input.
func (p *Process) CloseStdin() { _ = p.stdin.Close() }

// Line is the next line of its standard output; false when there is no further one.
func (p *Process) Line() (string, bool) { return p.out.line() }

// Expect passes over lines of its standard output up to one that begins with prefix, and returns the rest of that. The
// test fails if it ends before.
func (p *Process) Expect(prefix string) string {
	p.t.Helper()
	for {
		line, ok := p.Line()
		if !ok {
			<-p.done
			p.t.Fatalf("the child never said %q: %v", prefix, p.result)
		}
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
}

// Wait waits for it to end. The test fails if it must be killed after its timeout.
func (p *Process) Wait() Result {
	p.t.Helper()
	<-p.done
	if p.timedOut {
		p.t.Fatalf("the child did not end within %v: %v", p.timeout, p.result)
	}
	return p.result
}

// PublicCopy is the program at path in a place that every user reaches, until the end of the test.
func PublicCopy(t testing.TB, path string) string {
	t.Helper()
	to := filepath.Join(PublicDir(t), filepath.Base(path))
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm()&0o005 == 0o005 && os.Link(path, to) == nil {
		return to
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, program, 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	if err := os.Chmod(to, 0o755); err != nil { //nolint:gosec // whatever the umask
		t.Fatal(err)
	}
	return to
}

// A tape keeps all that a child prints, and hands out the lines of its standard output.
type tape struct {
	mu      sync.Mutex
	changed *sync.Cond
	all     bytes.Buffer
	lines   []string
	partial string
	ended   bool
}

func newTape() *tape {
	t := &tape{}
	t.changed = sync.NewCond(&t.mu)
	return t
}

func (t *tape) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all.Write(b)
	lines := strings.Split(t.partial+string(b), "\n")
	t.partial = lines[len(lines)-1]
	t.lines = append(t.lines, lines[:len(lines)-1]...)
	t.changed.Broadcast()
	return len(b), nil
}

// tapeErr is standard error: kept, but no lines.
type tapeErr struct{ t *tape }

func (e tapeErr) Write(b []byte) (int, error) {
	e.t.mu.Lock()
	defer e.t.mu.Unlock()
	return e.t.all.Write(b)
}

// line waits without a limit of its own: the child has one, and its end is the tape's.
func (t *tape) line() (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.lines) == 0 && !t.ended {
		t.changed.Wait()
	}
	if len(t.lines) == 0 {
		return "", false
	}
	line := t.lines[0]
	t.lines = t.lines[1:]
	return line, true
}

func (t *tape) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all.String()
}

func (t *tape) end() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.partial != "" {
		t.lines = append(t.lines, t.partial)
		t.partial = ""
	}
	t.ended = true
	t.changed.Broadcast()
	return t.all.String()
}
