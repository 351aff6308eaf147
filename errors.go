package mmapio

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
)

// A sentinel is an error that also counts as one of package fs, so that
// callers who know only those understand it.
type sentinel struct {
	text string
	is   error
}

func (e *sentinel) Error() string        { return e.text }
func (e *sentinel) Is(target error) bool { return target == e.is }

var (
	// ErrReadOnly is the cause of an error from a call that would store to a
	// [ReadOnly] File, and of a [FaultError] for a store into its memory.
	// errors.Is(ErrReadOnly, fs.ErrPermission) is true.
	ErrReadOnly error = &sentinel{"mapped read-only", fs.ErrPermission}

	// ErrBusy is the cause of an error from a call that a holder is in the way
	// of: memory that a running View, Update or loop, or a Region, Value or
	// Values that is not yet released, still uses.
	ErrBusy error = errors.New("memory is held by a view, region or value")
)

// A RangeError says that a range does not lie inside of what it is a range of,
// usually the mapped bytes of a File, or that Len is wrong by itself: negative, or
// 0 where pieces were asked for. Nothing was done.
// errors.Is(err, fs.ErrInvalid) is true.
type RangeError struct {
	Op, Path string
	Off, Len int64 // the range asked for, in bytes
	Size     int64 // the bytes that there are
}

func (e *RangeError) Error() string {
	switch {
	case e.Len < 0:
		return fmt.Sprintf("%s %s: a length of %d bytes (at offset %d) is negative", e.Op, e.Path, e.Len, e.Off)
	case e.Len == 0 && e.Off >= 0 && e.Off <= e.Size: // no range is wrong with that
		return fmt.Sprintf("%s %s: pieces of 0 bytes (from offset %d on); they must have 1 or more", e.Op, e.Path, e.Off)
	}
	return fmt.Sprintf("%s %s: range of %d bytes at offset %d is outside of %d bytes",
		e.Op, e.Path, e.Len, e.Off, e.Size)
}

// Is reports whether target is fs.ErrInvalid.
func (e *RangeError) Is(target error) bool { return target == fs.ErrInvalid }

// An AlignError says that an offset does not suit a type: Options.Offset+Off is
// not a multiple of Align; for a secret, see [Anonymous], the size that it was made
// with, less Off, is not. Nothing was done.
// errors.Is(err, fs.ErrInvalid) is true.
type AlignError struct {
	Op, Path string
	Off      int64 // as it was given
	Align    int   // in bytes

	lead int64 // how far from the start of a page the memory begins, if it has no file
}

func (e *AlignError) Error() string {
	if align := int64(e.Align); e.lead > 0 {
		return fmt.Sprintf("%s %s: offset %d is not at a multiple of %d bytes, since memory for a secret ends where a page does; "+
			"the first that is: %d (0 if the size is a multiple of 8)", e.Op, e.Path, e.Off, e.Align, (align-e.lead%align)%align)
	}
	return fmt.Sprintf("%s %s: offset %d is not at a multiple of %d bytes of the file", e.Op, e.Path, e.Off, e.Align)
}

// Is reports whether target is fs.ErrInvalid.
func (e *AlignError) Is(target error) bool { return target == fs.ErrInvalid }

// An OptionError says which field of [Options] contradicts another one, is out
// of place, or asks for something that the platform lacks. Nothing was opened
// or changed. errors.Is(err, fs.ErrInvalid) is true, or, when Err says so,
// errors.Is(err, errors.ErrUnsupported).
type OptionError struct {
	Op, Path string
	Field    string // the name of the field
	Reason   string
	Err      error // fs.ErrInvalid or errors.ErrUnsupported
}

func (e *OptionError) Error() string {
	return e.Op + " " + e.Path + ": option " + e.Field + ": " + e.Reason
}

func (e *OptionError) Unwrap() error { return e.Err }

// A FaultError says that mapped memory could not be loaded from or stored to,
// which ends a program that touches it without a guard: the file was made
// shorter, its device failed, the disk is full, or the memory is read-only.
//
// Unwrap gives the reason, found by looking: io.ErrUnexpectedEOF if the file
// is now shorter, ErrReadOnly for a store into read-only memory, else the
// errno (ENOSPC, EIO).
type FaultError struct {
	Op, Path string
	Off      int64 // of the first page that is bad, counted from the first mapped byte
	FileOff  int64 // of the same byte in the file
	Err      error
}

func (e *FaultError) Error() string {
	s := e.Op + " " + e.Path + ": fault at offset " + strconv.FormatInt(e.Off, 10)
	if e.FileOff != e.Off {
		s += " (" + strconv.FormatInt(e.FileOff, 10) + " in the file)"
	}
	switch {
	case e.Err == nil: // made by a caller, for a test perhaps
		return s
	case errors.Is(e.Err, io.ErrUnexpectedEOF):
		return s + ": the file is now shorter"
	}
	return s + ": " + e.Err.Error()
}

func (e *FaultError) Unwrap() error { return e.Err }

// pathError is the form of all other errors. An error that has that form
// already keeps it.
func pathError(op, path string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
