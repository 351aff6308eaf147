package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/mmapio/mmapio/internal/prove"
)

// needLock skips where pages cannot be locked at all.
func needLock(t *testing.T) {
	t.Helper()
	switch runtime.GOOS {
	case "js", "wasip1", "plan9", "solaris", "illumos", "aix":
		t.Skip("no page locking on " + runtime.GOOS)
	case "linux":
		prove.Need(t, prove.Verify) // without which no lock is reported as held
	}
}

var page = prove.PageSize()

func TestLockReport(t *testing.T) {
	prove.Need(t, prove.Linux)
	dir := prove.TempDir(t)
	one := write(t, filepath.Join(dir, "one"), 1)
	three := write(t, filepath.Join(dir, "sub", "three"), 2*page+1)
	empty := write(t, filepath.Join(dir, "zero"), 0)

	got := run(t, "lock", "--for", "0s", dir, one)
	var tab table
	tab.row("FILE", "SIZE", "PAGES", "LOCKED")
	tab.row(one, "1 B", "1", "1 B")
	tab.row(three, size(int64(2*page+1)), "3", size(int64(2*page+1)))
	tab.row(empty, "0 B", "0", "0 B")
	tab.row("total", size(int64(2*page+2)), "4", size(int64(2*page+2)))
	var want strings.Builder
	if err := tab.write(&want); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&want, "locked 3 files, %d bytes (4 pages), confirmed by the kernel\n", 2*page+2)
	if got != (outcome{0, want.String(), ""}) {
		t.Errorf("got %+v, want\n%s", got, want.String())
	}
	if all := prove.MappingsOf(t, 0, dir); len(all) != 0 {
		t.Errorf("still mapped: %v", all)
	}
}

// Where a file system is not mounted there is nothing that could be locked, nor that
// fits.
func TestNoFiles(t *testing.T) {
	dir := prove.TempDir(t)
	for _, args := range [][]string{{"lock", "--for", "0s", dir}, {"check", dir}} {
		if got := run(t, args...); got.code != 1 || got.stdout != "" || !strings.Contains(got.stderr, "no regular file below "+dir) {
			t.Errorf("%v: got %+v", args, got)
		}
	}
	if got := run(t, "status", dir); got.code != 0 {
		t.Errorf("status: got %+v", got)
	}
}

// The time counts from when everything is locked.
func TestLockFor(t *testing.T) {
	needLock(t)
	file := write(t, filepath.Join(prove.TempDir(t), "file"), 1)
	start := time.Now()
	if got := run(t, "lock", file, "--for=300ms"); got.code != 0 {
		t.Errorf("got %+v", got)
	}
	if took := time.Since(start); took < 300*time.Millisecond {
		t.Errorf("held for %v only", took)
	}
}

func TestLockEndsWithContext(t *testing.T) {
	needLock(t)
	file := write(t, filepath.Join(prove.TempDir(t), "file"), 1)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var out strings.Builder
	if code := Main(ctx, []string{"lock", file}, nil, &out, &out); code != 0 {
		t.Errorf("got %d, %s", code, out.String())
	}
}

func TestLockInterruptedBefore(t *testing.T) {
	file := write(t, filepath.Join(prove.TempDir(t), "file"), 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, stderr strings.Builder
	code := Main(ctx, []string{"lock", file}, nil, &out, &stderr)
	if code != 1 || out.String() != "" || !strings.Contains(stderr.String(), "interrupted before everything was locked") {
		t.Errorf("got %d, %s%s", code, out.String(), stderr.String())
	}
}
