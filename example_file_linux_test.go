package mmapio_test

import (
	"errors"
	"fmt"

	"github.com/mmapio/mmapio"
)

func ExampleFile_Stat() {
	f, done := exampleFile()
	defer done()

	info, err := f.Stat()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(info.Name(), info.Size() == f.Size())
	// Output: index true
}

// The descriptor is the File's: it is not to be closed, nor kept.
func ExampleFile_SyscallConn() {
	f, done := exampleFile()
	defer done()

	conn, err := f.SyscallConn()
	if err != nil {
		fmt.Println(err)
		return
	}
	err = conn.Control(func(fd uintptr) {
		fmt.Println("a descriptor:", fd > 2) // for fcntl(2), ioctl(2) …
	})
	fmt.Println(err)
	// Output:
	// a descriptor: true
	// <nil>
}

func ExampleAlignError() {
	f, done := exampleFile()
	defer done()

	_, err := mmapio.LoadAt[uint32](f, 14)
	var bad *mmapio.AlignError
	if errors.As(err, &bad) {
		fmt.Println(bad.Off, "is not a multiple of", bad.Align)
	}
	// Output: 14 is not a multiple of 4
}

// A Section does not hold the File's size.
func ExampleSection_Valid() {
	f, done := exampleFile()
	defer done()

	body, err := f.Section(100, f.Size()-100)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(body.Offset(), body.Valid())
	fmt.Println(f.Resize(50), body.Valid())
	// Output:
	// 100 true
	// <nil> false
}

// A scan of a log that is read once, and then not for long.
func ExampleAdvice() {
	f, done := exampleFile()
	defer done()

	for _, a := range []mmapio.Advice{mmapio.AdviceSequential, mmapio.AdviceWillNeed} {
		fmt.Println(a, f.Advise(0, f.Size(), a))
	}
	lines := 0
	for c, err := range f.Chunks(0, f.Size(), 1<<20) {
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, b := range c.Data {
			if b == '\n' {
				lines++
			}
		}
	}
	fmt.Println(lines, "lines")
	for _, a := range []mmapio.Advice{mmapio.AdviceNormal, mmapio.AdviceCold} {
		fmt.Println(a, f.Advise(0, f.Size(), a))
	}
	// Output:
	// Sequential <nil>
	// WillNeed <nil>
	// 0 lines
	// Normal <nil>
	// Cold <nil>
}
