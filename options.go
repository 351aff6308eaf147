package mmapio

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/mmapio/mmapio/internal/sys"
)

// Mode says what a File's memory allows and who sees what is stored to it.
type Mode int

const (
	// ReadOnly maps the file to be loaded from. A store is ErrReadOnly, or a
	// fault where it goes past the methods.
	ReadOnly Mode = iota
	// ReadWrite maps the file itself: stores change it, and every process that
	// maps or reads the file sees them at once.
	ReadWrite
	// CopyOnWrite maps the file privately: what is stored is seen through this
	// File alone, is gone after Close, and never reaches the file.
	CopyOnWrite
)

func (m Mode) String() string {
	switch m {
	case ReadOnly:
		return "ReadOnly"
	case ReadWrite:
		return "ReadWrite"
	case CopyOnWrite:
		return "CopyOnWrite"
	}
	return "Mode(" + strconv.Itoa(int(m)) + ")"
}

func (m Mode) access() sys.Access {
	switch m {
	case ReadWrite:
		return sys.Write
	case CopyOnWrite:
		return sys.Private
	}
	return sys.Read
}

// Options says how a file is opened and mapped. The zero value is what [Open]
// does: the whole of an existing file, to be read.
//
// Fields that contradict each other, and fields that the platform cannot
// honour, make the open fail with an [OptionError] that names the field,
// before anything is created or changed.
type Options struct {
	// Mode is what the memory allows. The fields Create, Exclusive, Truncate,
	// MinSize and Sparse need ReadWrite.
	Mode Mode

	// Create makes the file if it does not exist. Looking and making are one
	// step. If what follows fails, a file that this call made is removed.
	Create bool
	// Exclusive makes the open fail with fs.ErrExist if the file exists. It
	// needs Create.
	Exclusive bool
	// Truncate empties a file that exists. What it held is gone also when a
	// later step of the open fails, such as a MinSize that the disk has no room
	// for.
	Truncate bool
	// Perm is the permission of a file that Create makes, before the umask;
	// 0 means 0o666. It needs Create.
	Perm fs.FileMode

	// MinSize makes the file at least so many bytes long. It never makes it
	// shorter. Disk blocks are reserved for its first MinSize bytes, so that a full
	// disk is an error here and not a fault later. On Linux that fills old holes,
	// too; elsewhere they stay.
	MinSize int64
	// Sparse leaves it to the first store to find a disk block for what this
	// File adds to the file. A disk that is full by then is a fault.
	Sparse bool

	// Offset is the first byte of the file that is mapped; it needs no
	// alignment. Offsets in all methods count from there.
	Offset int64
	// Length is how many bytes are mapped; 0 means to the end of the file.
	Length int64

	// Reserve is an amount of address space, in bytes, that is kept free for
	// this File: Resize up to it never moves the mapping. It costs no memory.
	// Unsupported on Windows.
	Reserve int64

	// Lock keeps the whole mapping in RAM, and what Resize and Refresh add, as
	// Lock does: before they return, and before anybody sees the new Size. If
	// the pages cannot be locked, the open, Resize or Refresh fails with a
	// [LockError] and is undone: file, length and blocks are as they were, but
	// what Truncate emptied, and holes that MinSize gave blocks. It lasts until Unlock, which lowers it as any lock; what is added later is
	// locked all the same. Unsupported where the system cannot lock pages, and
	// LockOnFault on all but Linux 4.4 and later.
	Lock LockMode

	// Populate brings every page into memory before the open returns. If that
	// fails the open fails.
	Populate bool
	// Prefault is the widest range, in bytes, that View, Update, UpdateChunks (of
	// a piece), Region, ValueAt and ValuesAt bring into memory, by a system call
	// that no other goroutine has to wait for, before they give it to the caller.
	// 0 means 1 MiB; with a negative value they never do. What is wider is left
	// to page faults, each of which holds up other goroutines until the disk has
	// answered. ReadAt, WriteAt, LoadAt, StoreAt, Chunks and Pages always bring in
	// what they touch.
	Prefault int64
	// HugePages asks for transparent huge pages, and maps the file where the
	// system could use them. It is a hint, the only option that may be ignored:
	// [Residency] tells what came of it. To ask costs no memory and changes
	// nothing; a page of Anonymous memory that is stored to may bring its huge
	// page with it. AdviceHugePage says what the systems do.
	HugePages bool

	// Sync says when what is written is synced without being asked. It needs
	// ReadWrite and a descriptor.
	Sync SyncPolicy

	// NoDump keeps the pages out of core dumps (Linux, FreeBSD, DragonFly).
	NoDump bool
	// NoFork keeps the pages out of child processes (Linux and the BSDs, but not
	// OpenBSD). A child that touches them crashes; programs started by os/exec
	// never have any of them.
	NoFork bool

	// DropFD closes the descriptor once the file is mapped, for tens of
	// thousands of Files at a time. What needs it is then
	// errors.ErrUnsupported: Resize, Refresh, Stat, SyscallConn, and Sync of a
	// ReadWrite File. To find out why a page cannot be had the file is opened
	// for a moment, if its name still leads to it. POSIX record locks of the
	// process on the file end with the descriptor, as with Close.
	DropFD bool
}

// check finds contradictions. how is "open", "map" or "anonymous".
func (o *Options) check(how, path string) error {
	bad := func(field, reason string) error {
		return &OptionError{Op: how, Path: path, Field: field, Reason: reason, Err: fs.ErrInvalid}
	}
	if o.Mode < ReadOnly || o.Mode > CopyOnWrite {
		return bad("Mode", "there is no "+o.Mode.String())
	}
	if o.Lock < LockNone || o.Lock > LockOnFault {
		return bad("Lock", "there is no "+o.Lock.String())
	}
	for _, n := range []struct {
		field string
		value int64
	}{{"MinSize", o.MinSize}, {"Offset", o.Offset}, {"Length", o.Length}, {"Reserve", o.Reserve}} {
		if n.value < 0 {
			return bad(n.field, "is negative: "+strconv.FormatInt(n.value, 10))
		}
	}
	if reason := o.Sync.check(); reason != "" {
		return bad("Sync", reason)
	}
	if how == opAnonymous {
		if field := first(use{"Mode", o.Mode == CopyOnWrite}, use{"Create", o.Create},
			use{"Exclusive", o.Exclusive}, use{"Truncate", o.Truncate}, use{"Perm", o.Perm != 0},
			use{"MinSize", o.MinSize != 0}, use{"Sparse", o.Sparse}, use{"Offset", o.Offset != 0},
			use{"Length", o.Length != 0}, use{"DropFD", o.DropFD},
			use{"Sync", o.Sync != SyncPolicy{}}); field != "" {
			return bad(field, "means nothing for memory with no file behind it")
		}
		return nil
	}
	if how == opMap {
		if field := first(use{"Create", o.Create}, use{"Exclusive", o.Exclusive},
			use{"Perm", o.Perm != 0}); field != "" {
			return bad(field, "the file is open already")
		}
	}
	if o.Mode != ReadWrite {
		if field := first(use{"Create", o.Create}, use{"Exclusive", o.Exclusive}, use{"Truncate", o.Truncate},
			use{"MinSize", o.MinSize != 0}, use{"Sparse", o.Sparse},
			use{"Sync", o.Sync != SyncPolicy{}}); field != "" {
			return bad(field, "needs Mode ReadWrite, not "+o.Mode.String())
		}
	}
	switch {
	case o.Sync != SyncPolicy{} && o.DropFD:
		return bad("Sync", "needs the descriptor that DropFD closes")
	case o.Exclusive && !o.Create:
		return bad("Exclusive", "needs Create")
	case o.Perm != 0 && !o.Create:
		return bad("Perm", "needs Create")
	case o.Perm&^fs.ModePerm != 0:
		return bad("Perm", fmt.Sprintf("has more than permission bits: %v (%#o)", o.Perm, uint32(o.Perm)))
	case o.Length > 0 && o.Offset > maxInt64-o.Length:
		return &RangeError{Op: how, Path: path, Off: o.Offset, Len: o.Length, Size: maxInt64}
	case o.Reserve > 0 && o.Length > 0:
		return bad("Reserve", "a File opened with Length is never resized")
	}
	return nil
}

// A use is a field and whether it is set; first names the first that is.
type use struct {
	field string
	set   bool
}

func first(uses ...use) string {
	for _, u := range uses {
		if u.set {
			return u.field
		}
	}
	return ""
}

// supported finds what the platform lacks.
func (o *Options) supported(how, path string) error {
	missing := func(field, reason string) error {
		return &OptionError{Op: how, Path: path, Field: field, Reason: reason, Err: errors.ErrUnsupported}
	}
	if o.Reserve > 0 && !sys.CanReserve {
		return missing("Reserve", "this system cannot keep address space free")
	}
	if !fit(o.Reserve) {
		return missing("Reserve", tooLarge(o.Reserve))
	}
	switch {
	case o.Lock == LockNone:
	case !sys.Faults: // files are read into the heap
		return missing("Lock", "this system cannot lock pages")
	case o.Lock == LockOnFault && !sys.LocksOnFault():
		return missing("Lock", "this system cannot lock pages as they come in; LockNow brings them in at once")
	}
	if o.NoDump && !sys.Advises(sys.NoDump) {
		return missing("NoDump", "this system cannot keep pages out of core dumps")
	}
	if o.NoFork && !sys.Advises(sys.NoFork) {
		return missing("NoFork", "this system cannot keep pages out of child processes")
	}
	if o.Create {
		return o.storable(how, path, max(o.Length, o.MinSize-o.Offset)) // before a file is made
	}
	return nil
}

// storable refuses to map n bytes of a file to be stored to where files are
// read into the heap.
func (o *Options) storable(how, path string, n int64) error {
	if sys.Faults || o.Mode != ReadWrite || n <= 0 {
		return nil
	}
	const reason = "this system cannot map a file to be stored to"
	return &OptionError{Op: how, Path: path, Field: "Mode", Reason: reason, Err: errors.ErrUnsupported}
}

const maxInt64 = 1<<63 - 1

// Names of the ways to open, as they stand in errors.
const (
	opOpen      = "open"
	opMap       = "map"
	opAnonymous = "anonymous"
)

func tooLarge(n int64) string {
	return strconv.FormatInt(n, 10) + " bytes do not fit into the address space of this " +
		strconv.Itoa(strconv.IntSize) + "-bit process"
}
