package mmapio

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"weak"

	"github.com/mmapio/mmapio/internal/lockset"
	"github.com/mmapio/mmapio/internal/sys"
)

// OpenFile opens and maps a file as the options say; nil means the zero value.
// The options are copied. What is not a regular file (a directory, a FIFO, a
// socket, a device) is refused without waiting for it.
func OpenFile(name string, opts *Options) (*File, error) {
	o := copied(opts)
	if err := o.check(opOpen, name); err != nil {
		return nil, err
	}
	if err := o.supported(opOpen, name); err != nil {
		return nil, err
	}
	file, made, err := openRegular(name, &o)
	if err != nil {
		return nil, err
	}
	f, err := mapOpened(opOpen, name, file, &o, made, false)
	if err != nil {
		mine := made != "" && is(file, made)
		file.Close() //nolint:errcheck // the first error counts
		if mine {
			os.Remove(made) //nolint:errcheck // as above
		}
		return nil, err
	}
	return f, nil
}

// is reports whether a file still has the name: somebody may have put another
// there.
func is(file *os.File, name string) bool {
	info, err := file.Stat()
	now, errNow := os.Lstat(name)
	return err == nil && errNow == nil && os.SameFile(info, now)
}

// cutBack gives a file the length before again if it still has the length after,
// that it was given. What somebody has added since stays, with the rest, and so does
// what came right before the file became longer, which no look at the length shows.
func cutBack(file *os.File, before, after int64) error {
	info, err := file.Stat()
	if err != nil || info.Size() != after || before >= after {
		return err
	}
	b := make([]byte, min(after-before, int64(sys.PageSize())))
	if n, _ := file.ReadAt(b, before); !zero(b[:n]) { //nolint:errcheck // what can be read counts
		return nil
	}
	return file.Truncate(before)
}

// Map maps an open file. f stays the caller's: it may be closed at once, and
// its offset is not moved. f must have been opened for reading, for ReadWrite
// also for writing, without os.O_APPEND.
//
// On Linux the File opens f's file anew, also one that was deleted, so that a
// failed write-back, which the kernel reports once for each open file
// description, is reported to both. Where that is refused, and on systems
// that cannot do it, the descriptor is duplicated, and an error that f.Sync
// has returned may be missing from the File's Sync. With either comes a descriptor
// whose end ends the process's POSIX record locks on the file, see [File.Close]: an
// error of Map may do that, too.
func Map(f *os.File, opts *Options) (*File, error) {
	o := copied(opts)
	name := ""
	if f != nil {
		name = f.Name()
	}
	if err := o.check(opMap, name); err != nil {
		return nil, err
	}
	if err := o.supported(opMap, name); err != nil {
		return nil, err
	}
	d, err := sys.Describe(f) // first: on Windows, Stat does not say that f is closed
	if err != nil {
		return nil, pathError(opMap, name, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, pathError(opMap, name, err)
	}
	if err := regular(opMap, name, info); err != nil {
		return nil, err
	}
	switch {
	case !d.Read:
		return nil, pathError(opMap, name, &sentinel{"the file is not open for reading", fs.ErrPermission})
	case o.Mode == ReadWrite && !d.Write:
		return nil, pathError(opMap, name, &sentinel{"the file is not open for writing", fs.ErrPermission})
	case o.Mode == ReadWrite && d.Append:
		return nil, pathError(opMap, name, &sentinel{"the file is open for appending; open it without O_APPEND", fs.ErrInvalid})
	}
	own, shared, err := sys.Reopen(f, o.Mode == ReadWrite)
	if err != nil {
		return nil, pathError(opMap, name, err)
	}
	m, err := mapOpened(opMap, name, own, &o, "", shared)
	if err != nil {
		own.Close() //nolint:errcheck // the first error counts
		return nil, err
	}
	return m, nil
}

// Anonymous maps zeroed memory with no file behind it, private to the process
// and always ReadWrite. Options takes Reserve, Lock, Populate, Prefault,
// HugePages, NoDump and NoFork; nil means the zero value. Sync does nothing and
// succeeds. On both sides lies a page that cannot be touched, except where memory
// comes from Go's heap (all but Linux, Windows, Darwin and the BSDs).
//
// With Lock, NoDump and NoFork together it is memory for a secret. It is
// zeroed before it is given back, by Close, by a Resize that cuts it off or
// moves it, or by the garbage collector, and stays locked until then, also
// while something holds it past Close. And without Reserve its last byte is
// the last of its page: to touch the one behind it is a fault, until Resize
// changes the size. It starts where that puts it, also afterwards, so a value of
// n bytes lies right at offsets where size-off is a multiple of its alignment; if
// size is a multiple of 8, that is so as everywhere.
func Anonymous(size int64, opts *Options) (*File, error) {
	o := copied(opts)
	if err := o.check(opAnonymous, opAnonymous); err != nil {
		return nil, err
	}
	if err := o.supported(opAnonymous, opAnonymous); err != nil {
		return nil, err
	}
	if size < 0 {
		return nil, &RangeError{Op: opAnonymous, Path: opAnonymous, Len: size, Size: maxInt64}
	}
	o.Mode = ReadWrite
	f := &File{src: &source{name: opAnonymous, mode: ReadWrite, off: o.secretLead(size)}, opts: o}
	return f.start(opAnonymous, size)
}

func copied(opts *Options) Options {
	if opts == nil {
		return Options{}
	}
	return *opts
}

// openRegular opens the file by name, or makes it: made is its name then, which
// is another one where a link led to nothing.
func openRegular(name string, o *Options) (file *os.File, made string, err error) {
	flag := os.O_RDONLY
	if o.Mode == ReadWrite {
		flag = os.O_RDWR
	}
	perm := o.Perm
	if perm == 0 {
		perm = 0o666
	}
	// To open a device can do things, so the first look is by name. The second,
	// at what was really opened, cannot be cheated.
	switch info, err := os.Stat(name); {
	case err == nil && o.Exclusive:
		return nil, "", pathError(opOpen, name, fs.ErrExist)
	case err == nil:
		if err := regular(opOpen, name, info); err != nil {
			return nil, "", err
		}
	case !o.Create || !errors.Is(err, fs.ErrNotExist):
		return nil, "", pathError(opOpen, name, err)
	}
	if o.Create {
		// To know whether this call made the file, O_EXCL must have said so.
		if file, err = sys.OpenFile(name, flag|os.O_CREATE|os.O_EXCL, perm); err == nil {
			made = name
		}
	}
	if made == "" && !o.Exclusive {
		if !o.Create || errors.Is(err, fs.ErrExist) {
			file, err = sys.OpenFile(name, flag, 0)
		}
		if o.Create && errors.Is(err, fs.ErrNotExist) {
			// It was removed in between, or the name is a link to nowhere.
			target := leadsTo(name)
			if file, err = sys.OpenFile(target, flag|os.O_CREATE|os.O_EXCL, perm); err == nil {
				made = target
			} else {
				file, err = sys.OpenFile(name, flag|os.O_CREATE, perm)
			}
		}
	}
	if err != nil {
		return nil, "", pathError(opOpen, name, err)
	}
	info, err := file.Stat()
	if err == nil {
		err = regular(opOpen, name, info)
	}
	if err != nil {
		file.Close() //nolint:errcheck // the first error counts
		return nil, "", pathError(opOpen, name, err)
	}
	return file, made, nil
}

// leadsTo follows links to where a file would be made.
func leadsTo(name string) string {
	for range 40 { // more would be ELOOP
		to, err := os.Readlink(name)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			dir, _ := filepath.Split(name)
			to = dir + to // as it is: ".." after a link is not what it seems
		}
		name = to
	}
	return name
}

// directoryOf returns the absolute name of the directory that a file lies in. What
// package filepath makes of ".." after a link is another one.
func directoryOf(name string) (string, error) {
	dir, _ := filepath.Split(name)
	switch {
	case !strings.Contains(dir, ".."):
		return filepath.Abs(dir)
	case filepath.IsAbs(dir):
		return dir, nil
	}
	here, err := os.Getwd()
	return here + string(filepath.Separator) + dir, err
}

// regular refuses what cannot be mapped as a file.
func regular(op, name string, info fs.FileInfo) error {
	var kind string
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		kind = "a directory"
	case mode&fs.ModeNamedPipe != 0:
		kind = "a named pipe"
	case mode&fs.ModeSocket != 0:
		kind = "a socket"
	case mode&fs.ModeDevice != 0:
		kind = "a device"
	default:
		kind = "not a regular file"
	}
	return pathError(op, name, &sentinel{"is " + kind + "; only regular files can be mapped", fs.ErrInvalid})
}

// mapOpened sizes the file and maps it. made is its name if this call made it,
// shared is as in a source. The caller closes file on error.
func mapOpened(op, name string, file *os.File, o *Options, made string, shared bool) (*File, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, pathError(op, name, err)
	}
	before := info.Size()
	size := before
	if o.Truncate {
		size = 0
	}
	size = max(size, o.MinSize)
	length := o.Length
	if length == 0 {
		length = size - o.Offset
	}
	if o.Offset > size || length > size-o.Offset {
		return nil, &RangeError{Op: op, Path: name, Off: o.Offset, Len: o.Length, Size: size}
	}
	if err := o.storable(op, name, length); err != nil {
		return nil, err
	}
	if err := fits(op, name, length); err != nil {
		return nil, err
	}
	if err := o.reservable(op, name); err != nil {
		return nil, err
	}
	if size == 0 {
		// Nothing is mapped yet that would find it out. Many have no length.
		if err := sys.CheckMappable(file, info, o.Mode.access()); err != nil {
			return nil, pathError(op, name, err)
		}
	}
	// Everything that can be refused was; from here on the file changes.
	if o.Truncate && before > 0 {
		if err := file.Truncate(0); err != nil {
			return nil, pathError(op, name, err)
		}
		before = 0
	}
	if o.MinSize > 0 {
		if before, err = ensureSize(file, before, o.MinSize, o.Sparse); err != nil {
			return nil, pathError(op, name, err)
		}
	}
	f := &File{
		src: &source{
			name: name, mode: o.Mode, off: o.Offset, file: file, info: info,
			huge: sys.HugeFile(file, info), shared: shared,
		},
		opts: *o,
	}
	if o.Mode == ReadWrite {
		f.syncer = &syncer{src: f.src}
	}
	if made != "" {
		// Now, since the program may change its directory before it syncs.
		if f.syncer.dir, err = directoryOf(made); err != nil {
			return nil, pathError(op, name, err)
		}
	}
	f.setPolicy(o.Sync)
	f, err = f.start(op, length)
	if err != nil {
		if size > before && made == "" {
			cutBack(file, before, size) //nolint:errcheck // the first error counts
			cutAt(info, before)
		}
		return nil, err
	}
	if o.DropFD {
		f.src.uncached = !sys.PageCached(file)
		f.src.file = nil
		if err := file.Close(); err != nil {
			f.Close() //nolint:errcheck // the first error counts
			return nil, pathError(op, name, err)
		}
	}
	return f, nil
}

// start maps the first generation.
func (f *File) start(op string, size int64) (*File, error) {
	if f.opts.HugePages {
		f.advised.huge = f.advised.huge.with(0, noEnd, sys.HugePages)
	}
	g, err := f.mapNew(op, size, max(size, f.opts.Reserve))
	if err != nil {
		return nil, err
	}
	f.src.owner = weak.Make(f)
	if f.wide = f.opts.Prefault; f.wide == 0 {
		f.wide = prefaultDefault
	}
	f.locks.init()
	f.cur.Store(g)
	if f.opts.Populate && size > 0 {
		err = f.bringIn(context.Background(), op, 0, size)
	}
	f.locks.onFault.Store(f.opts.Lock == LockOnFault) // also of an empty File, that grows
	if level := f.opts.Lock.level(); err == nil && level != lockset.None && size > 0 {
		err = f.raise(context.Background(), &lockCall{op: op, n: size, level: level})
	}
	if err != nil {
		f.endLocks(g)
		g.mem.retire()
		return nil, err
	}
	return f, nil
}
