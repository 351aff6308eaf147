package pinner

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio/internal/prove"
)

// chrooted looks at the machine from a directory with nothing in it.
var chrooted = prove.Register("look", func(args []string) int {
	t := prove.T()
	if err := unix.Chroot(args[0]); err != nil {
		t.Fatal(err)
	}
	m := look()
	if l := m.memlock; l == nil || l.Soft != 1<<20 || l.Hard != 1<<20 || l.InUse != -1 {
		t.Errorf("RLIMIT_MEMLOCK is %+v, want 1 MiB", l)
	}
	for _, d := range m.doubts {
		if d.Name == "RLIMIT_MEMLOCK" {
			t.Error(d.Fact)
		}
	}
	return 0
})

// The limit is known without /proc, and so no matter of doubt.
func TestLookWithoutProc(t *testing.T) {
	prove.Need(t, prove.Root)
	if res := chrooted.Run(t, prove.Memlock(1<<20), prove.Args(t.TempDir())); res.Code != 0 {
		t.Error(res)
	}
}

// What lock refuses because its file system maps no files does not fit.
func TestCheckUnmappable(t *testing.T) {
	prove.Need(t, prove.Linux)
	good := prove.NewFile(t, t.TempDir(), "good", 1)
	for _, path := range []string{"/proc/self/maps", "/proc/uptime", "/sys/kernel/mm/ksm/run"} {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		_, lock := Hold(t.Context(), []File{{Path: path}})
		report, err := Check(t.Context(), []File{{Path: good}, {Path: path}})
		if err == nil || lock == nil || err.Error() != lock.Error() || !strings.Contains(err.Error(), path+": ") {
			t.Errorf("%s: check says %v, lock %v", path, err, lock)
		}
		if report.Files != 1 {
			t.Errorf("%s: of %d files %+v", path, report.Files, report)
		}
	}
}
