// Package mmapio maps files into memory, keeps pages in RAM, and does not crash.
//
//	f, err := mmapio.Open("index.bin")
//	if err != nil {
//		return err
//	}
//	defer f.Close()
//	if err := f.LockAll(); err != nil { // the pages are in RAM now, and stay
//		return err
//	}
//	return f.View(0, 64, func(b []byte) error { return parse(b) })
//
// # Three ways to the bytes
//
// [File.ReadAt], [File.WriteAt], [LoadAt] and [StoreAt] copy. [File.View],
// [File.Update], [File.Chunks], [File.Pages] and [File.UpdateChunks] lend the
// memory itself for the time of a call or a loop. [File.Region], [ValueAt] and
// [ValuesAt] hold it until they are released.
//
// All may be used by any number of goroutines at once, together with
// [File.Close], [File.Resize] and [File.Refresh]: nothing ever reads memory
// that was unmapped, or that is another file's by now.
//
// Concurrent accesses to the same bytes may tear, as with pread(2) and
// pwrite(2). The race detector does not see mapped memory. A CopyOnWrite File
// may show what others write to pages that it has not copied yet, and loses
// its copies beyond the new end when others make the file shorter.
//
// # Faults
//
// A page of a mapping may turn out not to be had: another process has made the
// file shorter, the disk fails or is full. In plain mapped memory that ends
// the program. Here the copying and lending calls return a [FaultError], and
// [Guard] does the same for what is held; its comment says what is beyond any
// guard.
//
// It is pages that are had or not. Of the page in which a file ends that others
// have made shorter nothing fails: what lies behind the end reads as zeroes, or as
// what was stored there, and what is stored there is not in the file, though the
// call succeeds, and Sync as well. [File.Refresh] looks how long the file is.
//
// # Locked pages
//
// [File.Lock] and [File.LockAll] bring pages into RAM and keep them there. The
// locks of a File are a set of bytes: they may overlap, they do not disturb
// each other, they go with the bytes through Resize, and an error leaves them
// as they were. With Options.Lock all that a File maps is locked, and what it
// grows by before anybody sees it. [File.VerifyLocked] asks the kernel.
// [LockError] says why a lock was refused and what to do; the usual reason is
// RLIMIT_MEMLOCK, see [ReadLockLimits] and [RaiseLockLimit].
//
// # Errors
//
// Errors are *RangeError, *AlignError, *OptionError, *FaultError or *LockError,
// or an *fs.PathError round an errno or one of [ErrReadOnly], [ErrBusy],
// fs.ErrClosed and errors.ErrUnsupported, or round the cause of a context that has
// ended. ReadAt returns io.EOF bare, and what a function of the caller's returns is
// returned as it is. A call looks at these things in this order: whether the File is
// closed, its mode, the type of a value, its alignment, the bounds.
//
// # Platforms
//
// Linux, Darwin, the BSDs and Windows map files. Elsewhere a file is read into
// the heap when it is opened, to be read only, and what needs more is
// errors.ErrUnsupported. docs/platforms.md says what was run where.
package mmapio
