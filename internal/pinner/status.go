package pinner

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/mmapio/mmapio/internal/sys"
)

// Unknown stands for a number that the kernel does not tell. It is neither
// none nor all.
const Unknown = -1

// A Residency says how much of a file is in RAM.
type Residency struct {
	File           // with the size that it has now
	Resident int64 // pages, or Unknown

	holes *holes // nil if there are none, or they take nothing to be read
	huge  bool   // a file on hugetlbfs
}

// holes are what of a file has no block yet, on a file system that keeps its files
// in memory and gives them blocks when they are read, too.
type holes struct {
	fs    uint64 // its number
	bytes int64
	left  int64 // of the file system, for all
}

func holesOf(f *os.File, info fs.FileInfo) *holes {
	left, limited := sys.MemoryLeft(f)
	if !limited {
		return nil
	}
	stat, ok := numbers(info, "Dev", "Blocks")
	if !ok {
		return nil
	}
	bytes := times(pages(info.Size()), pageSize) - int64(min(stat[1], most/512))*512
	if bytes <= 0 {
		return nil
	}
	return &holes{fs: stat[0], bytes: bytes, left: left}
}

// Status asks how much of each file is in RAM. Files that cannot be asked
// about are left out, and the error names them.
func Status(ctx context.Context, files []File) ([]Residency, error) {
	return lookAt(ctx, files, func(*os.File, fs.FileInfo) error { return nil })
}

// lookAt is Status of files that fit a purpose.
func lookAt(ctx context.Context, files []File, fits func(*os.File, fs.FileInfo) error) ([]Residency, error) {
	all := make([]Residency, len(files))
	errs := make([]error, len(files))
	each(ctx, len(files), func(i int) { all[i], errs[i] = residency(files[i], fits) })
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	known := all[:0]
	for i, r := range all {
		switch {
		case errs[i] == nil:
			known = append(known, r)
		case r.gone(errs[i]): // under its last name
			errs[i] = nil
		}
	}
	return known, errors.Join(errs...)
}

func residency(file File, fits func(*os.File, fs.FileInfo) error) (Residency, error) {
	var f *os.File
	var info fs.FileInfo
	file, err := file.byAnyName(func(file File) (err error) {
		f, info, err = open(file.Path)
		return err
	})
	if err != nil {
		return Residency{File: file}, err
	}
	defer f.Close() //nolint:errcheck // only read from
	if err := fits(f, info); err != nil {
		return Residency{File: file}, pathError("open", file.Path, err)
	}
	file.Size = info.Size()
	r := Residency{File: file, Resident: Unknown, holes: holesOf(f, info), huge: sys.HugeFile(f, info) != 0}
	counts, err := sys.Resident(f, 0, r.Size)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
	case err != nil:
		return Residency{File: file}, pathError("residency", file.Path, err)
	default:
		r.Resident = min(counts.Resident, r.Pages())
	}
	return r, nil
}

// SumResident adds up what is in RAM: Unknown as soon as one file's part is.
func SumResident(all []Residency) int64 {
	var sum int64
	for _, r := range all {
		if r.Resident == Unknown {
			return Unknown
		}
		sum = plus(sum, r.Resident)
	}
	return sum
}

// each calls work for every index below n, on all processors, until the
// context ends.
func each(ctx context.Context, n int, work func(i int)) {
	var (
		next atomic.Int64
		wg   sync.WaitGroup
	)
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				work(i)
			}
		})
	}
	wg.Wait()
}
