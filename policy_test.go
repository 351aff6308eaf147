package mmapio_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// TestPolicyRefused: what makes no sense is an OptionError, and no file is made.
func TestPolicyRefused(t *testing.T) {
	prove.LeakCheck(t)
	dir := tempDir(t)
	good := mmapio.SyncPolicy{Writes: 1}
	path := filepath.Join(dir, "f")
	for what, o := range map[string]*mmapio.Options{
		"ReadOnly":    {Sync: good},
		"CopyOnWrite": {Mode: mmapio.CopyOnWrite, Sync: good},
		"DropFD":      {Mode: mmapio.ReadWrite, Create: true, DropFD: true, Sync: good},
		"Bytes":       {Mode: mmapio.ReadWrite, Create: true, Sync: mmapio.SyncPolicy{Bytes: -1}},
		"Writes":      {Mode: mmapio.ReadWrite, Create: true, Sync: mmapio.SyncPolicy{Bytes: 1, Writes: -1}},
		"Interval":    {Mode: mmapio.ReadWrite, Create: true, Sync: mmapio.SyncPolicy{Bytes: 1, Interval: -time.Second}},
	} {
		_, err := mmapio.OpenFile(path, o)
		t.Log(what, err)
		wantOptionError(t, err, "open", path, "Sync", fs.ErrInvalid)
		mustNotExist(t, path)
	}
	_, err := mmapio.Anonymous(1, &mmapio.Options{Sync: good})
	wantOptionError(t, err, "anonymous", "anonymous", "Sync", fs.ErrInvalid)
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	_, err = mmapio.Map(file, &mmapio.Options{Sync: good})
	wantOptionError(t, err, "map", path, "Sync", fs.ErrInvalid)
}

// TestPolicyEverywhere runs writers under a policy that syncs all the time,
// beside Resize, Refresh and a Close at last.
func TestPolicyEverywhere(t *testing.T) {
	needMaps(t)
	prove.LeakCheck(t)
	const size = 64 << 10
	for _, p := range []mmapio.SyncPolicy{
		{Writes: 3}, {Bytes: 1000}, {Interval: 100 * time.Microsecond}, {Bytes: 3000, Writes: 7, Interval: time.Millisecond},
	} {
		path := filepath.Join(tempDir(t), "f")
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, MinSize: size, Sync: p})
		writers := make(chan error, 4)
		for w := range int64(4) {
			go func() {
				var err error
				for i := int64(0); i < 200 && err == nil; i++ {
					off := w*size/4 + i*8
					switch i % 4 {
					case 0:
						_, err = f.WriteAt([]byte("12345678"), off)
					case 1:
						err = mmapio.StoreAt(f, off, [8]byte([]byte("12345678")))
					case 2:
						err = f.Update(off, 8, func(b []byte) error { copy(b, "12345678"); return nil })
					case 3:
						var r *mmapio.Region
						if r, err = f.Region(off, 8); err == nil {
							copy(r.Bytes(), "12345678")
							r.Release()
						}
					}
				}
				writers <- err
			}()
		}
		for i := range int64(20) {
			if err := f.Resize(size + i*100); err != nil {
				t.Error(err)
			}
		}
		for range 4 {
			if err := <-writers; err != nil {
				t.Error(err)
			}
		}
		mustClose(t, f)
		got := onDisk(t, path)
		for w := range 4 {
			for i := range 200 {
				if off := w*size/4 + i*8; string(got[off:off+8]) != "12345678" {
					t.Fatalf("%+v: writer %d, %d: %q", p, w, i, got[off:off+8])
				}
			}
		}
	}
}
