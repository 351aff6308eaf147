package mmapio_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/mmapio/mmapio"
)

func ExampleFile_Residency() {
	f, err := mmapio.Anonymous(1<<20, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("hello"), 0); err != nil {
		log.Fatal(err)
	}
	r, err := f.Residency(0, f.Size())
	if err != nil {
		log.Fatal(err)
	}
	if !r.Known() {
		fmt.Println("the kernel does not tell")
	}
	fmt.Println(r.Resident, "of", r.Pages*int64(r.PageSize)>>20, "MiB, as pages")
	// Output: 1 of 1 MiB, as pages
}

func ExampleFile_ResidentRanges() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	f, err := mmapio.OpenFile(filepath.Join(dir, "log"), &mmapio.Options{
		Mode: mmapio.ReadWrite, Create: true, MinSize: 1 << 20, Sparse: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("hello"), 1<<19); err != nil {
		log.Fatal(err)
	}
	ranges, err := f.ResidentRanges(1<<19, 5)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ranges)
	// Output: [{524288 5}]
}

func ExampleFile_Advise() {
	f, done := exampleFile()
	defer done()
	// Reads will jump about: the system is to read nothing round them.
	fmt.Println(f.Advise(0, f.Size(), mmapio.AdviceRandom))
	// What was read once is not needed again.
	fmt.Println(f.Advise(0, f.Size(), mmapio.AdviceDontNeed))
	fmt.Println(f.Lock(0, 1))
	fmt.Println(errors.Is(f.Advise(0, f.Size(), mmapio.AdvicePageOut), mmapio.ErrBusy))
	// Output:
	// <nil>
	// <nil>
	// <nil>
	// true
}

func ExampleFile_Prefetch() {
	f, done := exampleFile()
	defer done()
	if err := f.Prefetch(0, f.Size()); err != nil { // returns at once
		log.Fatal(err)
	}
	b := make([]byte, 4)
	_, err := f.ReadAt(b, 0) // waits for what is not there yet
	fmt.Println(b, err)
	// Output: [0 0 0 0] <nil>
}

func ExampleOptions_hugePages() {
	f, err := mmapio.Anonymous(64<<20, &mmapio.Options{HugePages: true})
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	r, err := f.Residency(0, f.Size())
	fmt.Println(r.Resident, "pages in RAM by asking,", err)
	if _, err := f.WriteAt(make([]byte, 64<<20), 0); err != nil {
		log.Fatal(err)
	}
	if r, err = f.Residency(0, f.Size()); err == nil && r.Huge > 0 {
		// … the system has given huge pages
	}
	// Output: 0 pages in RAM by asking, <nil>
}
