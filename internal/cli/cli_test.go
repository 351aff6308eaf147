package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mmapio/mmapio/internal/pinner"
	"github.com/mmapio/mmapio/internal/prove"
)

// An outcome is what a user sees of a command.
type outcome struct {
	code           int
	stdout, stderr string
}

func run(t *testing.T, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := Main(t.Context(), args, strings.NewReader("from stdin\n"), &stdout, &stderr)
	return outcome{code, stdout.String(), stderr.String()}
}

func write(t *testing.T, name string, size int) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, bytes.Repeat([]byte("x"), size), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// Wrong usage is status 2, one line that says what is wrong and one that says
// where help is, and nothing on standard output.
func TestUsage(t *testing.T) {
	file := write(t, filepath.Join(prove.TempDir(t), "file"), 1)
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"lock"}, "no PATH given"},
		{[]string{"status"}, "no PATH given"},
		{[]string{"check"}, "no PATH given"},
		{[]string{"lock", ""}, "a PATH is empty"},
		{[]string{"lock", "--", "true"}, "no PATH given"},
		{[]string{"lock", file, "--"}, "no command after --"},
		{[]string{"lock", file, "--for"}, "flag needs an argument: --for"},
		{[]string{"lock", file, "--for", "soon"}, `invalid argument "soon" for "--for" flag`},
		{[]string{"lock", file, "--for", "5"}, `invalid argument "5" for "--for" flag`},
		{[]string{"lock", file, "--for", "-1s"}, "--for -1s: must not be negative"},
		{[]string{"lock", "--nonsense", file}, "unknown flag: --nonsense"},
		{[]string{"status", "--for", "1s", file}, "unknown flag: --for"},
		{[]string{"nonsense"}, `unknown command "nonsense"`},
		{[]string{"--nonsense"}, "unknown flag: --nonsense"},
		{[]string{"help", "nonsense"}, `unknown command "nonsense"`},
		{[]string{"completion", "nonsense"}, `unknown argument "nonsense"`},
		{[]string{"completion", "bash", "more"}, `unknown argument "more"`},
		{[]string{"status", "a\nb", "--\x1b[31m"}, `unknown flag: --\x1b[31m`},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			got := run(t, tc.args...)
			lines := strings.Split(strings.TrimSuffix(got.stderr, "\n"), "\n")
			if got.code != 2 || got.stdout != "" || len(lines) != 2 ||
				!strings.HasPrefix(lines[0], "mmapio: "+tc.want) || !strings.HasPrefix(lines[1], "Try 'mmapio ") {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{[]string{"--help"}, []string{"lock ", "status ", "check ", "completion ", "Exit status"}},
		{[]string{"help", "lock"}, []string{"mmapio lock PATH... [--for D] [-- CMD ARGS...]", "Examples:"}},
		{[]string{"status", "--help"}, []string{"Examples:"}},
		{[]string{"check", "--help"}, []string{"Examples:"}},
		{[]string{"completion", "bash"}, []string{"complete"}},
		{[]string{"__complete", "lock", "--for", ""}, []string{"10m\n"}},
		{[]string{"--version"}, []string{"mmapio version "}},
	} {
		got := run(t, tc.args...)
		for _, want := range tc.want {
			if got.code != 0 || !strings.Contains(got.stdout, want) {
				t.Errorf("%q: want %q, got %+v", tc.args, want, got)
			}
		}
	}
	if got := run(t); got.code != 2 || got.stdout != "" || !strings.Contains(got.stderr, "Usage:") {
		t.Errorf("no arguments: got %+v", got)
	}
}

// Each verb names each path that is missing, once, and fails.
func TestMissing(t *testing.T) {
	dir := prove.TempDir(t)
	file := write(t, filepath.Join(dir, "file"), 1)
	for _, verb := range []string{"lock", "status", "check"} {
		got := run(t, verb, filepath.Join(dir, "no1"), file, filepath.Join(dir, "no2"))
		want := ""
		for _, name := range []string{"no1", "no2"} {
			_, err := os.Stat(filepath.Join(dir, name))
			want += fmt.Sprintf("mmapio: %v\n", err)
		}
		if got.code != 1 || got.stderr != want {
			t.Errorf("%s: got %+v, want %s", verb, got, want)
		}
		if verb == "lock" && got.stdout != "" {
			t.Errorf("lock reported something: %s", got.stdout)
		}
	}
}

// An errWriter is a standard output that is full.
type errWriter struct{}

func (errWriter) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestOutputFails(t *testing.T) {
	file := write(t, filepath.Join(prove.TempDir(t), "file"), 1)
	for _, args := range [][]string{{"status", file}, {"check", file}, {"lock", file}, {"--help"}, {"lock", "--help"}, {"--version"}} {
		if args[0] == "lock" && args[1] == file {
			needLock(t)
		}
		var stderr bytes.Buffer
		code := Main(t.Context(), args, nil, errWriter{}, &stderr)
		if code != 1 || !strings.HasSuffix(stderr.String(), "no space left\n") {
			t.Errorf("%s: got %d, %s", args[0], code, stderr.String())
		}
	}
}

func TestTable(t *testing.T) {
	var tab table
	tab.row("NAME", "N")
	tab.row("ä", "1")
	tab.row("long one", "234")
	var out strings.Builder
	if err := tab.write(&out); err != nil {
		t.Fatal(err)
	}
	want := "NAME        N\nä           1\nlong one  234\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestFileName(t *testing.T) {
	for name, want := range map[string]string{
		"plain": "plain", "with blank": "with blank", "äöü": "äöü",
		"line\nbreak": `"line\nbreak"`, "\x1b[31mred": `"\x1b[31mred"`, "\xff": `"\xff"`,
	} {
		if got := fileName(name); got != want {
			t.Errorf("%q: got %s, want %s", name, got, want)
		}
	}
}

// A message is one line and does nothing to a terminal, whatever a file's name.
func TestPrintable(t *testing.T) {
	for message, want := range map[string]string{
		`open "a b": äöü \x1b`: `open "a b": äöü \x1b`,
		"stat a\nmmapio: b":    `stat a\nmmapio: b`,
		"stat \x1b[31m\xff":    `stat \x1b[31m\xff`,
	} {
		if got := printable(message); got != want {
			t.Errorf("%q: got %s, want %s", message, got, want)
		}
	}
	if got := run(t, "status", "no\nsuch"); got.code != 1 || strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("got %+v", got)
	}
}

// What check says of a file stands on one line as well, and changes no terminal.
func TestReportPrintable(t *testing.T) {
	const odd = "/a\nb\x1b[31m"
	var out strings.Builder
	err := printReport(&out, &pinner.Report{Requirements: []pinner.Requirement{
		{Name: "tmpfs of " + odd, Need: 2, Have: 1, Verdict: pinner.Refused, Fact: "has 1 B left", Remedy: "make room"},
		{Name: "cgroup", Need: pinner.Unknown, Have: pinner.Unknown, Verdict: pinner.Doubtful, Fact: "cannot be read: " + odd},
	}})
	if lines := strings.Count(out.String(), "\n"); err != nil || lines != 6 || strings.Contains(out.String(), "\x1b") {
		t.Errorf("%d lines, %v: %q", lines, err, out.String())
	}
}

// All and nothing are never said of less and of more.
func TestPercent(t *testing.T) {
	for _, tc := range []struct {
		part, whole int64
		want        string
	}{
		{-1, 10, "?"},
		{0, 0, "-"},
		{0, 10, "0.0 %"},
		{5, 10, "50.0 %"},
		{10, 10, "100.0 %"},
		{1, 1 << 30, "<0.1 %"},
		{1<<30 - 1, 1 << 30, ">99.9 %"},
	} {
		if got := percent(tc.part, tc.whole); got != tc.want {
			t.Errorf("%d of %d: got %s, want %s", tc.part, tc.whole, got, tc.want)
		}
	}
}
