package pinner

import (
	"fmt"
	"math/bits"

	"github.com/dustin/go-humanize"

	"github.com/mmapio/mmapio/internal/limits"
	"github.com/mmapio/mmapio/internal/sys"
)

// memlock compares with the limit that the soft one can be raised to.
func memlock(need int64, l limits.Memlock) []Requirement {
	q := Requirement{Name: "RLIMIT_MEMLOCK", Unit: Bytes, Need: need, Have: NoLimit}
	q.Fact = fmt.Sprintf("is %s (soft %s, hard %s)", size(l.Soft), exact(l.Soft), exact(l.Hard))
	if l.InUse >= 0 {
		q.Fact += fmt.Sprintf(", %s locked so far", size(l.InUse))
	}
	l.InUse = max(0, l.InUse) // -1: this system does not tell
	if l.Hard >= 0 {
		q.Have = max(0, l.Hard-l.InUse)
	}
	switch {
	case l.Unlimited:
		q.Have = NoLimit
		q.Fact += "; it does not apply to this process"
	case need > q.Have:
		q.Verdict = Refused
		want := roundUp(plus(need, l.InUse))
		q.Remedy = fmt.Sprintf("raise it: systemd LimitMEMLOCK=%s, docker --ulimit memlock=%d, "+
			"limits.conf \"USER - memlock %d\", or grant CAP_IPC_LOCK", systemdSize(want), want, want>>10)
		if text := sys.RaiseHard(want >> 20); text != "" {
			q.Remedy = text
		}
	case l.Soft >= 0 && need > l.Soft-l.InUse:
		q.Fact += "; lock raises the soft limit by itself"
	}
	all := []Requirement{q}
	if hasCapabilities {
		c := Requirement{Name: "CAP_IPC_LOCK", Need: Unknown, Have: Unknown, Fact: "is not held, and not needed"}
		switch {
		case l.Unlimited:
			c.Fact = "is held"
		case q.Verdict == Refused:
			c.Fact = "is not held: it would do away with RLIMIT_MEMLOCK"
		}
		all = append(all, c)
	}
	return all
}

// A demand is memory that pages to be locked will take.
type demand struct {
	pages   int64
	missing int64 // of them, not in memory yet
	guessed bool  // the kernel did not say what is in memory: all is taken to be missing
}

// room is the memory that pages which are missing take, with all that goes with
// them.
func room(pages int64) int64 { return min(limits.Need(pages, int(pageSize)), most) }

// compare knows two bounds. What is in memory already may be counted in what
// is left, since the kernel could drop it as long as it is not locked, or may
// be somebody else's.
func (d demand) compare(q *Requirement) {
	atLeast, atMost := room(d.missing), room(d.pages)
	if d.pages == 0 {
		atLeast, atMost = 0, 0
	}
	q.Unit, q.Need = Bytes, atLeast
	switch {
	case q.Have >= atMost:
	case q.Have >= atLeast:
		q.Verdict = Doubtful
		q.Fact += fmt.Sprintf("; up to %s if what is in memory already counts there too", size(atMost))
	default:
		q.Verdict = Refused
		if d.guessed {
			q.Fact += "; the kernel does not tell what of the files is in memory already (to those who neither own them nor may write them, and on some file systems), so nothing is taken to be"
		}
	}
}

func (d demand) memory(available int64) Requirement {
	q := Requirement{Name: "memory", Have: available, Fact: fmt.Sprintf("has %s available (MemAvailable %d)", size(available), available)}
	d.compare(&q)
	if q.Verdict != Fits {
		q.Remedy = "free memory, or lock less"
	}
	return q
}

func (d demand) cgroup(c limits.Cgroup) Requirement {
	q := Requirement{Name: "cgroup " + c.Path, Have: NoLimit, Fact: "has no limit"}
	if c.Limit >= 0 {
		q.Have = max(0, c.Room())
		q.Fact = fmt.Sprintf("has a limit of %s (%s), %s in use, %s of it cache that can be dropped",
			size(c.Limit), exact(c.Limit), size(c.Usage), size(c.InactiveFile+c.ActiveFile))
	}
	d.compare(&q)
	if q.Verdict != Fits {
		want := roundUp(plus(c.Limit-q.Have, room(d.pages)))
		would := "would"
		if q.Verdict == Doubtful || d.guessed {
			would = "might"
		}
		q.Remedy = fmt.Sprintf("the kernel %s kill the process; raise the limit: systemd MemoryMax=%s, "+
			"docker --memory=%d, Kubernetes limits.memory", would, systemdSize(want), want)
	}
	return q
}

// inMemory compares with the space of each file system that keeps its files in
// memory and has too little for their holes. The others are not worth a line.
func inMemory(all []Residency) (refused []Requirement) {
	at := map[uint64]*Requirement{}
	var order []*Requirement
	for _, r := range all {
		if r.holes == nil {
			continue
		}
		q := at[r.holes.fs]
		if q == nil {
			q = &Requirement{Name: "tmpfs of " + r.Path, Unit: Bytes, Have: r.holes.left}
			at[r.holes.fs], order = q, append(order, q)
		}
		q.Need = plus(q.Need, r.holes.bytes)
		if q.Need > q.Have && q.first == nil {
			q.Verdict, q.first = Refused, &r.File
		}
	}
	for _, q := range order {
		if q.Verdict == Refused {
			q.Fact = fmt.Sprintf("has %s left (%d), and gives holes that are read memory of their own", size(q.Have), q.Have)
			q.Remedy = "make room there, or mount it with a larger size="
			refused = append(refused, *q)
		}
	}
	return refused
}

// hugePages is for files on hugetlbfs: what they need is neither memory that is
// available nor charged to memory cgroups.
var hugePages = Requirement{
	Name: "hugetlbfs", Need: Unknown, Have: Unknown, Verdict: Doubtful,
	Fact: "has huge pages only, which are set aside beforehand (vm.nr_hugepages): whether there are enough only trying tells",
}

// mapCount stays below half of what the kernel allows: where no mapping can be
// made any more the Go runtime itself dies.
func mapCount(need int64, m mapLimit) Requirement {
	q := Requirement{Name: "vm.max_map_count", Unit: Mappings, Need: need, Have: max(0, m.limit/2-m.inUse)}
	q.Fact = fmt.Sprintf("is %d, of which half is used at most; %d mappings in use", m.limit, m.inUse)
	if need > q.Have {
		q.Verdict = Refused
		q.Remedy = fmt.Sprintf("raise it: sysctl vm.max_map_count=%d", powerOfTwo(2*(need+m.inUse)))
	}
	return q
}

// roundUp gives a number of bytes that is easy to write down.
func roundUp(n int64) int64 {
	const mib = 1 << 20
	if n < 64*mib {
		return powerOfTwo(max(n, mib))
	}
	if n > 1<<62 { // the next power is no int64
		return most - most%mib
	}
	step := powerOfTwo(n) / 16
	return (n + step - 1) / step * step
}

// powerOfTwo is the next one that is not below n.
func powerOfTwo(n int64) int64 { return 1 << bits.Len64(uint64(n-1)) } // positive

// systemdSize writes a multiple of a MiB as systemd does.
func systemdSize(n int64) string {
	if n%(1<<30) == 0 {
		return fmt.Sprintf("%dG", n>>30)
	}
	return fmt.Sprintf("%dM", n>>20)
}

func size(n int64) string {
	if n < 0 || n == NoLimit {
		return "unlimited"
	}
	return humanize.IBytes(uint64(n))
}

func exact(n int64) string {
	if n < 0 {
		return "unlimited"
	}
	return fmt.Sprintf("%d", n)
}
