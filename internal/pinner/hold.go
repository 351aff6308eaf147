package pinner

import (
	"context"
	"errors"
	"fmt"

	"github.com/mmapio/mmapio"
)

// A Locked is a file that is locked.
type Locked struct {
	File         // with the size that is mapped
	Locked int64 // bytes that the kernel confirms, or Unknown where it cannot be asked
}

// A Held keeps files locked until Release.
type Held struct {
	Files []Locked // every file that is held, in the order they were given
	maps  []*mmapio.File
}

// Hold locks the files and has the kernel confirm it. It is all or nothing:
// after an error nothing is held. What Check refuses is refused before
// anything is locked, with an error that is a *[RefusedError].
//
// The files are not followed: they stay mapped as they are now.
func Hold(ctx context.Context, files []File) (*Held, error) {
	report, err := Check(ctx, files)
	if err == nil {
		err = refusal(report, files)
	}
	if err != nil {
		return nil, err
	}
	h := &Held{}
	for _, f := range files {
		if err := h.add(ctx, f); err != nil {
			return nil, errors.Join(err, h.Release())
		}
	}
	return h, nil
}

// add keeps no descriptor, of which there are fewer than of mappings.
func (h *Held) add(ctx context.Context, file File) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var f *mmapio.File
	file, err := file.byAnyName(func(file File) (err error) {
		f, err = mmapio.OpenFile(file.Path, &mmapio.Options{DropFD: true})
		return err
	})
	if file.gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	h.maps = append(h.maps, f) // from here on Release takes care of it
	file.Size = f.Size()
	if err := f.LockContext(ctx, 0, file.Size, nil); err != nil {
		return err
	}
	l := Locked{File: file, Locked: f.LockedBytes()}
	if err := f.VerifyLocked(0, file.Size); errors.Is(err, errors.ErrUnsupported) {
		l.Locked = Unknown
	} else if err != nil {
		return err
	}
	h.Files = append(h.Files, l)
	return nil
}

// Total adds up what is held. Confirmed is Unknown if the kernel could not be
// asked about one of the files.
func (h *Held) Total() (t Total, confirmed int64) {
	for _, f := range h.Files {
		t.add(f.Size)
		if f.Locked == Unknown {
			confirmed = Unknown
		}
		if confirmed != Unknown {
			confirmed = plus(confirmed, f.Locked)
		}
	}
	return t, confirmed
}

// Release lets go of everything. A second call does nothing.
func (h *Held) Release() error {
	var errs []error
	for _, f := range h.maps {
		errs = append(errs, f.Close())
	}
	h.maps = nil
	return errors.Join(errs...)
}

// A RefusedError says why locking was not even tried.
type RefusedError struct {
	Path  string // of the first file that would not fit
	Size  int64  // its length
	Files int    // how many were to be locked
	Requirement
}

func (e *RefusedError) Error() string {
	what := ""
	if e.Files > 1 {
		what = fmt.Sprintf(" (the first of %d files that does not fit)", e.Files)
	}
	return fmt.Sprintf("lock %s [0, %d)%s: %s", e.Path, e.Size, what, e.Refusal())
}

// Refusal is the sentence about a requirement that is not met.
func (q *Requirement) Refusal() string {
	if q.Need == Unknown {
		return q.Name + " " + q.Fact
	}
	need := fmt.Sprintf("%s (%d bytes)", size(q.Need), q.Need)
	if q.Unit == Mappings {
		need = fmt.Sprintf("%d mappings", q.Need)
	}
	return fmt.Sprintf("needs %s, %s %s; %s", need, q.Name, q.Fact, q.Remedy)
}

// refusal has an error for each requirement that is not met.
func refusal(r *Report, files []File) error {
	var errs []error
	for _, q := range r.Refused() {
		first := firstTooMuch(q, files)
		if q.first != nil {
			first = *q.first
		}
		errs = append(errs, &RefusedError{Path: first.Path, Size: first.Size, Files: len(files), Requirement: q})
	}
	return errors.Join(errs...)
}

// firstTooMuch is the file at which locking one after the other would fail.
// What is in memory already is not known file by file any more, so where it
// plays a part this is a guess on the safe side.
func firstTooMuch(q Requirement, files []File) File {
	left := q.Have
	for _, f := range files {
		switch {
		case f.Size == 0:
		case q.Unit == Mappings:
			left--
		default:
			left -= f.Pages() * pageSize
		}
		if left < 0 {
			return f
		}
	}
	return files[len(files)-1]
}
