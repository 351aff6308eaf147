package prove

import (
	"runtime"
	"strings"
	"testing"
)

func TestParseVMAs(t *testing.T) {
	const text = `7f0000000000-7f0000003000 rw-s 00001000 fe:00 1234                       /tmp/a b  c (deleted)
Size:                 12 kB
Rss:                   8 kB
Private_Dirty:         4 kB
Swap:                 16 kB
Locked:                4 kB
VmFlags: rd wr sh lo mr
7f0000003000-7f0000004000 ---p 00000000 00:00 0 
VmFlags: mr
ffff0000-ffff1000 r-xp 00000000 00:00 7                                  /tmp/new\012line: x
`
	all, err := parseVMAs(strings.NewReader(text))
	if err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	a, b, c := all[0], all[1], all[2]
	if a.Start != 0x7f0000000000 || a.Size() != 3<<12 || a.Perms != "rw-s" || a.Offset != 4096 || a.Inode != 1234 {
		t.Error(a)
	}
	if a.Path != "/tmp/a b  c" || !a.Deleted || a.Rss != 8192 || a.Swap != 16384 || a.PrivateDirty != 4096 || a.Locked != 4096 || !a.IsLocked() {
		t.Error(a)
	}
	if b.Path != "" || b.IsLocked() || b.Deleted {
		t.Error(b)
	}
	if c.Path != "/tmp/new\nline: x" {
		t.Error(c)
	}
	for _, bad := range []string{"Rss: 1 kB\n", "x-y rw-p 0 0 0\n", "\n"} {
		if all, err := parseVMAs(strings.NewReader(bad)); err == nil {
			t.Errorf("%q parsed as %v", bad, all)
		}
	}
}

func TestContains(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("windows: the names are those of /proc")
	}
	for _, c := range []struct {
		path, name string
		want       bool
	}{
		{"/a/b", "/a/b", true}, {"/a/b", "/a/b/c", true}, {"/a/b", "/a/bc", false}, {"/", "/x", true},
		{"/a/b/", "/a/b/c", true}, {"/a/b", "/a", false}, {"/a", "", false}, {"", "/a", false}, {"/a", "[heap]", false},
	} {
		if under(c.name, c.path) != c.want {
			t.Errorf("under(%q, %q) is not %v", c.name, c.path, c.want)
		}
	}
}

func TestHeldDiff(t *testing.T) {
	const y, n = true, false
	for _, c := range []struct {
		want, locked, present []bool
		diff                  string
	}{
		{[]bool{y, n, n}, []bool{y, n, n}, []bool{y, y, n}, ""},
		{[]bool{y, y, n}, []bool{n, n, n}, []bool{y, y, n}, "  pages 0 to 1 (2 of them): want held, are not locked and present\n"},
		{[]bool{y, y}, []bool{y, y}, []bool{y, n}, "  pages 1 to 1 (1 of them): want held, are locked and absent\n"},
		{[]bool{n}, []bool{y}, []bool{n}, "  pages 0 to 0 (1 of them): want not locked, are locked and absent\n"},
		{nil, nil, nil, ""},
	} {
		if got := heldDiff(c.want, c.locked, c.present); got != c.diff {
			t.Errorf("%v: got %q, want %q", c, got, c.diff)
		}
	}
}
