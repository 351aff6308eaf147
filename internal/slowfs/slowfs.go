// Package slowfs is a file system for tests that is slow, fails, fills up or loses power on request.
//
// It is a FUSE file system served by a child process: a process that maps a file which it serves itself can
// stop for ever, since the fault holds the very thread, or the lock of the address space, that the answer needs.
// The child is the test binary run again. An init function sees an environment variable, serves and exits, so
// that a test needs no TestMain:
//
//	fs := slowfs.Start(t, slowfs.Options{ReadDelay: 2 * time.Millisecond})
//	fs.AddFile("big", 4<<30, slowfs.Offsets)
//	f, err := os.Open(fs.Path("big"))
//
// Everything is undone when the test ends, fails or panics. If the whole process dies, the child notices and
// unmounts. Only Linux can do this, as root; elsewhere Start skips the test, or fails it when MMAPIO_E2E=1.
//
// # What is durable
//
// The child keeps two images: what the kernel has written (WRITE, SETATTR, CREATE …), and what survives a power
// cut. FSYNC makes the data and the length that one file had when the FSYNC arrived durable when it is answered.
// FSYNCDIR makes the names in one directory durable. An FSYNC that fails drops what it should have kept: only
// writing the bytes again makes them durable by a later one, as on ext4 and XFS.
//
// # What FUSE does differently from a disk
//
//   - munmap of a shared mapping and close of any descriptor write dirty pages out and wait for it (WRITE, never
//     FSYNC). So does the exit of a process, before its descriptors are closed. Options.NoFlush stops it for close.
//   - A change of the length by ftruncate, growth too, throws the file's whole page cache away, locked pages too.
//     fallocate and a write beyond the end do not.
//   - Mappings that mlock has split stay apart after munlock: on FUSE the number of mappings only grows.
//   - fsync holds the lock of the inode: while FSYNC is held or slow, write(2), ftruncate and other fsyncs of the
//     file wait. Stores, populating and sync_file_range do not.
//   - A store into a hole of a full file system does not fault: page_mkwrite asks nobody. The ENOSPC arrives with
//     the write-back and is reported by the next fsync. Only ext4, tmpfs and the like answer with SIGBUS.
//   - An error that FSYNC returns is told to that caller only. For an error that every open file description
//     gets to hear once, fail WRITE instead.
//   - msync(MS_SYNC) of any range is an FSYNC of the whole file.
//   - The kernel asks FUSE for read-ahead of 128 KiB at most, in requests of MaxRequest at most. A read that
//     meets an unreadable page fails as a whole and is repeated page by page, as on a disk.
package slowfs

import (
	"encoding/binary"
	"time"
)

// Options says how the file system behaves from the start. The zero value is fast, unlimited and never fails.
type Options struct {
	// How long each request takes. Requests do not queue: any number are waited for side by side.
	ReadDelay, WriteDelay, FsyncDelay time.Duration

	Capacity int64 // bytes that fit; 0: no limit. Counted in blocks of 4 KiB; what is unlinked counts until it is closed

	WritebackCache bool // write(2) stays in the page cache too; otherwise it goes through at once. Stores through a mapping always stay
	DirectIO       bool // read(2) goes past the page cache, as sshfs -o direct_io has it: the kernel then maps files privately only
	NoFlush        bool // close neither writes dirty pages nor sends FLUSH: what a disk file system does

	// FsyncCommitsNames makes FSYNC of a file commit all names so far, as the journal of ext4 does.
	// Otherwise a name is durable after FSYNCDIR of its directory only, which is all that POSIX promises.
	FsyncCommitsNames bool

	MaxBackground int  // asynchronous requests that the kernel sends at once; 0: 1024. Read-ahead and write-back are such
	MaxRequest    int  // longest READ and WRITE in bytes; 0: 128 KiB; the kernel's limit is 1 MiB
	ReadAhead     int  // bytes (bdi read_ahead_kb); 0: the kernel's 128 KiB; negative: none. FUSE's own max_read_ahead can lower it only
	NoDirtyLimit  bool // FUSE may dirty 1 % of what disks may before writers are slowed down: lift that
}

// Op is a request that the kernel sends.
type Op string

// The requests that are logged and that a Rule can stop. Lookups and attributes are neither.
const (
	OpRead      Op = "READ"
	OpWrite     Op = "WRITE"
	OpFsync     Op = "FSYNC"
	OpFsyncDir  Op = "FSYNCDIR"
	OpFallocate Op = "FALLOCATE"
	OpSetattr   Op = "SETATTR"
	OpCreate    Op = "CREATE"
	OpOpen      Op = "OPEN"
	OpFlush     Op = "FLUSH"
	OpRelease   Op = "RELEASE" // sent some time after the last close; nobody waits for it
	OpUnlink    Op = "UNLINK"
	OpRename    Op = "RENAME"
	OpMkdir     Op = "MKDIR"
	OpRmdir     Op = "RMDIR"
)

// Entry is one request in the log, in the order of arrival.
type Entry struct {
	Op       Op
	Path     string // relative to the mount point; "." is the mount point, "" a file that a power cut took away
	To       string // RENAME: the new path
	Off      int64  // READ, WRITE, FALLOCATE
	Len      int64  // the same; SETATTR: the new length, -1 if it is not about the length
	Mode     uint32 // FALLOCATE
	Datasync bool   // FSYNC: fdatasync or msync rather than fsync
	Start    time.Time
	Took     time.Duration
	Done     bool // false: still being served
	Errno    int
}

// Err is the error that the request was answered with.
func (e Entry) Err() error { return errOf(e.Errno) }

// Rule changes what happens to some requests. Of several that match, delays add up, all holds are waited for and
// the first error is the answer.
type Rule struct {
	Op    Op
	Path  string        // "": every file
	Off   int64         // READ, WRITE, FALLOCATE: requests that touch [Off, Off+Len) …
	Len   int64         // … 0: to the end of everything
	Times int           // how many requests; 0: all until the rule is removed
	Delay time.Duration // wait longer
	Hold  bool          // wait until the rule is removed
	Err   error         `json:"-"` // answer with this syscall.Errno, after the waiting
}

// Stats counts requests since the start or the last ResetLog.
type Stats struct {
	Count map[Op]int
	Bytes map[Op]int64 // asked for
	Peak  map[Op]int   // most that were being served at the same time
	Held  int          // waiting now because of Rule.Hold
}

// Fill says what a file holds that takes no memory.
type Fill string

const (
	Zeros   Fill = ""        // a hole: occupies no space
	Offsets Fill = "offsets" // each 8 bytes are their own offset, little endian: every page is different; occupies its space
)

// Bytes writes into p what a file filled with f has at off.
func (f Fill) Bytes(p []byte, off int64) {
	if f != Offsets {
		clear(p)
		return
	}
	for len(p) > 0 {
		if off%8 == 0 && len(p) >= 8 {
			binary.LittleEndian.PutUint64(p, uint64(off))
			p, off = p[8:], off+8
			continue
		}
		p[0] = byte(off &^ 7 >> (8 * (off % 8)))
		p, off = p[1:], off+1
	}
}
