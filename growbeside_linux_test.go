package mmapio_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// TestUndoneGrowthKeepsAppends: when a later step fails, the length is taken back to
// where others have come while the blocks were asked for, and not to where they were.
func TestUndoneGrowthKeepsAppends(t *testing.T) {
	prove.LeakCheck(t)
	const size = 3 << 29 // more than one call reserves
	record := []byte("of somebody else")
	path := filepath.Join(prove.DiskDir(t), "log")
	if f, err := mmapio.Create(path, size); err != nil {
		prove.Unable(t, "%v", err)
	} else {
		mustClose(t, f)
	}
	appended := make(chan error, 1)
	defer mmapio.SetFailpoint(func(step string) error {
		if step != "map" {
			return nil
		}
		check(t, <-appended) // or it may come between the look at the length and the cut
		return errInjected
	})()
	inTime := 0
	for range 20 {
		check(t, os.WriteFile(path, record, 0o600))
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
		go func() { appended <- appendTo(path, record) }()
		if err := f.Resize(size); !errors.Is(err, errInjected) {
			t.Error(err)
		}
		mustClose(t, f)
		end := sizeOnDisk(t, path)
		if end > size {
			continue // it came when the file was long already
		}
		b := make([]byte, 2*len(record))
		g, err := os.Open(path)
		check(t, err)
		if _, err := g.ReadAt(b, 0); !bytes.Equal(b, bytes.Repeat(record, 2)) {
			t.Errorf("%q is left, %v", b, err)
		}
		check(t, g.Close())
		inTime++
	}
	if inTime == 0 {
		t.Error("nothing was ever appended in time: this proves nothing")
	}
}

// appendsMeanwhile makes a file longer by one record after the other while grow runs,
// and returns how many it has then, with the one that it had.
func appendsMeanwhile(t *testing.T, path string, record []byte, grow func()) (records int) {
	t.Helper()
	var (
		wg   sync.WaitGroup
		done atomic.Bool
	)
	records = 1
	wg.Go(func() {
		for ; !done.Load(); records++ {
			if err := appendTo(path, record); err != nil {
				t.Error(err)
				return
			}
		}
	})
	grow()
	done.Store(true)
	wg.Wait()
	return records
}

// needAppend skips where nothing can be written at the end of a file, wherever that is.
func needAppend(t *testing.T) {
	t.Helper()
	path := filepath.Join(tempDir(t), "f")
	check(t, os.WriteFile(path, []byte("a"), 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	defer f.Close()
	_, err = unix.Pwritev2(int(f.Fd()), [][]byte{[]byte("b")}, 0, unix.RWF_APPEND)
	if got := onDisk(t, path); err != nil || string(got) != "ab" {
		prove.Unable(t, "pwritev2(2) with RWF_APPEND: %q, %v", got, err)
	}
}

// TestZeroesKeepAppends: where blocks cannot be reserved, and what is added is written
// out, none of it goes over what others append meanwhile.
func TestZeroesKeepAppends(t *testing.T) {
	prove.LeakCheck(t)
	needAppend(t)
	disk := slowfs.Start(t, slowfs.Options{})
	disk.Add(slowfs.Rule{Op: slowfs.OpFallocate, Err: syscall.EOPNOTSUPP})
	const size = 32 << 20
	record := []byte("of somebody else")
	for name, grow := range map[string]func(path string){
		"MinSize": func(path string) {
			mustClose(t, mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, MinSize: size}))
		},
		"Resize": func(path string) {
			f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
			mustResize(t, f, size)
			mustClose(t, f)
		},
	} {
		path := disk.Path(name)
		check(t, os.WriteFile(path, record, 0o600))
		appended := appendsMeanwhile(t, path, record, func() { grow(path) })
		content := onDisk(t, path)
		if n := bytes.Count(content, record); n != appended {
			t.Errorf("%s: of %d records %d are left", name, appended, n)
		}
		if len(content) < size {
			t.Errorf("%s: %d bytes", name, len(content))
		}
	}
}
