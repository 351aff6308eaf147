package limits

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"strings"
	"testing"
	"testing/iotest"
)

const procLimits = `Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max locked memory         %s bytes     
Max address space         unlimited            unlimited            bytes     
`

func TestMemlock(t *testing.T) {
	const status = "Name:\tx VmLck:\t9 kB\nVmPeak:\t    100 kB\nVmLck:\t       12 kB\nVmPin:\t 4 kB\nCapInh:\t0000000000000000\nCapEff:\t"
	const ipcLock, noCaps, all = "0000000000004000\n", "00000000ffffbfff\n", "000001ffffffffff\n"
	for _, tc := range []struct {
		name, limits, caps, ns string
		want                   Memlock
	}{
		{"user", "8388608              16777216            ", noCaps, initialUserNS, Memlock{8388608, 16777216, 12288, false}},
		{"root", "65536                unlimited           ", all, initialUserNS, Memlock{65536, -1, 12288, true}},
		{"one capability", "0                    0                   ", ipcLock, initialUserNS, Memlock{0, 0, 12288, true}},
		{"no limit", "unlimited            unlimited           ", noCaps, initialUserNS, Memlock{-1, -1, 12288, false}},
		{"root of a namespace", "65536                65536               ", all, "user:[4026532000]", Memlock{65536, 65536, 12288, false}},
		{"no namespaces", "65536                65536               ", all, "", Memlock{65536, 65536, 12288, true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := map[string]string{
				"/proc/self/limits": strings.Replace(procLimits, "%s", tc.limits, 1),
				"/proc/self/status": status + tc.caps,
			}
			if tc.ns != "" {
				files["/proc/self/ns/user"] = tc.ns
			}
			got, err := tree(files).memlock()
			if err != nil || got != tc.want {
				t.Errorf("got %+v, %v, want %+v", got, err, tc.want)
			}
		})
	}
	good := map[string]string{"/proc/self/limits": strings.Replace(procLimits, "%s", "1 2 ", 1), "/proc/self/status": status + noCaps}
	for _, bad := range []map[string]string{
		{"/proc/self/limits": "Max cpu time 1 2\n"}, {"/proc/self/limits": "Max locked memory  \n"}, {"/proc/self/limits": "Max locked memory  x y\n"},
		{"/proc/self/status": "CapEff:\t0\n"}, {"/proc/self/status": status}, {"/proc/self/status": status + "zz\n"},
		{"/proc/self/status": "VmLck:\t9223372036854775807 kB\nCapEff:\t0\n"}, {"/proc/self/status": "VmLck:\t-1 kB\nCapEff:\t0\n"},
	} {
		if got, err := tree(with(good, bad)).memlock(); err == nil || got != (Memlock{}) {
			t.Errorf("%q: got %+v, %v", bad, got, err)
		}
	}
	_, err := tree(nil).memlock()
	var pe *fs.PathError
	if !errors.As(err, &pe) || pe.Path != "/proc/self/limits" {
		t.Errorf("without files: %v", err)
	}
}

func TestRoom(t *testing.T) {
	for _, tc := range []struct {
		c    Cgroup
		want int64
	}{
		{Cgroup{Limit: -1, Usage: 1 << 40}, math.MaxInt64},
		{Cgroup{Limit: 100, Usage: 90, InactiveFile: 20, ActiveFile: 30}, 60},
		{Cgroup{Limit: 100, Usage: 190}, 0},
		{Cgroup{Limit: 100, Usage: 10, InactiveFile: 20}, 100},
		{Cgroup{Limit: 0}, 0},
	} {
		if got := tc.c.Room(); got != tc.want {
			t.Errorf("%+v: room %d, want %d", tc.c, got, tc.want)
		}
	}
	for _, tc := range []struct {
		m    Memlock
		want int64
	}{
		{Memlock{Soft: 100, Hard: -1, InUse: 30}, 70},
		{Memlock{Soft: 100, InUse: 130}, 0},
		{Memlock{Soft: -1}, math.MaxInt64},
		{Memlock{Soft: 0, Unlimited: true}, math.MaxInt64},
	} {
		if got := tc.m.Room(); got != tc.want {
			t.Errorf("%+v: room %d, want %d", tc.m, got, tc.want)
		}
	}
}

func TestTightest(t *testing.T) {
	a, b, free := Cgroup{Path: "a", Limit: 100, Usage: 10}, Cgroup{Path: "b", Limit: 1000, Usage: 950}, Cgroup{Path: "f", Limit: -1}
	same := Cgroup{Path: "s", Limit: 50}
	for _, tc := range []struct {
		in   []Cgroup
		want Cgroup
		ok   bool
	}{
		{nil, Cgroup{}, false}, {[]Cgroup{free}, Cgroup{}, false}, {[]Cgroup{free, a}, a, true},
		{[]Cgroup{a, b, free}, b, true}, {[]Cgroup{b, same, a}, b, true},
	} {
		if got, ok := Tightest(tc.in); got != tc.want || ok != tc.ok {
			t.Errorf("%v: %v, %v", tc.in, got, ok)
		}
	}
}

func TestNeed(t *testing.T) {
	for _, tc := range []struct {
		pages int64
		size  int
		want  int64
	}{
		{0, 4096, 1<<20 + 1}, {-5, 4096, 1<<20 + 1},
		{1000, 4096, 4096000 + 16384 + 1 + 1<<20},
		{262144, 4096, 1<<30 + 4294967 + 1 + 1<<20},
		{1, 65536, 65536 + 262 + 1 + 1<<20},
		{math.MaxInt64, 4096, math.MaxInt64}, {math.MaxInt64 / 4096, 4096, math.MaxInt64}, {math.MaxInt64, 1, math.MaxInt64},
	} {
		if got := Need(tc.pages, tc.size); got != tc.want {
			t.Errorf("Need(%d, %d) = %d, want %d", tc.pages, tc.size, got, tc.want)
		}
	}
}

func TestMapCount(t *testing.T) {
	const line = "7f0000000000-7f0000001000 r--p 00000000 00:00 0 \n"
	files := map[string]string{"/proc/self/maps": strings.Repeat(line, 70000), "/proc/sys/vm/max_map_count": "65530\n"}
	if n, limit, err := tree(files).mapCount(); n != 70000 || limit != 65530 || err != nil {
		t.Errorf("got %d, %d, %v", n, limit, err)
	}
	if n, err := countLines(iotest.OneByteReader(strings.NewReader("a\nb\n"))); n != 2 || err != nil {
		t.Errorf("byte by byte: %d, %v", n, err)
	}
	if _, err := countLines(iotest.ErrReader(io.ErrClosedPipe)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error while reading: %v", err)
	}
	delete(files, "/proc/self/maps")
	if _, _, err := tree(files).mapCount(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without maps: %v", err)
	}
	if _, _, err := tree(map[string]string{"/proc/sys/vm/max_map_count": "many"}).mapCount(); err == nil {
		t.Error("a limit of many was accepted")
	}
}

func TestReadMemory(t *testing.T) {
	text := "MemTotal:       24592712 kB\nMemFree:        9 kB\nMemAvailable:   23000000 kB\n" +
		"Active(file): 30 kB\nInactive(file):  4 kB\nSwapFree: 7 kB\n"
	m, err := tree(map[string]string{"/proc/meminfo": text}).memory()
	if want := (Memory{24592712 << 10, 23000000 << 10, 34 << 10, 7 << 10}); m != want || err != nil {
		t.Errorf("got %+v, %v, want %+v", m, err, want)
	}
	if n := m.Room(); n != 23000007<<10 {
		t.Errorf("there is room for %d", n)
	}
	if _, err := tree(map[string]string{"/proc/meminfo": strings.ReplaceAll(text, "MemAvailable", "MemOther")}).memory(); err == nil {
		t.Error("a kernel that does not tell gave no error")
	}
}
