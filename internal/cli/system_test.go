package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mmapio/mmapio/internal/prove"
)

// child is mmapio in a process of its own.
var child = prove.Register("mmapio, anywhere", func(args []string) int {
	return Main(context.Background(), args, os.Stdin, os.Stdout, os.Stderr)
})

// TestVerbs runs every verb over a tree on every system, and holds what they
// say to what is known: the table of lock on standard output, sizes, and that
// nothing is claimed that the system does not tell.
func TestVerbs(t *testing.T) {
	needLock(t)
	dir := prove.TempDir(t)
	one := write(t, filepath.Join(dir, "größe", "eins"), 3*page+1)
	two := write(t, filepath.Join(dir, "two"), 1)
	for verb, wants := range map[string][]string{
		"lock":   {one, two, fmt.Sprintf("locked 2 files, %d bytes (5 pages), ", 3*page+2)},
		"status": {one, two, "5 pages"},
		"check":  {"2 files", "5 pages"},
	} {
		args := []string{verb, dir}
		if verb == "lock" {
			args = append(args, "--for", "0s")
		}
		got := run(t, args...)
		for _, want := range wants {
			if got.code != 0 || got.stderr != "" || !strings.Contains(got.stdout, want) {
				t.Errorf("%s: want %q, got %+v", verb, want, got)
			}
		}
	}
}

// TestLockInTheWay: while another process holds a file with "mmapio lock", it
// can be read, and afterwards there is no trace of it.
func TestLockInTheWay(t *testing.T) {
	needLock(t)
	file := write(t, filepath.Join(prove.TempDir(t), "file"), page+1)
	p := child.Start(t, prove.Args("lock", "--for", "1s", file))
	p.Expect("FILE")
	p.Expect("locked 1 file")
	if b, err := os.ReadFile(file); err != nil || len(b) != page+1 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if res := p.Wait(); res.Code != 0 {
		t.Error(res)
	}
	if err := os.Truncate(file, 1); err != nil {
		t.Errorf("it is still mapped: %v", err)
	}
}

// TestLockRunsCommand: the status of the command is passed on, its output is its
// own, and the files are held while it runs.
func TestLockRunsCommand(t *testing.T) {
	needLock(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, filepath.Join(prove.TempDir(t), "file"), page)
	got := run(t, "lock", file, "--", self, "-test.run", "^TestVerbs$")
	if got.code != 0 || !strings.HasSuffix(strings.TrimSpace(got.stdout), "PASS") || !strings.Contains(got.stderr, "locked 1 file") {
		t.Errorf("got %+v", got)
	}
	if got := run(t, "lock", file, "--", self, "-test.nonsense"); got.code != 2 {
		t.Errorf("the status of the command is not passed on: %+v", got)
	}
	if got := run(t, "lock", file, "--", filepath.Join(filepath.Dir(file), "no-such-command")); got.code != 127 {
		t.Errorf("no such command: %+v", got)
	}
	// It is ended when the context is.
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var out strings.Builder
	start := time.Now()
	if code := Main(ctx, []string{"lock", file, "--", self, "-test.run", "^TestSleeps$"}, nil, &out, &out); code == 0 || time.Since(start) > 30*time.Second {
		t.Errorf("status %d after %v: %s", code, time.Since(start), out.String())
	}
}

// TestSleeps is what TestLockRunsCommand has ended, if it is asked for by name.
func TestSleeps(t *testing.T) {
	for _, arg := range os.Args {
		if arg == "^TestSleeps$" {
			time.Sleep(time.Minute)
		}
	}
}
