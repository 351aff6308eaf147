package pinner

import (
	"context"
	"io/fs"
	"os"

	"github.com/mmapio/mmapio/internal/sys"
)

// A Report says what locking files would need, and what of that there is.
type Report struct {
	Total
	Mappings     int64 // files that are not empty
	Missing      int64 // pages to be brought in, or Unknown
	Requirements []Requirement
}

// Refused are the requirements that would make the lock fail.
func (r *Report) Refused() (refused []Requirement) {
	for _, q := range r.Requirements {
		if q.Verdict == Refused {
			refused = append(refused, q)
		}
	}
	return refused
}

// A Requirement is one thing that a lock depends on.
type Requirement struct {
	Name    string
	Unit    Unit
	Need    int64 // of the lock alone; Unknown where there is nothing to count
	Have    int64 // what is left for it; NoLimit, or Unknown where there is nothing to count
	Verdict Verdict
	Fact    string // what was found, with its numbers; goes after the name in a sentence
	Remedy  string // where Verdict is Refused or Doubtful: what to do

	first *File // where it is known at once: the first that is too much
}

// NoLimit is a Have that is never too little.
const NoLimit = 1<<63 - 1

// A Unit is what a Requirement counts.
type Unit int

// Units.
const (
	Bytes Unit = iota
	Mappings
)

// A Verdict is what came of comparing need and have.
type Verdict int

// Verdicts.
const (
	// Fits is a requirement that is met.
	Fits Verdict = iota
	// Doubtful is one of which only trying tells.
	Doubtful
	// Refused is one that is not met: the lock would fail.
	Refused
)

func (v Verdict) String() string {
	switch v {
	case Fits:
		return "ok"
	case Doubtful:
		return "doubtful"
	default:
		return "refused"
	}
}

// Check finds out whether locking the files would succeed. Files that cannot be
// opened or mapped are left out, and the error names them: with them it would fail.
// A soft limit below the hard one is no obstacle, since it can be raised.
func Check(ctx context.Context, files []File) (*Report, error) {
	all, failed := lookAt(ctx, files, func(f *os.File, info fs.FileInfo) error {
		return sys.CheckMappable(f, info, sys.Read)
	})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return judge(all, look()), failed
}

func judge(all []Residency, m machine) *Report {
	r := &Report{}
	var d demand
	var huge bool
	for _, f := range all {
		r.add(f.Size)
		if f.Size > 0 {
			r.Mappings++
		}
		switch {
		case f.huge:
			huge = huge || f.Size > 0
			continue
		case f.Resident == Unknown:
			d.guessed = true
			d.missing = plus(d.missing, f.Pages()) // the worst case
		default:
			d.missing = plus(d.missing, f.Pages()-f.Resident)
		}
		d.pages = plus(d.pages, f.Pages())
	}
	if m.memlock != nil {
		r.Requirements = append(r.Requirements, memlock(times(r.Pages, pageSize), *m.memlock)...)
	}
	if m.available != nil {
		r.Requirements = append(r.Requirements, d.memory(*m.available))
	}
	for _, c := range m.cgroups {
		r.Requirements = append(r.Requirements, d.cgroup(c))
	}
	r.Requirements = append(r.Requirements, inMemory(all)...)
	if m.maps != nil {
		r.Requirements = append(r.Requirements, mapCount(r.Mappings, *m.maps))
	}
	r.Requirements = append(r.Requirements, m.doubts...)
	if huge {
		r.Requirements = append(r.Requirements, hugePages)
	}
	if r.Missing = d.missing; d.guessed || huge {
		r.Missing = Unknown
	}
	return r
}
