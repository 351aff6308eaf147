package mmapio_test

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"strings"
	"sync/atomic"

	"github.com/mmapio/mmapio"
)

// exampleMemory is memory to store in.
func exampleMemory(size int64) *mmapio.File {
	f, err := mmapio.Anonymous(size, nil)
	if err != nil {
		log.Fatal(err)
	}
	return f
}

// A Region keeps its memory mapped, also when the File is closed.
func ExampleFile_Region() {
	path, remove := scratch("to be or not to be")
	defer remove()
	f, err := mmapio.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	r, err := f.Region(6, 6)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Release()
	if err := f.Close(); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", r.Bytes())
	// Output: or not
}

// A counter that several goroutines use, and, in a file instead of this memory,
// several processes.
func ExampleValueAt() {
	f := exampleMemory(4096)
	defer f.Close()
	hits, err := mmapio.ValueAt[atomic.Uint64](f, 64)
	if err != nil {
		log.Fatal(err)
	}
	defer hits.Release()
	hits.Ptr().Add(3)
	hits.Ptr().Add(4)
	fmt.Println(hits.Ptr().Load())
	// Output: 7
}

// A table of fixed-size records.
func ExampleValuesAt() {
	type entry struct {
		Key, Count uint32
	}
	f := exampleMemory(4096)
	defer f.Close()
	table, err := mmapio.ValuesAt[entry](f, 0, 100)
	if err != nil {
		log.Fatal(err)
	}
	defer table.Release()
	table.Slice()[7] = entry{Key: 42, Count: 1}
	table.Slice()[7].Count++
	fmt.Println(table.Slice()[7])
	// Output: {42 2}
}

// What has a pointer in it, or no fixed size, cannot lie in a file.
func ExampleLoadAt() {
	f := exampleMemory(4096)
	defer f.Close()
	if err := mmapio.StoreAt(f, 8, [2]float32{0.5, 1.5}); err != nil {
		log.Fatal(err)
	}
	pair, err := mmapio.LoadAt[[2]float32](f, 8)
	fmt.Println(pair, err)
	_, err = mmapio.LoadAt[int](f, 8)
	fmt.Println(err)
	// Output:
	// [0.5 1.5] <nil>
	// loadat anonymous: type int cannot lie in mapped memory: int has no fixed size
}

func ExampleStoreAt() {
	type header struct {
		Magic   uint32
		Version uint16
		Flags   uint16
	}
	f := exampleMemory(4096)
	defer f.Close()
	// Eight bytes at a multiple of eight: whoever loads them gets all or none.
	if err := mmapio.StoreAt(f, 0, header{Magic: 0xCAFE, Version: 2}); err != nil {
		log.Fatal(err)
	}
	h, err := mmapio.LoadAt[header](f, 0)
	fmt.Printf("%+v %v\n", h, err)
	// Output: {Magic:51966 Version:2 Flags:0} <nil>
}

func ExampleFile_Chunks() {
	path, remove := scratch("to be or not to be")
	defer remove()
	f, err := mmapio.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	for c, err := range f.Chunks(0, f.Size(), 8) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%2d %q\n", c.Off, c.Data)
	}
	// Output:
	//  0 "to be or"
	//  8 " not to "
	// 16 "be"
}

// How many pages have nothing but zeroes in them.
func ExampleFile_Pages() {
	f := exampleMemory(0)
	defer f.Close()
	page := int64(f.PageSize())
	if err := f.Resize(10 * page); err != nil {
		log.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("not empty"), 3*page+5); err != nil {
		log.Fatal(err)
	}
	empty := 0
pages:
	for p, err := range f.Pages(0, f.Size()) {
		if err != nil {
			log.Fatal(err)
		}
		for _, b := range p.Data {
			if b != 0 {
				continue pages
			}
		}
		empty++
	}
	fmt.Println(empty, "of 10")
	// Output: 9 of 10
}

func ExampleFile_UpdateChunks() {
	f := exampleMemory(10)
	defer f.Close()
	err := f.UpdateChunks(0, f.Size(), 4, func(c mmapio.Chunk) error {
		for i := range c.Data {
			c.Data[i] = 'a' + byte(c.Off/4)
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	b := make([]byte, f.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", b)
	// Output: aaaabbbbcc
}

// A Section has the methods of its File and bounds of its own.
func ExampleFile_Section() {
	path, remove := scratch("HEAD to be or not to be")
	defer remove()
	f, err := mmapio.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	body, err := f.Section(5, f.Size()-5)
	if err != nil {
		log.Fatal(err)
	}
	text, err := io.ReadAll(io.NewSectionReader(body, 0, body.Size()))
	fmt.Printf("%s, %v\n", text, err)
	_, err = body.ReadAt(make([]byte, 8), 15)
	fmt.Println(err)
	// Output:
	// to be or not to be, <nil>
	// EOF
}

// A View of a whole file brings nothing in; this one does, since Prefault says
// that it may be as wide as that.
func ExampleOptions_prefault() {
	path, remove := scratch(strings.Repeat("x", 4<<20))
	defer remove()
	f, err := mmapio.OpenFile(path, &mmapio.Options{Prefault: 8 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	err = f.View(0, f.Size(), func(b []byte) error {
		fmt.Println(bytes.Count(b, []byte("x")))
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: 4194304
}
