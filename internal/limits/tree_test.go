package limits

import (
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
)

// pid is the process that reads in every made-up tree.
const pid = "77"

// tree makes a machine's file system of files by absolute path; those of
// /proc/self may be written so.
func tree(files map[string]string) root {
	m := fstest.MapFS{"proc/self": {Data: []byte(pid), Mode: fs.ModeSymlink | 0o777}}
	for name, text := range files {
		name = strings.Replace(strings.TrimPrefix(name, "/"), "proc/self/", "proc/"+pid+"/", 1)
		f := &fstest.MapFile{Data: []byte(text), Mode: 0o644}
		if name == "proc/"+pid+"/ns/user" {
			f.Mode |= fs.ModeSymlink
		}
		m[name] = f
	}
	return root{m}
}

// with returns files and others in one map.
func with(files ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range files {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

func groupV1(dir, limit, usage, inactive, active, hierarchical string) map[string]string {
	return map[string]string{
		dir + "/memory.limit_in_bytes": limit + "\n",
		dir + "/memory.usage_in_bytes": usage + "\n",
		dir + "/memory.use_hierarchy":  "1\n",
		dir + "/cgroup.procs":          "",
		dir + "/memory.stat": "cache 5\ninactive_file 1\nactive_file 2\nhierarchical_memory_limit " + hierarchical +
			"\ntotal_inactive_file " + inactive + "\ntotal_active_file " + active + "\n",
	}
}

func groupV2(dir, limit, usage, inactive, active string) map[string]string {
	return map[string]string{
		dir + "/memory.max":     limit + "\n",
		dir + "/memory.current": usage + "\n",
		dir + "/cgroup.procs":   "",
		dir + "/memory.stat":    "anon 5\nfile 6\ninactive_anon 9\ninactive_file " + inactive + "\nactive_file " + active + "\n",
	}
}

const (
	mountsV1 = `22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 0:27 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:28 / /sys/fs/cgroup/cpu rw,relatime shared:4 master:2 - cgroup cgroup rw,cpu,cpuacct
34 30 0:31 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
`
	mountsHybrid = mountsV1 + "40 30 0:37 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
	mountsV2     = "35 22 0:30 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"

	noLimitV1 = "9223372036854771712"
	m         = "/sys/fs/cgroup/memory"
	u         = "/sys/fs/cgroup"
)

func TestCgroups(t *testing.T) {
	topV2 := map[string]string{u + "/memory.stat": "inactive_file 3\nactive_file 4\n", u + "/cgroup.procs": ""}
	for _, tc := range []struct {
		name   string
		cgroup string
		mounts string
		files  map[string]string
		want   []Cgroup
		err    error
	}{{
		name:   "v1",
		cgroup: "9:name=systemd:/\n4:cpu,memory:/app.slice/app:1\n3:cpuset:/\n",
		mounts: mountsV1,
		files: with(groupV1(m, noLimitV1, "900", "30", "40", noLimitV1), groupV1(m+"/app.slice", "500", "400", "10", "20", "500"),
			groupV1(m+"/app.slice/app:1", noLimitV1, "100", "1", "2", "500")),
		want: []Cgroup{{m + "/app.slice/app:1", -1, 100, 1, 2}, {m + "/app.slice", 500, 400, 10, 20}, {m, -1, 900, 30, 40}},
	}, {
		name:   "v1 outside its parent's account",
		cgroup: "4:memory:/a/b\n",
		mounts: mountsV1,
		files: with(groupV1(m, noLimitV1, "900", "30", "40", noLimitV1), groupV1(m+"/a", "50", "40", "10", "20", "50"),
			groupV1(m+"/a/b", "600", "100", "1", "2", "600"), map[string]string{m + "/a/memory.use_hierarchy": "0\n"}),
		want: []Cgroup{{m + "/a/b", 600, 100, 1, 2}},
	}, {
		name:   "v2",
		cgroup: "0::/user.slice/user-0.slice\n",
		mounts: mountsV2,
		files: with(topV2, groupV2(u+"/user.slice", "max", "90", "1", "2"),
			groupV2(u+"/user.slice/user-0.slice", "1048576", "80", "3", "4")),
		want: []Cgroup{{u + "/user.slice/user-0.slice", 1048576, 80, 3, 4}, {u + "/user.slice", -1, 90, 1, 2}, {u, -1, -1, 3, 4}},
	}, {
		name:   "v2 without the controller in the innermost",
		cgroup: "0::/a/b\n",
		mounts: mountsV2,
		files:  with(topV2, groupV2(u+"/a", "7", "6", "1", "2"), map[string]string{u + "/a/b/cgroup.procs": pid + "\n"}),
		want:   []Cgroup{{u + "/a", 7, 6, 1, 2}, {u, -1, -1, 3, 4}},
	}, {
		name:   "v2 without the controller anywhere",
		cgroup: "0::/a\n",
		mounts: mountsV2,
		files:  map[string]string{u + "/a/cgroup.procs": pid + "\n"},
		want:   []Cgroup{},
	}, {
		name:   "hybrid, memory on v1",
		cgroup: "4:memory:/x\n1:name=systemd:/y\n0::/y\n",
		mounts: mountsHybrid,
		files: with(groupV1(m, noLimitV1, "9", "1", "1", noLimitV1), groupV1(m+"/x", "8", "7", "1", "2", "8"),
			map[string]string{u + "/unified/y/cgroup.procs": pid}),
		want: []Cgroup{{m + "/x", 8, 7, 1, 2}, {m, -1, 9, 1, 1}},
	}, {
		name:   "hybrid, memory on v2",
		cgroup: "3:cpu:/x\n0::/y\n",
		mounts: mountsHybrid,
		files:  with(groupV2(u+"/unified", "max", "9", "1", "1"), groupV2(u+"/unified/y", "8", "7", "1", "2")),
		want:   []Cgroup{{u + "/unified/y", 8, 7, 1, 2}, {u + "/unified", -1, 9, 1, 1}},
	}, {
		name:   "docker on v1 sees the host's path, and a limit above what it sees",
		cgroup: "4:memory:/docker/c0ffee\n",
		mounts: "34 30 0:31 /docker/c0ffee /sys/fs/cgroup/memory ro,nosuid master:9 - cgroup cgroup rw,memory\n",
		files:  groupV1(m, noLimitV1, "90", "1", "2", "5000"),
		want:   []Cgroup{{m, 5000, 90, 1, 2}},
	}, {
		name:   "docker on v2 with a namespace of its own",
		cgroup: "0::/\n",
		mounts: "35 22 0:30 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n",
		files:  groupV2(u, "4096", "90", "1", "2"),
		want:   []Cgroup{{u, 4096, 90, 1, 2}},
	}, {
		name:   "a bind of a sub-hierarchy that is not ours is passed over",
		cgroup: "0::/a/b\n",
		mounts: "35 22 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n36 22 0:30 /other /mnt/my\\040view rw - cgroup2 cgroup rw\n",
		files:  with(topV2, groupV2(u+"/a", "7", "6", "1", "2"), groupV2(u+"/a/b", "5", "4", "1", "2"), groupV2("/mnt/my view", "3", "2", "0", "0")),
		want:   []Cgroup{{u + "/a/b", 5, 4, 1, 2}, {u + "/a", 7, 6, 1, 2}, {u, -1, -1, 3, 4}},
	}, {
		name:   "a bind with a space in its name",
		cgroup: "0::/a/b\n",
		mounts: "36 22 0:30 /a /mnt/my\\040view rw - cgroup2 cgroup rw\n",
		files:  with(groupV2("/mnt/my view", "3", "2", "0", "0"), groupV2("/mnt/my view/b", "2", "1", "0", "0")),
		want:   []Cgroup{{"/mnt/my view/b", 2, 1, 0, 0}, {"/mnt/my view", 3, 2, 0, 0}},
	}, {
		name:   "moved out of its namespace's root",
		cgroup: "0::/../sibling\n",
		mounts: "36 22 0:30 /.. /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
		files:  with(topV2, groupV2(u+"/sibling", "2", "1", "0", "0")),
		want:   []Cgroup{{u + "/sibling", 2, 1, 0, 0}, {u, -1, -1, 3, 4}},
	}, {
		name:   "the host's hierarchy beside the container's own",
		cgroup: "0::/\n",
		mounts: "36 22 0:30 /../.. /host rw - cgroup2 cgroup rw\n37 22 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
		files: with(groupV2(u, "9", "1", "0", "0"), groupV2("/host", "max", "5", "0", "0"), groupV2("/host/pods", "8", "4", "0", "0"),
			groupV2("/host/pods/one", "9", "1", "0", "0"), groupV2("/host/pods/two", "1", "1", "0", "0"),
			map[string]string{"/host/pods/one/cgroup.procs": "5\n" + pid + "\n"}),
		want: []Cgroup{{"/host/pods/one", 9, 1, 0, 0}, {"/host/pods", 8, 4, 0, 0}, {"/host", -1, 5, 0, 0}},
	}, {
		name:   "the path belongs to another view than the mount, which lists us",
		cgroup: "4:memory:/\n",
		mounts: "34 30 0:31 /docker/c0ffee /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
		files:  with(groupV1(m, "50", "40", "1", "2", "50"), map[string]string{m + "/cgroup.procs": "1\n" + pid + "\n"}),
		want:   []Cgroup{{m, 50, 40, 1, 2}},
	}, {
		name:   "not mounted",
		cgroup: "4:memory:/x\n",
		mounts: mountsV2,
		err:    fs.ErrNotExist,
	}, {
		name:   "mounted, but the directory is hidden",
		cgroup: "0::/gone\n",
		mounts: mountsV2,
		files:  topV2,
		err:    fs.ErrNotExist,
	}, {
		name:   "no memory controller",
		cgroup: "3:cpu:/x\n",
		mounts: mountsV1,
	}} {
		t.Run(tc.name, func(t *testing.T) {
			r := tree(with(tc.files, map[string]string{"/proc/self/cgroup": tc.cgroup, "/proc/self/mountinfo": tc.mounts}))
			got, err := r.cgroups()
			if !errors.Is(err, tc.err) || !reflect.DeepEqual(got, tc.want) {
				t.Fatalf("got  %v, %v\nwant %v, %v", got, err, tc.want, tc.err)
			}
			tight, ok := Tightest(got)
			want := ok && tight.Limit >= 0
			if limited, err := r.limited(); limited != want || !errors.Is(err, tc.err) {
				t.Errorf("limited: %v, %v, want %v, %v", limited, err, want, tc.err)
			}
		})
	}
	if got, err := tree(nil).cgroups(); got != nil || err != nil {
		t.Errorf("without /proc/self/cgroup: %v, %v", got, err)
	}
}

func TestCgroupsBadFiles(t *testing.T) {
	good := with(groupV1(m, "50", "40", "1", "2", "50"),
		map[string]string{"/proc/self/cgroup": "4:memory:/\n", "/proc/self/mountinfo": mountsV1})
	for name, text := range map[string]string{
		"memory.limit_in_bytes": "lots\n", "memory.usage_in_bytes": "\n", "memory.stat": "total_active_file 1\n",
	} {
		got, err := tree(with(good, map[string]string{m + "/" + name: text})).cgroups()
		var bad *errFormat
		if !errors.As(err, &bad) || bad.name != inFS(m+"/"+name) {
			t.Errorf("%s %q: %v, %v", name, text, got, err)
		}
	}
	// What is not a number may be a limit all the same.
	for _, text := range []string{"lots\n", "\n"} {
		r := tree(with(groupV2(u, "max", "1", "0", "0"), map[string]string{
			"/proc/self/cgroup": "0::/\n", "/proc/self/mountinfo": mountsV2, u + "/memory.max": text,
		}))
		if limited, err := r.limited(); err != nil || !limited {
			t.Errorf("a limit of %q: limited %v, %v", text, limited, err)
		}
	}
}
