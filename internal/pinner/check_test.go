package pinner

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/mmapio/mmapio/internal/limits"
	"github.com/mmapio/mmapio/internal/sys"
)

const mib = 1 << 20

// inRAM is a file with so many of its bytes in memory.
func inRAM(size, resident int64) Residency {
	return Residency{File: File{Path: "file", Size: size}, Resident: resident / pageSize}
}

func unknown(size int64) Residency {
	return Residency{File: File{Path: "file", Size: size}, Resident: Unknown}
}

// raisedBy sets what is said of the hard limit on another system.
func raisedBy(t *testing.T, hint string) {
	was := sys.RaiseHint
	sys.RaiseHint = hint
	t.Cleanup(func() { sys.RaiseHint = was })
}

// TestRaisedElsewhere: nobody is told of what the system does not have.
func TestRaisedElsewhere(t *testing.T) {
	raisedBy(t, "elsewhere(5)")
	q := memlock(20*mib, limits.Memlock{Soft: 8 * mib, Hard: 8 * mib, InUse: -1})[0]
	if want := "raise the hard limit to 32 MiB as the super-user: elsewhere(5)"; q.Verdict != Refused || q.Remedy != want {
		t.Errorf("%v, %q, want %q", q.Verdict, q.Remedy, want)
	}
}

func TestJudge(t *testing.T) {
	raisedBy(t, "")
	mem := func(n int64) *int64 { return &n }
	for _, tc := range []struct {
		name    string
		files   []Residency
		m       machine
		verdict Verdict
		text    []string // parts of the refusal, or of the fact if it fits
	}{
		{"limit", []Residency{inRAM(20*mib, 0)}, machine{memlock: &limits.Memlock{Soft: 8 * mib, Hard: 8 * mib, InUse: mib}}, Refused, []string{
			"needs 20 MiB (20971520 bytes)", "RLIMIT_MEMLOCK is 8.0 MiB (soft 8388608, hard 8388608), 1.0 MiB locked so far",
			"LimitMEMLOCK=32M", "memlock=33554432", `"USER - memlock 32768"`, "CAP_IPC_LOCK",
		}},
		{"limit 0", []Residency{inRAM(1, 0)}, machine{memlock: &limits.Memlock{}}, Refused, []string{"is 0 B (soft 0, hard 0)"}},
		{"nothing within limit 0", []Residency{inRAM(0, 0)}, machine{memlock: &limits.Memlock{}}, Fits, nil},
		{"whole pages count", []Residency{inRAM(1, 0), inRAM(1, 0)}, machine{memlock: &limits.Memlock{Soft: 2*pageSize - 1, Hard: 2*pageSize - 1}}, Refused, nil},
		{"exactly", []Residency{inRAM(1, 0), inRAM(1, 0)}, machine{memlock: &limits.Memlock{Soft: 2 * pageSize, Hard: 2 * pageSize}}, Fits, nil},
		{"soft limit", []Residency{inRAM(2*mib, 0)}, machine{memlock: &limits.Memlock{Soft: mib, Hard: 8 * mib}}, Fits, []string{"lock raises the soft limit by itself"}},
		{"soft limit, no hard one", []Residency{inRAM(2*mib, 0)}, machine{memlock: &limits.Memlock{Soft: mib, Hard: limits.None}}, Fits, []string{"hard unlimited", "by itself"}},
		{"no limit", []Residency{inRAM(2*mib, 0)}, machine{memlock: &limits.Memlock{Soft: limits.None, Hard: limits.None}}, Fits, []string{"is unlimited"}},
		{"privilege", []Residency{inRAM(2*mib, 0)}, machine{memlock: &limits.Memlock{Unlimited: true}}, Fits, []string{"does not apply"}},
		{"memory", []Residency{inRAM(20*mib, 0)}, machine{available: mem(20 * mib)}, Refused, []string{"needs 21 MiB", "memory has 20 MiB available", "lock less"}},
		{"memory, enough", []Residency{inRAM(20*mib, 0)}, machine{available: mem(22 * mib)}, Fits, nil},
		{"memory, in part there", []Residency{inRAM(20*mib, 10*mib)}, machine{available: mem(15 * mib)}, Doubtful, []string{"up to 21 MiB"}},
		{"memory, not known", []Residency{unknown(20 * mib)}, machine{available: mem(15 * mib)}, Refused, []string{"the kernel does not tell what of the files is in memory"}},
		{"cgroup", []Residency{inRAM(900*mib, 0)}, machine{cgroups: []limits.Cgroup{
			{Path: "/inner", Limit: 1000 * mib, Usage: 12 * mib},
			{Path: "/outer", Limit: 400 * mib, Usage: 100 * mib, InactiveFile: 60 * mib, ActiveFile: 20 * mib},
			{Path: "/root", Limit: limits.None},
		}}, Refused, []string{"cgroup /outer has a limit of 400 MiB (419430400), 100 MiB in use, 80 MiB of it", "would kill the process", "MemoryMax=960M"}},
		{"cgroup, not known", []Residency{unknown(20 * mib)}, machine{cgroups: []limits.Cgroup{{Path: "/c", Limit: 10 * mib}}}, Refused, []string{"might kill the process"}},
		{"huge pages", []Residency{{File: File{Path: "file", Size: 20 * mib}, Resident: Unknown, huge: true}}, machine{
			available: mem(mib), cgroups: []limits.Cgroup{{Path: "/c", Limit: mib}},
		}, Doubtful, []string{"hugetlbfs has huge pages only"}},
		{"no huge pages", []Residency{{huge: true}}, machine{available: mem(mib)}, Fits, nil},
		{"mappings", []Residency{inRAM(1, 0), inRAM(1, 0), inRAM(0, 0)}, machine{maps: &mapLimit{inUse: 49, limit: 101}}, Refused, []string{
			"needs 2 mappings", "vm.max_map_count is 101", "49 mappings in use", "sysctl vm.max_map_count=128",
		}},
		{"mappings, empty files need none", []Residency{inRAM(1, 0), inRAM(0, 0)}, machine{maps: &mapLimit{inUse: 49, limit: 101}}, Fits, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := judge(tc.files, tc.m)
			worst := r.Requirements[0]
			for _, q := range r.Requirements[1:] {
				if q.Verdict > worst.Verdict {
					worst = q
				}
			}
			text := worst.Fact
			if worst.Verdict != Fits {
				text = worst.Refusal()
			}
			if worst.Verdict != tc.verdict {
				t.Errorf("%v, want %v: %s", worst.Verdict, tc.verdict, text)
			}
			for _, part := range tc.text {
				if !strings.Contains(text, part) {
					t.Errorf("want %q in %q", part, text)
				}
			}
			if (len(r.Refused()) > 0) != (tc.verdict == Refused) {
				t.Errorf("refused: %v", r.Refused())
			}
		})
	}
}

func TestJudgeSums(t *testing.T) {
	r := judge([]Residency{inRAM(2*pageSize, pageSize), inRAM(1, 0), inRAM(0, 0)}, machine{})
	if want := (Total{3, 2*pageSize + 1, 3}); r.Total != want || r.Mappings != 2 || r.Missing != 2 {
		t.Errorf("got %+v", r)
	}
	if r := judge([]Residency{inRAM(pageSize, 0), unknown(1)}, machine{}); r.Missing != Unknown {
		t.Errorf("missing: got %d", r.Missing)
	}
}

// Sums of what no machine has are not wrapped round to little or nothing.
func TestJudgeHuge(t *testing.T) {
	limit := limits.Memlock{Soft: 8 * mib, Hard: 8 * mib, InUse: mib}
	for n := 1; n <= 3; n++ {
		var files []Residency
		for range n {
			files = append(files, inRAM(math.MaxInt64, 0))
		}
		free := int64(mib)
		r := judge(files, machine{memlock: &limit, available: &free, cgroups: []limits.Cgroup{{Path: "/c", Limit: 1 << 30}}})
		if n > 1 && r.Bytes != most || r.Pages < math.MaxInt64/pageSize {
			t.Errorf("%d files: %d bytes, %d pages", n, r.Bytes, r.Pages)
		}
		for _, q := range r.Requirements {
			if q.Need == Unknown {
				continue
			}
			if q.Verdict != Refused || q.Need != most || !strings.Contains(q.Refusal(), "needs 8.0 EiB") {
				t.Errorf("%d files: %v: %s", n, q.Verdict, q.Refusal())
			}
		}
	}
}

// What cannot be found out is neither an obstacle nor passed over.
func TestDoubts(t *testing.T) {
	var m machine
	if m.found("cgroup", errors.ErrUnsupported) || len(m.doubts) > 0 {
		t.Errorf("what this system does not have: %v", m.doubts)
	}
	m.found("cgroup", errors.New("no /sys"))
	r := judge(nil, m)
	if len(r.Requirements) != 1 || r.Requirements[0].Verdict != Doubtful || r.Requirements[0].Refusal() != "cgroup cannot be read: no /sys" {
		t.Errorf("got %+v", r.Requirements)
	}
}

func TestFirstTooMuch(t *testing.T) {
	files := []File{{Path: "a", Size: 1}, {Path: "empty"}, {Path: "b", Size: 3 * pageSize}, {Path: "c", Size: 1}}
	for _, tc := range []struct {
		q    Requirement
		want string
	}{
		{Requirement{Have: 0}, "a"},
		{Requirement{Have: pageSize}, "b"},
		{Requirement{Have: 4 * pageSize}, "c"},
		{Requirement{Have: 100 * pageSize}, "c"}, // a safety margin is all that is missing
		{Requirement{Unit: Mappings, Have: 1}, "b"},
	} {
		if got := firstTooMuch(tc.q, files).Path; got != tc.want {
			t.Errorf("%+v: got %s, want %s", tc.q, got, tc.want)
		}
	}
}

func TestRoundUp(t *testing.T) {
	for _, tc := range []struct {
		n    int64
		want string
	}{
		{math.MaxInt64 - mib, "8796093022207M"}, {5 << 60, "8796093022207M"}, {1<<62 + 1, "8796093022207M"}, {1 << 62, "4294967296G"},
		{0, "1M"}, {1, "1M"}, {mib, "1M"}, {mib + 1, "2M"}, {20 * mib, "32M"},
		{900 * mib, "960M"}, {1 << 30, "1G"}, {5<<30 + 1, "5632M"},
	} {
		got := roundUp(tc.n)
		if systemdSize(got) != tc.want || got < tc.n {
			t.Errorf("%d: got %s, want %s", tc.n, systemdSize(got), tc.want)
		}
	}
}

func TestPages(t *testing.T) {
	for size, want := range map[int64]int64{0: 0, 1: 1, pageSize: 1, pageSize + 1: 2, math.MaxInt64: math.MaxInt64/pageSize + 1} {
		if got := pages(size); got != want {
			t.Errorf("%d: got %d, want %d", size, got, want)
		}
	}
}
