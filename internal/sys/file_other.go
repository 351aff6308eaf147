//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package sys

import "os"

const openFlags = 0

const flushBeforeSync = false // there is nothing to flush

func syncFile(f *os.File) error { return bare(f.Sync()) }

func syncDir(string, *os.File) (lasting bool, err error) { return false, ErrUnsupported }

// What a descriptor was opened for is not known here; using it will tell.
func describe(*os.File) (Descriptor, error) { return Descriptor{Read: true, Write: true}, nil }

func reopen(f *os.File, write bool) (n *os.File, shared bool, err error) {
	flag := os.O_RDONLY
	if write {
		flag = os.O_RDWR
	}
	was, err := f.Stat()
	if err != nil {
		return nil, false, bare(err)
	}
	n, err = os.OpenFile(f.Name(), flag, 0)
	if err != nil {
		return nil, false, ErrUnsupported
	}
	if is, err := n.Stat(); err != nil || !os.SameFile(was, is) {
		_ = n.Close() // another file
		return nil, false, ErrUnsupported
	}
	return n, false, nil
}

func allocate(f *os.File, off, n int64) (int64, error) { return 0, ErrUnsupported }

func memlockLimits() (soft, hard int64, exempt bool, err error) { return 0, 0, false, ErrUnsupported }

func raiseMemlock() error { return ErrUnsupported }
