package limits

import (
	"path"
	"strings"
	"testing"
)

// FuzzTree gives the whole of the package files that need not be in order: it
// may refuse them, and must neither panic nor return what makes no sense.
func FuzzTree(f *testing.F) {
	f.Add("4:memory:/a\n0::/b\n", mountsHybrid, "hierarchical_memory_limit 9\ntotal_inactive_file 1\ntotal_active_file 2\n", "9223372036854771712\n", "VmLck:\t1 kB\nCapEff:\tf\n")
	f.Add("0::/../x\n", mountsV2, "inactive_file 1\nactive_file 2\n", "max\n", "Max locked memory 1 unlimited bytes\n")
	f.Add("0::/\n", "1 1 0:1 /../.. /x\\040y rw - cgroup2 c rw\n", "", "", "MemTotal: 1 kB\nMemAvailable: 9007199254740991 kB\nSwapFree: 9007199254740991 kB\n")
	f.Fuzz(func(t *testing.T, cgroup, mounts, stat, limit, status string) {
		files := map[string]string{
			"/proc/self/cgroup": cgroup, "/proc/self/mountinfo": mounts,
			"/proc/self/limits": status, "/proc/self/status": status, "/proc/meminfo": status,
		}
		for _, dir := range []string{m, m + "/a", u, u + "/unified", u + "/unified/b"} {
			for name, text := range map[string]string{
				"memory.limit_in_bytes": limit, "memory.usage_in_bytes": "12\n",
				"memory.max": limit, "memory.current": "12\n", "memory.stat": stat, "cgroup.procs": pid + "\n",
			} {
				files[dir+"/"+name] = text
			}
		}
		r := tree(files)
		groups, err := r.cgroups()
		if err != nil && groups != nil {
			t.Errorf("%v beside the error %v", groups, err)
		}
		for i, c := range groups {
			if c.Limit < None || c.Usage < -1 || c.InactiveFile < 0 || c.ActiveFile < 0 || c.Room() < 0 {
				t.Errorf("%+v", c)
			}
			if i > 0 && path.Dir(groups[i-1].Path) != c.Path && !strings.HasPrefix(groups[i-1].Path, strings.TrimSuffix(c.Path, "/")+"/") {
				t.Errorf("%q is no ancestor of %q", c.Path, groups[i-1].Path)
			}
		}
		if got, err := r.memlock(); err == nil && (got.Soft < None || got.Hard < None || got.InUse < 0) {
			t.Errorf("%+v", got)
		}
		if got, err := r.memory(); err == nil && (got.Total < 0 || got.Room() < 0 || got.Files < 0) {
			t.Errorf("memory %+v", got)
		}
	})
}

// FuzzRelative checks that going down from a mount's root by the names found
// leads to the cgroup again.
func FuzzRelative(f *testing.F) {
	f.Add("/", "/a/b")
	f.Add("/docker/x", "/docker/x")
	f.Add("/../..", "/a")
	f.Add("/../s", "/../s/t")
	f.Add("/..//./a/../b", "/../../c")
	f.Fuzz(func(t *testing.T, mountRoot, own string) {
		names, hidden, ok := relative(mountRoot, own)
		if !ok {
			return
		}
		if hidden < 0 {
			t.Fatalf("%d levels hidden", hidden)
		}
		ups, want := climb(own)
		gotUps, got := climb(mountRoot)
		gotUps -= hidden // each hidden level is one up of the root undone
		got = append(got, names...)
		if gotUps != ups || strings.Join(got, "/") != strings.Join(want, "/") {
			t.Errorf("from %q by %q after %d levels: %d %q, want %d %q", mountRoot, names, hidden, gotUps, got, ups, want)
		}
	})
}

func FuzzUnescape(f *testing.F) {
	f.Add(`/mnt/my\040view\134`)
	f.Add(`\04`)
	f.Add(`\777\`)
	f.Fuzz(func(t *testing.T, s string) {
		// What the kernel escapes, the way it does.
		var b strings.Builder
		for i := range len(s) {
			switch s[i] {
			case ' ':
				b.WriteString(`\040`)
			case '\t':
				b.WriteString(`\011`)
			case '\n':
				b.WriteString(`\012`)
			case '\\':
				b.WriteString(`\134`)
			default:
				b.WriteByte(s[i])
			}
		}
		if got := unescape(b.String()); got != s {
			t.Errorf("%q came back as %q", s, got)
		}
		unescape(s)
	})
}
