package mmapio_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// classes are all that a caller can ask an error for.
var classes = map[string]func(error) bool{
	"closed":      is(fs.ErrClosed),
	"invalid":     is(fs.ErrInvalid),
	"exist":       is(fs.ErrExist),
	"not exist":   is(fs.ErrNotExist),
	"permission":  is(fs.ErrPermission),
	"unsupported": is(errors.ErrUnsupported),
	"read-only":   is(mmapio.ErrReadOnly),
	"busy":        is(mmapio.ErrBusy),
	"eof":         is(io.EOF),
	"short":       is(io.ErrUnexpectedEOF),
	"cancelled":   is(context.Canceled),

	"path":   isA[*fs.PathError],
	"range":  isA[*mmapio.RangeError],
	"align":  isA[*mmapio.AlignError],
	"option": isA[*mmapio.OptionError],
	"fault":  isA[*mmapio.FaultError],
	"lock":   isA[*mmapio.LockError],
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func isA[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

// classOf lists the classes of an error in order, "none" for no error.
func classOf(err error) string {
	if err == nil {
		return "none"
	}
	var of []string
	for name, in := range classes {
		if in(err) {
			of = append(of, name)
		}
	}
	slices.Sort(of)
	return strings.Join(of, " ")
}

// A situation is what a call meets. unlike names the systems that differ for a
// reason of theirs, and the class there.
type situation struct {
	name   string
	err    func(t *testing.T) error
	want   string
	unlike map[string]string
}

// word has an alignment.
type word = uint32

// TestErrorClasses: the same call in the same situation is an error of the same
// classes on every system where files are mapped, Linux and Windows among them.
func TestErrorClasses(t *testing.T) {
	needMaps(t)
	for _, s := range slices.Concat(openSituations(), callSituations(), closedSituations(), changeSituations()) {
		t.Run(s.name, func(t *testing.T) {
			want := s.want
			if other, ok := s.unlike[runtime.GOOS]; ok {
				want = other
			}
			if err := s.err(t); classOf(err) != want {
				t.Errorf("is %q, want %q: %v", classOf(err), want, err)
			}
		})
	}
}

func openSituations() []situation {
	rw, cow := mmapio.ReadWrite, mmapio.CopyOnWrite
	open := func(name string, o mmapio.Options, want string) situation {
		return situation{name: "open " + name, want: want, err: func(t *testing.T) error {
			path, _ := patternFile(t, 2*pageSize)
			f, err := mmapio.OpenFile(path, &o)
			if err == nil {
				f.Close()
			}
			return err
		}}
	}
	at := func(name, want string, do func(dir string) (*mmapio.File, error)) situation {
		return situation{name: "open " + name, want: want, err: func(t *testing.T) error {
			f, err := do(tempDir(t))
			if err == nil {
				f.Close()
			}
			return err
		}}
	}
	flag := func(name string, flag int, o mmapio.Options, want string) situation {
		return situation{name: "map " + name, want: want, err: func(t *testing.T) error {
			path, _ := patternFile(t, 2*pageSize)
			file, err := os.OpenFile(path, flag, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			f, err := mmapio.Map(file, &o)
			if err == nil {
				f.Close()
			}
			return err
		}}
	}
	all := []situation{
		open("well", mmapio.Options{}, "none"),
		open("no such mode", mmapio.Options{Mode: 7}, "invalid option"),
		open("Create read-only", mmapio.Options{Create: true}, "invalid option"),
		open("Truncate private", mmapio.Options{Mode: cow, Truncate: true}, "invalid option"),
		open("Exclusive without Create", mmapio.Options{Mode: rw, Exclusive: true}, "invalid option"),
		open("Perm without Create", mmapio.Options{Mode: rw, Perm: 0o600}, "invalid option"),
		open("Perm too much", mmapio.Options{Mode: rw, Create: true, Perm: fs.ModeDir}, "invalid option"),
		open("negative Offset", mmapio.Options{Offset: -1}, "invalid option"),
		open("negative Length", mmapio.Options{Length: -1}, "invalid option"),
		open("negative MinSize", mmapio.Options{Mode: rw, MinSize: -1}, "invalid option"),
		open("negative Reserve", mmapio.Options{Reserve: -1}, "invalid option"),
		open("Reserve with Length", mmapio.Options{Reserve: 1, Length: 1}, "invalid option"),
		open("Offset past the end", mmapio.Options{Offset: 2*pageSize + 1}, "invalid range"),
		open("Length past the end", mmapio.Options{Offset: pageSize, Length: pageSize + 1}, "invalid range"),
		open("Offset and Length overflow", mmapio.Options{Offset: math.MaxInt64, Length: math.MaxInt64}, "invalid range"),
		open("it exists", mmapio.Options{Mode: rw, Create: true, Exclusive: true}, "exist path"),
		at("not there", "not exist path", func(dir string) (*mmapio.File, error) { return mmapio.Open(filepath.Join(dir, "no")) }),
		at("no directory", "not exist path", func(dir string) (*mmapio.File, error) {
			return mmapio.Create(filepath.Join(dir, "no", "file"), 1)
		}),
		at("a directory", "invalid path", func(dir string) (*mmapio.File, error) { return mmapio.Open(dir) }),
		at("a directory to write", "invalid path", func(dir string) (*mmapio.File, error) {
			return mmapio.OpenFile(dir, &mmapio.Options{Mode: rw})
		}),
		at("an empty name", "not exist path", func(string) (*mmapio.File, error) { return mmapio.Open("") }),
		at("a name with a zero", "path", func(dir string) (*mmapio.File, error) {
			return mmapio.Open(filepath.Join(dir, "a\x00b"))
		}),
		at("the null device", "invalid path", func(string) (*mmapio.File, error) { return mmapio.Open(os.DevNull) }),
		at("negative size", "invalid option", func(dir string) (*mmapio.File, error) {
			return mmapio.Create(filepath.Join(dir, "file"), -1)
		}),
		flag("well", os.O_RDONLY, mmapio.Options{}, "none"),
		flag("not for writing", os.O_RDONLY, mmapio.Options{Mode: rw}, "path permission"),
		flag("not for reading", os.O_WRONLY, mmapio.Options{}, "path permission"),
		flag("for appending", os.O_RDWR|os.O_APPEND, mmapio.Options{Mode: rw}, "invalid path"),
		flag("with Create", os.O_RDWR, mmapio.Options{Mode: rw, Create: true}, "invalid option"),
		{name: "map nil", want: "invalid path", err: func(*testing.T) error { _, err := mmapio.Map(nil, nil); return err }},
		{name: "map closed", want: "closed path", err: func(t *testing.T) error {
			path, _ := patternFile(t, 1)
			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			file.Close()
			_, err = mmapio.Map(file, nil)
			return err
		}},
		{name: "write what may not be written", want: "path permission", err: func(t *testing.T) error {
			prove.WineLacks(t, "access rights, where root runs it")
			path, _ := patternFile(t, 1)
			if err := os.Chmod(path, 0o444); err != nil {
				t.Fatal(err)
			}
			if os.Geteuid() == 0 { // who may write everything
				res := writeChild.Run(t, prove.Args(path), prove.AsNobody())
				if res.Code != 0 || res.Output != "path permission\n" {
					t.Fatal(res)
				}
				return &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
			}
			t.Cleanup(func() { _ = os.Chmod(path, 0o600) }) // Windows does not remove it else
			_, err := mmapio.OpenFile(path, &mmapio.Options{Mode: rw})
			return err
		}},
		{name: "anonymous negative", want: "invalid range", err: func(*testing.T) error { _, err := mmapio.Anonymous(-1, nil); return err }},
		{name: "anonymous DropFD", want: "invalid option", err: func(*testing.T) error {
			_, err := mmapio.Anonymous(1, &mmapio.Options{DropFD: true})
			return err
		}},
		{name: "anonymous too large", want: "option unsupported", err: func(*testing.T) error {
			_, err := mmapio.Anonymous(math.MaxInt64, nil)
			return err
		}},
		// Windows can neither keep address space free for a file nor lock on
		// fault, which only Linux can.
		{name: "open Reserve", want: "none", unlike: map[string]string{"windows": "option unsupported"}, err: func(t *testing.T) error {
			path, _ := patternFile(t, 1)
			f, err := mmapio.OpenFile(path, &mmapio.Options{Reserve: pageSize})
			if err == nil {
				f.Close()
			}
			return err
		}},
	}
	return all
}

// callSituations are calls with arguments that do not suit.
func callSituations() []situation {
	var all []situation
	ranged := map[string]func(f *mmapio.File, off, n int64) error{
		"View":    func(f *mmapio.File, off, n int64) error { return f.View(off, n, func([]byte) error { return nil }) },
		"Region":  func(f *mmapio.File, off, n int64) error { _, err := f.Region(off, n); return err },
		"Section": func(f *mmapio.File, off, n int64) error { _, err := f.Section(off, n); return err },
		"Lock":    (*mmapio.File).Lock,
		"Unlock":  (*mmapio.File).Unlock,
		"Pin":     func(f *mmapio.File, off, n int64) error { _, err := f.Pin(off, n); return err },
		"ValuesAt": func(f *mmapio.File, off, n int64) error {
			_, err := mmapio.ValuesAt[uint8](f, off, int(min(n, math.MaxInt32)))
			return err
		},
		"SyncRange":    (*mmapio.File).SyncRange,
		"StartSync":    (*mmapio.File).StartSync,
		"Chunks":       func(f *mmapio.File, off, n int64) error { return firstError(f.Chunks(off, n, 1)) },
		"Pages":        func(f *mmapio.File, off, n int64) error { return firstError(f.Pages(off, n)) },
		"VerifyLocked": (*mmapio.File).VerifyLocked,
		"LockContext":  func(f *mmapio.File, off, n int64) error { return f.LockContext(context.Background(), off, n, nil) },
		"UpdateChunks": func(f *mmapio.File, off, n int64) error {
			return f.UpdateChunks(off, n, 9, func(mmapio.Chunk) error { return nil })
		},
		"Update":       func(f *mmapio.File, off, n int64) error { return f.Update(off, n, func([]byte) error { return nil }) },
		"WriteAt of 3": func(f *mmapio.File, off, _ int64) error { _, err := f.WriteAt(make([]byte, 3), off); return err },
		"StoreAt of 1": func(f *mmapio.File, off, _ int64) error { return mmapio.StoreAt(f, off, uint8(1)) },
		"LoadAt of 1":  func(f *mmapio.File, off, _ int64) error { _, err := mmapio.LoadAt[uint8](f, off); return err },
		"ValueAt of 1": func(f *mmapio.File, off, _ int64) error { _, err := mmapio.ValueAt[uint8](f, off); return err },
	}
	size := 2 * pageSize
	for name, call := range ranged {
		for what, r := range map[string][2]int64{
			"negative offset": {-1, 3}, "past the end": {size, 3}, "far past the end": {math.MaxInt64, 3},
			"negative length": {-math.MaxInt64, -1}, "overflow": {math.MaxInt64 - 1, math.MaxInt64 - 1},
		} {
			all = append(all, situation{name: name + " " + what, want: "invalid range", err: func(t *testing.T) error {
				path, _ := patternFile(t, size)
				return call(mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite}), r[0], r[1])
			}})
		}
	}
	on := func(name, want string, o mmapio.Options, call func(f *mmapio.File) error) {
		all = append(all, situation{name: name, want: want, err: func(t *testing.T) error {
			path, _ := patternFile(t, size)
			return call(mustOpen(t, path, &o))
		}})
	}
	ro, rw := mmapio.Options{}, mmapio.Options{Mode: mmapio.ReadWrite}
	on("ReadAt negative", "invalid range", ro, func(f *mmapio.File) error { _, err := f.ReadAt(make([]byte, 1), -1); return err })
	on("ReadAt at the end", "eof", ro, func(f *mmapio.File) error { _, err := f.ReadAt(make([]byte, 1), size); return err })
	on("ReadAt across the end", "eof", ro, func(f *mmapio.File) error { _, err := f.ReadAt(make([]byte, 9), size-1); return err })
	on("WriteAt across the end", "invalid range", rw, func(f *mmapio.File) error { _, err := f.WriteAt(make([]byte, 9), size-1); return err })
	on("Chunks of 0", "invalid range", ro, func(f *mmapio.File) error { return firstError(f.Chunks(0, 1, 0)) })
	on("LoadAt misaligned", "align invalid", ro, func(f *mmapio.File) error { _, err := mmapio.LoadAt[word](f, 2); return err })
	on("StoreAt misaligned", "align invalid", rw, func(f *mmapio.File) error { return mmapio.StoreAt(f, 2, word(1)) })
	on("ValueAt misaligned", "align invalid", ro, func(f *mmapio.File) error { _, err := mmapio.ValueAt[word](f, 1); return err })
	on("ValuesAt misaligned", "align invalid", ro, func(f *mmapio.File) error { _, err := mmapio.ValuesAt[word](f, 1, 1); return err })
	on("LoadAt misaligned by Offset", "align invalid", mmapio.Options{Offset: 1}, func(f *mmapio.File) error { _, err := mmapio.LoadAt[word](f, 0); return err })
	on("LoadAt of a pointer", "invalid path", ro, func(f *mmapio.File) error { _, err := mmapio.LoadAt[*int](f, 0); return err })
	on("WriteAt read-only", "path permission read-only", ro, func(f *mmapio.File) error { _, err := f.WriteAt([]byte("x"), 0); return err })
	on("Update read-only", "path permission read-only", ro, func(f *mmapio.File) error { return f.Update(0, 1, func([]byte) error { return nil }) })
	on("StoreAt read-only", "path permission read-only", ro, func(f *mmapio.File) error { return mmapio.StoreAt(f, 0, word(1)) })
	on("UpdateChunks read-only", "path permission read-only", ro, func(f *mmapio.File) error {
		return f.UpdateChunks(0, 1, 1, func(mmapio.Chunk) error { return nil })
	})
	on("a store through a View", "fault permission read-only", ro, func(f *mmapio.File) error {
		return f.View(0, 1, func(b []byte) error { b[0] = 1; return nil })
	})
	on("LockContext cancelled", "cancelled path", rw, func(f *mmapio.File) error {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		return f.LockContext(ctx, 0, 1, nil)
	})
	onFault := situation{name: "LockContext OnFault", want: "path unsupported", unlike: map[string]string{"linux": "none"}, err: func(t *testing.T) error {
		needLocks(t)
		if runtime.GOOS == "linux" {
			prove.Need(t, prove.Advice) // without which locks bring pages in
		}
		path, _ := patternFile(t, size)
		return mustOpen(t, path, nil).LockContext(context.Background(), 0, 1, &mmapio.LockOptions{OnFault: true})
	}}
	return append(all, onFault)
}

func firstError(seq func(func(mmapio.Chunk, error) bool)) error {
	for _, err := range seq {
		return err
	}
	return nil
}

// closedSituations are the calls on a closed File.
func closedSituations() []situation {
	var all []situation
	for name, call := range map[string]func(f *mmapio.File) error{
		"Close": (*mmapio.File).Close, "Sync": (*mmapio.File).Sync, "LockAll": (*mmapio.File).LockAll, "UnlockAll": (*mmapio.File).UnlockAll,
		"Resize":      func(f *mmapio.File) error { return f.Resize(-1) },
		"Refresh":     func(f *mmapio.File) error { _, err := f.Refresh(); return err },
		"Stat":        func(f *mmapio.File) error { _, err := f.Stat(); return err },
		"SyscallConn": func(f *mmapio.File) error { _, err := f.SyscallConn(); return err },
		"ReadAt":      func(f *mmapio.File) error { _, err := f.ReadAt(make([]byte, 1), -1); return err },
		"WriteAt":     func(f *mmapio.File) error { _, err := f.WriteAt(make([]byte, 1), -1); return err },
		"View":        func(f *mmapio.File) error { return f.View(-1, 1, nil) },
		"LoadAt":      func(f *mmapio.File) error { _, err := mmapio.LoadAt[uint64](f, 1); return err },
		"Lock":        func(f *mmapio.File) error { return f.Lock(-1, 1) },
		"Pin":         func(f *mmapio.File) error { _, err := f.Pin(-1, 1); return err },
		"Residency":   func(f *mmapio.File) error { _, err := f.Residency(-1, 1); return err },
	} {
		for _, mode := range allModes {
			all = append(all, situation{name: fmt.Sprintf("closed %v %s", mode, name), want: "closed path", err: func(t *testing.T) error {
				path, _ := patternFile(t, pageSize)
				f := mustOpen(t, path, &mmapio.Options{Mode: mode})
				mustClose(t, f)
				return call(f)
			}})
		}
	}
	return all
}

// changeSituations are changes of size, and files that others change.
func changeSituations() []situation {
	size := 4 * pageSize
	var all []situation
	on := func(name, want string, o mmapio.Options, call func(t *testing.T, f *mmapio.File) error) {
		all = append(all, situation{name: name, want: want, err: func(t *testing.T) error {
			path, _ := patternFile(t, size)
			return call(t, mustOpen(t, path, &o))
		}})
	}
	to := func(n int64) func(*testing.T, *mmapio.File) error {
		return func(_ *testing.T, f *mmapio.File) error { return f.Resize(n) }
	}
	rw := mmapio.Options{Mode: mmapio.ReadWrite}
	on("Resize negative", "invalid range", rw, to(-1))
	on("Resize read-only", "path permission read-only", mmapio.Options{}, to(1))
	on("Resize private", "path unsupported", mmapio.Options{Mode: mmapio.CopyOnWrite}, to(1))
	on("Resize with Length", "path unsupported", mmapio.Options{Mode: mmapio.ReadWrite, Length: 1}, to(1))
	on("Resize with DropFD", "path unsupported", mmapio.Options{Mode: mmapio.ReadWrite, DropFD: true}, to(1))
	on("Resize too large", "option unsupported", rw, to(math.MaxInt64))
	on("Sync with DropFD", "path unsupported", mmapio.Options{Mode: mmapio.ReadWrite, DropFD: true},
		func(_ *testing.T, f *mmapio.File) error { return f.Sync() })
	on("Sync read-only", "none", mmapio.Options{}, func(_ *testing.T, f *mmapio.File) error { return f.Sync() })
	on("shrink in a View", "busy path", rw, func(_ *testing.T, f *mmapio.File) error {
		return f.View(0, 1, func([]byte) error { return f.Resize(1) })
	})
	on("shrink beside a Region", "busy path", rw, func(t *testing.T, f *mmapio.File) error {
		mustRegion(t, f, 0, 1)
		return f.Resize(1)
	})
	on("grow beside a Region", "none", rw, func(t *testing.T, f *mmapio.File) error {
		mustRegion(t, f, 0, 1)
		return f.Resize(2 * size)
	})
	// Windows does not shorten what anyone has mapped.
	all = append(all, situation{name: "shrink beside another File", want: "none", unlike: map[string]string{"windows": "busy path"}, err: func(t *testing.T) error {
		path, _ := patternFile(t, size)
		f := mustOpen(t, path, &rw)
		mustOpen(t, path, nil)
		return f.Resize(1)
	}})
	cut := func(name string, call func(f *mmapio.File) error) {
		on("cut by others: "+name, "fault short", mmapio.Options{Mode: mmapio.ReadWrite, Prefault: -1}, func(t *testing.T, f *mmapio.File) error {
			prove.Need(t, prove.BusAddress)
			prove.Truncate(t, f.Name(), pageSize)
			return call(f)
		})
	}
	cut("ReadAt", func(f *mmapio.File) error { _, err := f.ReadAt(make([]byte, size), 0); return err })
	cut("WriteAt", func(f *mmapio.File) error { _, err := f.WriteAt(make([]byte, size), 0); return err })
	cut("View", func(f *mmapio.File) error { return f.View(0, size, func(b []byte) error { sum(b); return nil }) })
	cut("Update", func(f *mmapio.File) error { return f.Update(0, size, func(b []byte) error { clear(b); return nil }) })
	cut("LoadAt", func(f *mmapio.File) error { _, err := mmapio.LoadAt[word](f, 2*pageSize); return err })
	cut("StoreAt", func(f *mmapio.File) error { return mmapio.StoreAt(f, 2*pageSize, word(1)) })
	return all
}
