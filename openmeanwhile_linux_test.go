package mmapio_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// What an open, or a change, meets that others do in the meantime.

// failsLate opens a file so that it fails when all but the last step is done, and
// calls meanwhile before that.
func failsLate(t *testing.T, disk *slowfs.FS, name string, o mmapio.Options, meanwhile func()) {
	t.Helper()
	o.Mode, o.MinSize, o.Populate = mmapio.ReadWrite, 8192, true
	remove := disk.Add(slowfs.Rule{Op: slowfs.OpRead, Path: name, Err: unix.EIO})
	defer remove()
	release := disk.Hold(slowfs.OpRead, name)
	failed := make(chan error)
	go func() {
		f, err := mmapio.OpenFile(disk.Path(name), &o)
		if err == nil {
			err = f.Close()
			t.Error("it opens")
		}
		failed <- err
	}()
	disk.WaitHeld(1)
	meanwhile()
	release()
	if err := <-failed; !errors.Is(err, unix.EIO) {
		t.Errorf("%v, want EIO", err)
	}
}

// TestFailedOpenKeepsWhatOthersAdd: the length is taken back, but not what others
// have put behind it.
func TestFailedOpenKeepsWhatOthersAdd(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	disk.AddFile("alone", 4096, slowfs.Offsets)
	disk.AddFile("log", 4096, slowfs.Offsets)
	failsLate(t, disk, "alone", mmapio.Options{}, func() {})
	if n := sizeOnDisk(t, disk.Path("alone")); n != 4096 {
		t.Errorf("%d bytes, want 4096", n)
	}
	record := []byte("of somebody else")
	failsLate(t, disk, "log", mmapio.Options{}, func() { check(t, appendTo(disk.Path("log"), record)) })
	content, err := os.ReadFile(disk.Path("log"))
	check(t, err)
	if n := len(content) - len(record); n != 8192 || string(content[n:]) != string(record) {
		t.Errorf("the file has %d bytes", len(content))
	}
}

// TestFailedOpenRemovesItsOwn: the file that it made, and not what has the name by
// then.
func TestFailedOpenRemovesItsOwn(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{})
	failsLate(t, disk, "alone", mmapio.Options{Create: true}, func() {})
	if _, err := os.Lstat(disk.Path("alone")); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
	failsLate(t, disk, "f", mmapio.Options{Create: true}, func() {
		check(t, os.WriteFile(disk.Path("g"), []byte("other"), 0o600))
		check(t, os.Rename(disk.Path("g"), disk.Path("f")))
	})
	if content, err := os.ReadFile(disk.Path("f")); string(content) != "other" {
		t.Errorf("the other file: %q, %v", content, err)
	}
}

// TestFailedGrowthKeepsWhatOthersAdd is the same for Resize, which says so.
func TestFailedGrowthKeepsWhatOthersAdd(t *testing.T) {
	path, _ := patternFile(t, pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	record := []byte("of somebody else")
	defer mmapio.SetFailpoint(func(step string) error {
		if step != "map" {
			return nil
		}
		check(t, appendTo(path, record))
		return errInjected
	})()
	err := f.Resize(2 * pageSize)
	wantPathError(t, err, "resize", path, errInjected)
	want := fmt.Sprintf("resize %s: injected; the file stays %d bytes longer than it was: others have added to it since", path, pageSize+16)
	if err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if n := sizeOnDisk(t, path); n != 2*pageSize+int64(len(record)) || f.Size() != pageSize {
		t.Errorf("%d bytes on disk, %d mapped", n, f.Size())
	}
	mustClose(t, f)
}

// TestGrowthKeepsWhatOthersAdd: what lies between the end of the file and the end
// of its page is zeroed, but not what others add there.
func TestGrowthKeepsWhatOthersAdd(t *testing.T) {
	for _, to := range []int64{300, 2 * pageSize} {
		path, content := patternFile(t, 100)
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
		record := []byte("of somebody else")
		restore := mmapio.SetFailpoint(func(step string) error {
			if step == "blocks" {
				check(t, appendTo(path, record))
			}
			return nil
		})
		mustResize(t, f, to)
		restore()
		want := append(bytes.Clone(content), record...)
		want = append(want, make([]byte, max(0, int(to)-len(want)))...)
		same(t, "the file", onDisk(t, path), want)
		mustClose(t, f)
	}
}

// TestOpenWaitsForLease: who has one is asked to give way, and does.
func TestOpenWaitsForLease(t *testing.T) {
	path, content := patternFile(t, 10_000)
	for name, open := range map[string]func() (*mmapio.File, error){
		"Open":     func() (*mmapio.File, error) { return mmapio.Open(path) },
		"OpenFile": func() (*mmapio.File, error) { return mmapio.OpenFile(path, &mmapio.Options{Mode: mmapio.ReadWrite}) },
		"Create": func() (*mmapio.File, error) {
			return mmapio.OpenFile(path, &mmapio.Options{Mode: mmapio.ReadWrite, Create: true})
		},
	} {
		holder, err := os.OpenFile(path, os.O_RDWR, 0)
		check(t, err)
		lease := func(arg int) (int, error) { return unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, arg) }
		if _, err := lease(unix.F_WRLCK); err != nil {
			prove.Unable(t, "no leases: %v", err)
		}
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			for {
				// It says what is left of it once somebody has asked.
				if l, err := unix.FcntlInt(holder.Fd(), unix.F_GETLEASE, 0); err != nil || l != unix.F_WRLCK {
					break
				}
				time.Sleep(time.Millisecond)
			}
			_, err := lease(unix.F_UNLCK)
			check(t, err)
		}()
		f, err := open()
		noError(t, name, err)
		<-gone
		check(t, holder.Close())
		same(t, name, contentOf(t, f), content)
		if f.Name() != path {
			t.Errorf("%s: the name is %s", name, f.Name())
		}
		mustClose(t, f)
	}
}

// The remedy is one that is not refused.
func TestLockBeyondEOFRemedy(t *testing.T) {
	prove.Need(t, prove.Advice, prove.BusAddress)
	needLocks(t)
	ps := pageSize
	for _, c := range []struct {
		o    mmapio.Options
		size int64 // of the file by then
		want string
	}{
		{mmapio.Options{}, 100, "; call Refresh, or lock what is left"},
		{mmapio.Options{Offset: ps}, 100, "; call Refresh"},
		{mmapio.Options{Length: 2 * ps}, 100, "; open it again, or lock what is left"},
		{mmapio.Options{Offset: ps, Length: 2 * ps}, 100, "; open it again"},
		{mmapio.Options{DropFD: true}, 100, "; open it again, or lock what is left"},
	} {
		path := fileOf(t, 3*ps)
		f := mustOpen(t, path, &c.o)
		truncated(t, path, c.size)
		err := f.LockAll()
		want := fmt.Sprintf("the file is now 100 bytes long, and mapped up to %d%s: ", c.o.Offset+f.Size(), c.want)
		if err == nil || !strings.Contains(err.Error()+": ", want) {
			t.Errorf("%+v: %v, want %q in it", c.o, err, want)
		}
		if _, err := f.Refresh(); strings.Contains(want, "Refresh") != (err == nil) {
			t.Errorf("%+v: Refresh: %v", c.o, err)
		}
		mustClose(t, f)
	}
}
