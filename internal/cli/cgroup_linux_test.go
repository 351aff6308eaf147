package cli

import (
	"strings"
	"testing"

	"github.com/mmapio/mmapio/internal/prove"
)

// What goes over a cgroup's limit the kernel answers with SIGKILL: it is
// refused in good time, and says which cgroup.
func TestLockOverCgroup(t *testing.T) {
	group := prove.MemoryCgroup(t, 64<<20)
	dir := prove.DiskDir(t)
	prove.NewFile(t, dir, "fits", 8<<20)
	prove.NewFile(t, dir, "too-much", 80<<20)
	prove.DropCaches(t)
	for _, verb := range []string{"check", "lock"} {
		res := command.Run(t, prove.In(group), prove.Args(verb, dir))
		for _, want := range []string{"cgroup " + group.Dir, "64 MiB (67108864)", "would kill the process", "MemoryMax="} {
			if res.Code != 1 || !strings.Contains(res.Output, want) {
				t.Errorf("%s: want %q, got %v", verb, want, res)
			}
		}
	}
	res := command.Run(t, prove.In(group), prove.Args("lock", "--for", "0s", dir+"/fits"))
	if res.Code != 0 || !strings.Contains(res.Output, "locked 1 file, 8388608 bytes") {
		t.Error(res)
	}
}
