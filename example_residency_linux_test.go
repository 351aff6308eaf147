package mmapio_test

import (
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
