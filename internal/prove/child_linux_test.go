package prove

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	echoBody = Register("echo", func(args []string) int {
		fmt.Println("args", strings.Join(args, "|"))
		fmt.Fprintln(os.Stderr, "to stderr")
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			fmt.Println("heard", in.Text(), os.Getenv("PROVE_TEST"))
		}
		code, _ := strconv.Atoi(args[0])
		return code
	})
	hangBody = Register("hang", func([]string) int { select {} })
	whoBody  = Register("who", func(args []string) int {
		t := T()
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(status)) {
			for _, want := range []string{"Uid:", "Gid:", "Groups:", "CapEff:", "CapPrm:"} {
				if strings.HasPrefix(line, want) {
					fmt.Println(strings.Join(strings.Fields(line), " "))
				}
			}
		}
		for _, r := range []Resource{LockedMemory, AddressSpace, FileSize, OpenFiles} {
			var l unix.Rlimit
			if err := unix.Getrlimit(resources[r], &l); err != nil {
				t.Fatal(err)
			}
			fmt.Println(r, l.Cur, l.Max)
		}
		return 0
	})
	lockBody = Register("lock", func(args []string) int {
		n, _ := strconv.Atoi(args[0])
		b := mapped(T(), -1, n*pageSize, rw, private)
		fill(b)
		if err := syscall.Mlock(b); err != nil {
			fmt.Println("errno", int(err.(syscall.Errno))) //nolint:errorlint,forcetypeassert // straight from the system call
			AssertNotHeld(T(), b)
			return 0
		}
		AssertHeld(T(), b)
		fmt.Println("locked", VmLck(T(), 0))
		return 0
	})
	failBody = Register("fail", func(args []string) int {
		T().Cleanup(func() { fmt.Println("cleaned up") })
		if args[0] == "fatal" {
			T().Fatalf("no %s", "way")
		}
		T().Errorf("no %s", "way")
		return 0
	})
	// orphanBody starts a child of its own and dies without a word to it.
	orphanBody = Register("orphan", func([]string) int {
		t := T()
		env, err := (&childSpec{Name: "hang"}).environment()
		if err != nil {
			t.Fatal(err)
		}
		read, _, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env, cmd.ExtraFiles = env, []*os.File{read}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		fmt.Println("grandchild", cmd.Process.Pid)
		time.Sleep(200 * time.Millisecond)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	})
)

func TestChildTalks(t *testing.T) {
	Need(t, Linux)
	LeakCheck(t)
	p := echoBody.Start(t, Args("3", "a b", `"`), Env("PROVE_TEST=x"))
	if got := p.Expect("args"); got != `3|a b|"` {
		t.Errorf("args %q", got)
	}
	p.Send("hello")
	if got := p.Expect("heard"); got != "hello x" {
		t.Errorf("heard %q", got)
	}
	p.CloseStdin()
	res := p.Wait()
	if res.Code != 3 || res.Signal != nil || !strings.Contains(res.Output, "to stderr\n") {
		t.Error(res)
	}
	if line, ok := p.Line(); ok {
		t.Errorf("after the end: %q", line)
	}
	fails(t, `never said "more"`, func(t testing.TB) { p.t = t; p.Expect("more") })
}

func TestChildIsKilled(t *testing.T) {
	Need(t, Linux)
	p := hangBody.Start(t)
	p.Kill()
	if res := p.Wait(); res.Signal != syscall.SIGKILL || res.Code != -1 {
		t.Error(res)
	}
	p = hangBody.Start(t, Timeout(2*time.Second)) // by then it is up, also on a busy machine
	fails(t, "did not end within 2s", func(t testing.TB) { p.t = t; p.Wait() })
	if !strings.Contains(p.result.Output, "goroutine") {
		t.Errorf("it does not say where it hangs: %v", p.result)
	}
	var pid int
	t.Run("by the end of the test", func(t *testing.T) { pid = hangBody.Start(t).PID() })
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH { //nolint:errorlint // straight from the system call
		t.Errorf("process %d still there: %v", pid, err)
	}
}

func TestGrandchildEndsWithItsParent(t *testing.T) {
	Need(t, Linux)
	p := orphanBody.Start(t)
	pid, err := strconv.Atoi(p.Expect("grandchild"))
	if err != nil {
		t.Fatal(err)
	}
	if res := p.Wait(); res.Signal != syscall.SIGKILL {
		t.Error(res)
	}
	for deadline := time.Now().Add(10 * time.Second); running(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("process %d outlived its parent", pid)
		}
	}
}

// running is false of a zombie too, whose new parent may not care.
func running(pid int) bool {
	stat, err := os.ReadFile(procFile(pid, "stat"))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestChildFails(t *testing.T) {
	Need(t, Linux)
	for _, how := range []string{"fatal", "error"} {
		if res := failBody.Run(t, Args(how)); res.Code != 1 || res.Output != "no way\ncleaned up\n" && res.Output != "cleaned up\nno way\n" {
			t.Errorf("%s: %v", how, res)
		}
	}
	if res := start(t, &childSpec{Name: "nobody knows"}).Wait(); res.Code != 125 || !strings.Contains(res.Output, "echo") {
		t.Error(res)
	}
}

func TestLimitsOfOwnUser(t *testing.T) {
	Need(t, Linux)
	out := whoBody.Run(t, Limit(OpenFiles, 50, 60), Limit(FileSize, 1<<20, 2<<20), Limit(AddressSpace, 1<<40, 1<<41)).Output
	for _, want := range []string{"nofile 50 60\n", "fsize 1048576 2097152\n", "as 1099511627776 2199023255552\n"} {
		if strconv.IntSize == 64 && !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
}

func TestNobody(t *testing.T) {
	Need(t, Root)
	LeakCheck(t)
	res := whoBody.Run(t, AsNobody(), Memlock(12345<<8))
	for _, want := range []string{
		"Uid: 65534 65534 65534 65534\n", "Gid: 65534 65534 65534 65534\n", "Groups:\n", "CapEff: 0000000000000000\n",
		"CapPrm: 0000000000000000\n", "memlock 3160320 3160320\n",
	} {
		if !strings.Contains(res.Output, want) {
			t.Errorf("want %q in %v", want, res)
		}
	}
}

// The three answers of a limit, which only a child without privilege ever sees.
func TestNobodyMeetsTheLimit(t *testing.T) {
	Need(t, Root, Pagemap)
	page := uint64(pageSize)
	for limit, want := range map[uint64]string{
		0: fmt.Sprint("errno ", int(syscall.EPERM)), 3 * page: fmt.Sprint("errno ", int(syscall.ENOMEM)),
		4 * page: fmt.Sprint("locked ", 4*page), 8 * page: fmt.Sprint("locked ", 4*page),
	} {
		if res := lockBody.Run(t, AsNobody(), Memlock(limit), Args("4")); res.Code != 0 || strings.TrimSpace(res.Output) != want {
			t.Errorf("limit %d: %v; want %s", limit, res, want)
		}
	}
	if res := lockBody.Run(t, Memlock(0), Args("4")); !strings.HasPrefix(res.Output, "locked") {
		t.Errorf("root is not bound: %v", res)
	}
}

func TestRaiseHardLimitForNobody(t *testing.T) {
	Need(t, Linux, Root)
	if Missing(RaiseHard) != "" {
		t.Setenv(E2EEnv, "1") // refused before anything is started
		fails(t, RaiseHard.String(), func(t testing.TB) { whoBody.Run(t, AsNobody(), Memlock(1<<30)) })
		return
	}
	if res := whoBody.Run(t, AsNobody(), Memlock(1<<30)); !strings.Contains(res.Output, "memlock 1073741824 1073741824\n") {
		t.Error(res)
	}
}

func TestCommand(t *testing.T) {
	Need(t, Linux)
	p := StartCommand(t, []string{"/bin/cat"}, Args("-"))
	p.Send("hello")
	if line, ok := p.Line(); line != "hello" || !ok {
		t.Errorf("%q", line)
	}
	p.CloseStdin()
	if res := p.Wait(); res.Code != 0 {
		t.Error(res)
	}
	if res := RunCommand(t, []string{"/bin/sh", "-c"}, Args("ulimit -n; env | grep MMAPIO_PROVE; test -e /proc/$$/fd/3 && echo lifeline; exit 4"), Limit(OpenFiles, 77, 77)); res.Code != 4 || res.Output != "77\n" {
		t.Error(res)
	}
	if res := RunCommand(t, []string{"/no/such/program"}); res.Code != 125 || !strings.Contains(res.Output, "/no/such/program") {
		t.Error(res)
	}
	if os.Geteuid() == 0 {
		if res := RunCommand(t, []string{"/bin/sh", "-c", "id -u; id -G; pwd; touch x"}, AsNobody()); res.Code != 0 || !strings.HasPrefix(res.Output, "65534\n65534\n/") {
			t.Error(res)
		}
	}
}

func TestPublicDir(t *testing.T) {
	Need(t, Root)
	path := NewFile(t, PublicDir(t), "f", 3)
	if res := RunCommand(t, []string{"/bin/cat", path}, AsNobody()); res.Output != "0  " {
		t.Error(res)
	}
	private := NewFile(t, t.TempDir(), "f", 3)
	if res := RunCommand(t, []string{"/bin/cat", private}, AsNobody()); res.Code == 0 {
		t.Log("t.TempDir is reachable, too") // if TMPDIR and umask are generous
	}
}
