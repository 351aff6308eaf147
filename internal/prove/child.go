package prove

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// A Body is code that runs in a child process: this test binary, started again. See Register.
type Body struct{ name string }

var (
	bodies  = map[string]func(args []string) int{}
	mainRan bool
)

// Register names code that tests of the package can start as a child. Call it in a package-level variable, so that the
// child registers the same, and have a TestMain that calls Main:
//
//	var holder = prove.Register("holder", func(args []string) int {
//		f, err := mmapio.Open(args[0])
//		…
//		fmt.Println("ready")
//		bufio.NewReader(os.Stdin).ReadString('\n') // until told to end
//		return 0
//	})
//
//	func TestMain(m *testing.M) { prove.Main(m) }
//
//	func TestHolder(t *testing.T) {
//		p := holder.Start(t, prove.Args(path), prove.AsNobody(), prove.Memlock(1<<20))
//		p.Expect("ready")
//		… prove.MappingsOf(t, p.PID(), path) …
//		p.Send("end")
//		if res := p.Wait(); res.Code != 0 { t.Error(res) }
//	}
//
// The child has the package's variables, its flags unparsed. Its result is the exit status; for functions that want a
// testing.TB there is T.
func Register(name string, body func(args []string) int) *Body {
	if bodies[name] != nil {
		panic("prove: two children named " + name)
	}
	bodies[name] = body
	return &Body{name}
}

// Start starts the child. It is killed and waited for when the test ends, and after its timeout.
func (b *Body) Start(t testing.TB, opts ...Option) *Process {
	t.Helper()
	if !mainRan {
		// Without it the child would run all tests, this one too, and so on.
		t.Fatal("this package starts children: it needs func TestMain(m *testing.M) { prove.Main(m) }")
	}
	return start(t, newSpec(&childSpec{Name: b.name}, opts))
}

// Run starts the child, closes its standard input and waits for it.
func (b *Body) Run(t testing.TB, opts ...Option) Result {
	t.Helper()
	p := b.Start(t, opts...)
	p.CloseStdin()
	return p.Wait()
}

// StartCommand starts another program as a child, with the same options; argv[0] is its path. Args are appended. For a
// program in a place that only the owner reaches and AsNobody, see PublicCopy.
func StartCommand(t testing.TB, argv []string, opts ...Option) *Process {
	t.Helper()
	spec := newSpec(&childSpec{}, opts)
	spec.Exec = append(append(spec.Exec, argv...), spec.Args...)
	return start(t, spec)
}

// RunCommand starts another program, closes its standard input and waits for it.
func RunCommand(t testing.TB, argv []string, opts ...Option) Result {
	t.Helper()
	p := StartCommand(t, argv, opts...)
	p.CloseStdin()
	return p.Wait()
}

// A Result is how a child ended.
type Result struct {
	Code   int       // exit status; -1 if a signal ended it
	Signal os.Signal // nil, or what ended it: compare with syscall.SIGKILL
	Output string    // standard output and error, as they came
}

func (r Result) String() string {
	how := fmt.Sprintf("exit status %d", r.Code)
	if r.Signal != nil {
		how = fmt.Sprintf("killed by %v", r.Signal)
	}
	return how + "; output:\n" + r.Output
}

// Unlimited is RLIM_INFINITY.
const Unlimited = ^uint64(0)

// A Resource is what a limit is about.
type Resource string

// The resources. AddressSpace and FileSize are set as late as can be, right before the body; a command meets them as it
// is started.
const (
	LockedMemory Resource = "memlock"
	AddressSpace Resource = "as"
	FileSize     Resource = "fsize"
	OpenFiles    Resource = "nofile"
	CoreSize     Resource = "core"
)

type rlimit struct {
	What       Resource
	Soft, Hard uint64
}

// A childSpec travels to the child in an environment variable.
type childSpec struct {
	Name    string   // of the body, or
	Exec    []string // the program
	Args    []string
	Limits  []rlimit
	Refused []refusal
	UID     int // 0: as it is. No test needs to become root.
	GID     int
	Cgroup  string // its cgroup.procs
	Dropped bool   // the user is changed already, by the process that this one was before

	env     []string
	dir     string
	timeout time.Duration
}

func newSpec(spec *childSpec, opts []Option) *childSpec {
	for _, o := range opts {
		o(spec)
	}
	return spec
}

// An Option is about how a child is started.
type Option func(*childSpec)

// Args are the child's arguments.
func Args(args ...string) Option { return func(s *childSpec) { s.Args = append(s.Args, args...) } }

// Env adds to the child's environment: "NAME=value".
func Env(vars ...string) Option { return func(s *childSpec) { s.env = append(s.env, vars...) } }

// Dir is where the child starts. Default: here, or for AsNobody in a PublicDir.
func Dir(dir string) Option { return func(s *childSpec) { s.dir = dir } }

// Timeout is when the child is killed and the test failed; default a minute.
func Timeout(d time.Duration) Option { return func(s *childSpec) { s.timeout = d } }

// As makes the child run as another user, without capabilities nor further groups, from the very start of the program
// (its /proc files are its own). The test needs root; files for the child belong in a PublicDir.
func As(uid, gid int) Option { return func(s *childSpec) { s.UID, s.GID = uid, gid } }

// AsNobody is As(65534, 65534).
func AsNobody() Option { return As(65534, 65534) }

// Limit sets a resource limit before the body begins. Raising the hard limit takes root; with As it is raised before
// root is given up.
func Limit(what Resource, soft, hard uint64) Option {
	return func(s *childSpec) { s.Limits = append(s.Limits, rlimit{what, soft, hard}) }
}

// Memlock sets RLIMIT_MEMLOCK, soft and hard. It binds only a child that is not root.
func Memlock(limit uint64) Option { return Limit(LockedMemory, limit, limit) }

type refusal struct {
	Call  uintptr
	Errno int
}

// Refuse makes a system call fail with an errno from the beginning of the body on, as the filters of containers do: a
// number of unix.SYS_. It is for a Body, and does nothing for another program.
func Refuse(call uintptr, errno int) Option {
	return func(s *childSpec) { s.Refused = append(s.Refused, refusal{call, errno}) }
}

// In starts the child in the memory cgroup, before it has used any memory of its own to speak of.
func In(c *Cgroup) Option { return func(s *childSpec) { s.Cgroup = c.Dir + "/cgroup.procs" } }

const (
	childEnv      = "MMAPIO_PROVE_CHILD"
	residentChild = "prove: resident"
)

var builtins = map[string]func(args []string) int{residentChild: residentBody}

// childIs is what this process was started as, nil if not as a child.
var childIs *childSpec

// In a child this runs before any test code does: the parts that must come early (the cgroup, the user), and bodies of
// this package's own, for which no TestMain is needed.
func init() { //nolint:gochecknoinits // see above
	text, ok := os.LookupEnv(childEnv)
	if !ok {
		return
	}
	_ = os.Unsetenv(childEnv) // this process's children are not what it is
	childIs = &childSpec{}
	if err := json.Unmarshal([]byte(text), childIs); err != nil {
		childFailed(err)
	}
	if err := prepareChild(childIs); err != nil {
		childFailed(err)
	}
	if body := builtins[childIs.Name]; body != nil {
		os.Exit(body(childIs.Args))
	}
}

// childFailed is status 125, as of env(1) and the like: the failure is not the body's.
func childFailed(err error) {
	fmt.Fprintln(os.Stderr, "prove: cannot prepare the child:", err)
	os.Exit(125)
}

// runChild runs the body, if this is a child. Called from Main, when the package's variables are all set.
func runChild() {
	if childIs == nil {
		return
	}
	body := bodies[childIs.Name]
	if body == nil {
		childFailed(fmt.Errorf("no body %q is registered, there are: %s", childIs.Name, strings.Join(bodyNames(), ", ")))
	}
	watchParent()
	if err := limitChild(childIs.Limits); err != nil {
		childFailed(err)
	}
	if err := refuseCalls(childIs.Refused); err != nil {
		childFailed(err)
	}
	code := body(childIs.Args)
	childT.runCleanups()
	if code == 0 && childT.Failed() {
		code = 1
	}
	os.Exit(code)
}

func bodyNames() []string {
	var names []string
	for name := range bodies {
		names = append(names, name)
	}
	return names
}

// environment is what the child gets. The spec comes last, so that nothing overrides it.
func (s *childSpec) environment() ([]string, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	env := append(os.Environ(), s.env...)
	// With -race a program sleeps a second before it exits, unless told otherwise.
	env = append(env, "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0")
	return append(env, childEnv+"="+string(text)), nil
}
