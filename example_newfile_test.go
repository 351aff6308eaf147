package mmapio_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/mmapio/mmapio"
)

// replace makes name a file of the given size, filled by fill. Whenever the
// power fails, there is the old file or the new one, whole. When it returns nil
// it is the new one.
func replace(name string, size int64, fill func(b []byte) error) (err error) {
	// In the same directory, since only there it can be renamed, and with a name
	// that nobody else takes.
	temp, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(temp.Name())
		}
	}()
	f, err := mmapio.Map(temp, &mmapio.Options{Mode: mmapio.ReadWrite, MinSize: size})
	if err := errors.Join(err, temp.Close()); err != nil {
		return err
	}
	err = f.Update(0, size, fill)
	if err == nil {
		err = f.Sync() // before the rename, or that may be durable without the bytes
	}
	// Windows renames nothing that is mapped.
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// syncDir makes a rename durable.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // the file system logs it
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func ExampleFile_Sync_newFile() {
	name, remove := scratch("the old content")
	defer remove()

	err := replace(name, 5, func(b []byte) error { return errors.New("no content") })
	b, _ := os.ReadFile(name)
	fmt.Printf("%v: %s\n", err, b)

	err = replace(name, 7, func(b []byte) error { copy(b, "the new"); return nil })
	b, _ = os.ReadFile(name)
	fmt.Printf("%v: %s\n", err, b)
	// Output:
	// no content: the old content
	// <nil>: the new
}

func ExampleSyncPolicy() {
	name, remove := scratch("")
	defer remove()

	f, err := mmapio.OpenFile(name, &mmapio.Options{
		Mode: mmapio.ReadWrite, MinSize: 1 << 20,
		// At most a mebibyte, and a second, can be lost.
		Sync: mmapio.SyncPolicy{Bytes: 1 << 20, Interval: time.Second},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := range int64(1000) {
		if _, err := f.WriteAt([]byte("record"), 100*i); err != nil {
			fmt.Println(err) // perhaps of a sync that nobody has waited for
			return
		}
	}
	// The last sync is Close's, so its error matters.
	fmt.Println(f.Close())
	// Output: <nil>
}
