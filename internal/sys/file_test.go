package sys

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/mmapio/mmapio/internal/prove"
)

func TestDescribe(t *testing.T) {
	if !Faults {
		t.Skip(runtime.GOOS + " lacks a way to tell")
	}
	name := newFile(t, 10).Name()
	for _, tt := range []struct {
		flag int
		want Descriptor
	}{
		{os.O_RDONLY, Descriptor{Read: true}},
		{os.O_WRONLY, Descriptor{Write: true}},
		{os.O_RDWR, Descriptor{Read: true, Write: true}},
		{os.O_WRONLY | os.O_APPEND, Descriptor{Write: true, Append: true}},
		{os.O_RDWR | os.O_APPEND, Descriptor{Read: true, Write: true, Append: true}},
	} {
		f, err := os.OpenFile(name, tt.flag, 0)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := Describe(f); err != nil || d != tt.want {
			t.Errorf("flags %#x: %+v, %v, want %+v", tt.flag, d, err, tt.want)
		}
		f.Close()
	}
}

func TestReopen(t *testing.T) {
	f := newFile(t, 10)
	if _, err := f.Seek(5, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	for _, write := range []bool{false, true} {
		n, _, err := Reopen(f, write)
		if err != nil {
			t.Fatal(err)
		}
		if n.Name() != f.Name() {
			t.Errorf("Name = %q, want %q", n.Name(), f.Name())
		}
		if at, err := n.Seek(0, io.SeekCurrent); at != 0 || err != nil {
			t.Errorf("write %v: offset %d, %v: not a description of its own", write, at, err)
		}
		if _, err := n.WriteAt([]byte{9}, 3); (err == nil) != write {
			t.Errorf("write %v: WriteAt: %v", write, err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	if at, err := f.Seek(0, io.SeekCurrent); at != 5 || err != nil {
		t.Errorf("the caller's offset is %d, %v now", at, err)
	}
	if content(t, f)[3] != 9 {
		t.Error("what was written to the copy is not in the file")
	}
}

func TestAllocateSize(t *testing.T) {
	prove.WineLacks(t, "FileAllocationInfo")
	f := newFile(t, 100)
	was, err := Allocate(f, 50, 1<<20)
	lacks(t, err, "allocation")
	if was != 100 {
		t.Errorf("the file had %d bytes, want 100", was)
	}
	got := content(t, f)
	if len(got) != 1<<20+50 {
		t.Errorf("the file has %d bytes, want %d", len(got), 1<<20+50)
	}
	if was, err := Allocate(f, 0, 10); err != nil || was != int64(len(got)) {
		t.Error(was, err)
	}
	if now := content(t, f); len(now) != len(got) || now[99] != 1 {
		t.Error("Allocate of what is there changed the file")
	}
}

func TestSyncDir(t *testing.T) {
	dir := prove.TempDir(t)
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lasting, err := SyncDir(dir, f)
	lacks(t, err, "durable directories")
	// Where it cannot be opened, all of the file system is synced on Linux.
	_, err = SyncDir(filepath.Join(dir, "none"), f)
	if want := CanReserve && runtime.GOOS != "linux"; lasting || errors.Is(err, fs.ErrNotExist) != want {
		t.Errorf("SyncDir of nothing: %v", err)
	}
}

func TestMemlockLimits(t *testing.T) {
	soft, hard, _, err := MemlockLimits()
	lacks(t, err, "limits on locks")
	if soft < -1 || hard < -1 || hard >= 0 && (soft < 0 || soft > hard) {
		t.Errorf("soft %d, hard %d", soft, hard)
	}
	if err := RaiseMemlock(); err != nil {
		t.Fatal(err)
	}
	if now, _, _, err := MemlockLimits(); err != nil || hard >= 0 && now != hard {
		t.Errorf("after RaiseMemlock: soft %d, %v, hard %d", now, err, hard)
	}
}

func TestClosedFile(t *testing.T) {
	f := newFile(t, 100)
	f.Close()
	_, mapErr := MapFile(f, 0, 100, Read)
	_, _, reopenErr := Reopen(f, false)
	_, allocateErr := Allocate(f, 0, 1)
	for name, err := range map[string]error{
		"MapFile": mapErr, "Reopen": reopenErr, "SyncFile": SyncFile(f), "Allocate": allocateErr,
	} {
		if !errors.Is(err, fs.ErrClosed) && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v, want ErrClosed", name, err)
		}
		if e := (*fs.PathError)(nil); errors.As(err, &e) {
			t.Errorf("%s: %v has a name in it", name, err)
		}
	}
}
