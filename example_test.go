package mmapio_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mmapio/mmapio"
)

// scratch makes a file for an example, and says how to be rid of it.
func scratch(content string) (name string, remove func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	name = filepath.Join(dir, "file")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		panic(err)
	}
	return name, func() {
		os.Remove(name)
		os.Remove(dir)
	}
}

func ExampleOpen() {
	name, remove := scratch("hello, pages")
	defer remove()

	f, err := mmapio.Open(name)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	fmt.Println(f.Size(), "bytes", f.Mode())

	// A cursor over it is one of the standard library's.
	text, err := io.ReadAll(io.NewSectionReader(f, 7, f.Size()-7))
	fmt.Printf("%s %v\n", text, err)
	// Output:
	// 12 bytes ReadOnly
	// pages <nil>
}

func ExampleCreate() {
	name, remove := scratch("")
	defer remove()

	f, err := mmapio.Create(name, 8)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := f.WriteAt([]byte("durable!"), 0); err != nil {
		fmt.Println(err)
	}
	// Sync returns when the bytes are on the disk.
	fmt.Println(f.Sync())
	fmt.Println(f.Close())

	b, err := os.ReadFile(name)
	fmt.Printf("%s %v\n", b, err)
	// Output:
	// <nil>
	// <nil>
	// durable! <nil>
}

func ExampleOpenFile() {
	name, remove := scratch("0123456789")
	defer remove()

	// A part of the file, to be changed for this File alone.
	f, err := mmapio.OpenFile(name, &mmapio.Options{Mode: mmapio.CopyOnWrite, Offset: 3, Length: 4})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("ab"), 1); err != nil {
		fmt.Println(err)
	}
	mine, _ := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	theirs, _ := os.ReadFile(name)
	fmt.Printf("%s in memory, %s in the file\n", mine, theirs)

	// Fields that contradict each other are named.
	_, err = mmapio.OpenFile(name, &mmapio.Options{Mode: mmapio.ReadOnly, Truncate: true})
	var bad *mmapio.OptionError
	fmt.Println(errors.As(err, &bad), bad.Field, bad.Reason)
	// Output:
	// 3ab6 in memory, 0123456789 in the file
	// true Truncate needs Mode ReadWrite, not ReadOnly
}

func ExampleMap() {
	name, remove := scratch("from below the root")
	defer remove()

	// An *os.File from anywhere will do.
	root, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer root.Close()
	file, err := root.Open("file")
	if err != nil {
		fmt.Println(err)
		return
	}
	f, err := mmapio.Map(file, nil)
	file.Close() // it is not needed any more
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()

	b := make([]byte, 4)
	_, err = f.ReadAt(b, 0)
	fmt.Printf("%s %v\n", b, err)
	// Output: from <nil>
}

func ExampleAnonymous() {
	f, err := mmapio.Anonymous(1<<20, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()

	if _, err := f.WriteAt([]byte("no file"), 100); err != nil {
		fmt.Println(err)
	}
	b := make([]byte, 9)
	_, err = f.ReadAt(b, 99)
	fmt.Printf("%s: %q %v\n", f.Name(), b, err)
	// Output: anonymous: "\x00no file\x00" <nil>
}

func ExampleFile_ReadAt() {
	name, remove := scratch("0123456789")
	defer remove()

	f, err := mmapio.Open(name)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()

	b := make([]byte, 4)
	for _, off := range []int64{2, 8, 10} {
		n, err := f.ReadAt(b, off)
		fmt.Printf("%d: %q %v\n", off, b[:n], err)
	}
	// Output:
	// 2: "2345" <nil>
	// 8: "89" EOF
	// 10: "" EOF
}

func ExampleFile_WriteAt() {
	name, remove := scratch("0123456789")
	defer remove()

	f, err := mmapio.OpenFile(name, &mmapio.Options{Mode: mmapio.ReadWrite})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()

	n, err := f.WriteAt([]byte("abc"), 7)
	fmt.Println(n, err)

	// A write never makes the file longer.
	n, err = f.WriteAt([]byte("abc"), 8)
	var bad *mmapio.RangeError
	fmt.Println(n, errors.As(err, &bad), errors.Is(err, fs.ErrInvalid))
	fmt.Println(bad.Off, bad.Len, bad.Size)
	// Output:
	// 3 <nil>
	// 0 true true
	// 8 3 10
}

func ExampleFile_View() {
	name, remove := scratch("count the blanks in here")
	defer remove()

	f, err := mmapio.Open(name)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()

	blanks := 0
	err = f.View(0, f.Size(), func(b []byte) error {
		for _, c := range b { // the file's own pages: nothing is copied
			if c == ' ' {
				blanks++
			}
		}
		return nil
	})
	fmt.Println(blanks, err)
	// Output: 4 <nil>
}

func ExampleFile_Update() {
	name, remove := scratch("shout")
	defer remove()

	f, err := mmapio.OpenFile(name, &mmapio.Options{Mode: mmapio.ReadWrite})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = f.Update(0, f.Size(), func(b []byte) error {
		for i := range b {
			b[i] -= 'a' - 'A'
		}
		return nil
	})
	fmt.Println(err, f.Close())

	b, _ := os.ReadFile(name)
	fmt.Printf("%s\n", b)
	// Output:
	// <nil> <nil>
	// SHOUT
}

func ExampleFile_Lock() {
	name, remove := scratch("an index that must not be paged out")
	defer remove()

	f, err := mmapio.Open(name)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()

	// No alignment is needed; the whole pages are locked.
	if err := f.Lock(3, 5); err != nil {
		// It says what stood in the way, in numbers, and what to do about it.
		fmt.Println(err)
		return
	}
	fmt.Println(f.LockedRanges())
	fmt.Println(f.Unlock(3, 5), f.LockedBytes())
	// Output:
	// [{0 35}]
	// <nil> 0
}
