package mmapio_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/mmapio/mmapio"
)

// exampleFile is a File of two pages to show things on.
func exampleFile() (f *mmapio.File, done func()) {
	dir, err := os.MkdirTemp("", "mmapio")
	if err != nil {
		panic(err)
	}
	if f, err = mmapio.Create(dir+"/index", 0); err == nil {
		err = f.Resize(2 * int64(f.PageSize()))
	}
	if err != nil {
		panic(err)
	}
	return f, func() {
		f.Close()
		os.RemoveAll(dir)
	}
}

func ExampleFile_VerifyLocked() {
	f, done := exampleFile()
	defer done()
	page := int64(f.PageSize())

	fmt.Println("lock:", f.Lock(0, 100)) // the page that holds them
	fmt.Println("verified:", f.VerifyLocked(0, page))
	for _, r := range f.LockedRanges() {
		fmt.Println("locked pages:", r.Off/page, "to", (r.Off+r.Len)/page)
	}
	fmt.Println("all of them:", f.LockedBytes() == page)

	var le *mmapio.LockError
	if err := f.VerifyLocked(0, f.Size()); errors.As(err, &le) {
		fmt.Println("not held: page", le.Off/page)
	}
	fmt.Println("unlock:", f.UnlockAll())
	// Output:
	// lock: <nil>
	// verified: <nil>
	// locked pages: 0 to 1
	// all of them: true
	// not held: page 1
	// unlock: <nil>
}

func ExampleOptions_lock() {
	page := int64(os.Getpagesize())
	f, err := mmapio.Anonymous(2*page, &mmapio.Options{Lock: mmapio.LockNow})
	if err != nil {
		fmt.Println(err) // a LockError says what to do
		return
	}
	defer f.Close()
	fmt.Println("locked:", f.LockedBytes()/page)
	err = f.Resize(5 * page) // what is added is locked too, or nothing is added
	fmt.Println("locked:", f.LockedBytes()/page, err)
	// Output:
	// locked: 2
	// locked: 5 <nil>
}

func ExampleLockMode() {
	f, done := exampleFile()
	defer done()

	// A large file of which little is used: what was touched stays in RAM.
	g, err := mmapio.OpenFile(f.Name(), &mmapio.Options{Lock: mmapio.LockOnFault})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	fmt.Println(mmapio.LockOnFault, g.VerifyLocked(0, g.Size()))
	// Output:
	// LockOnFault <nil>
}

func ExampleFile_LockContext() {
	f, done := exampleFile()
	defer done()
	page := int64(f.PageSize())

	err := f.LockContext(context.Background(), 0, 2*page, &mmapio.LockOptions{
		Progress: func(done, total int64) { fmt.Println(done/page, "of", total/page, "pages") },
	})
	fmt.Println(err)
	// Output:
	// 2 of 2 pages
	// <nil>
}

func ExampleFile_Pin() {
	f, done := exampleFile()
	defer done()

	pin, err := f.Pin(0, 10)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(f.UnlockAll(), f.LockedBytes() > 0) // Unlock does not touch pins
	fmt.Println(pin.Release(), f.LockedBytes())
	// Output:
	// <nil> true
	// <nil> 0
}

func ExampleRaiseLockLimit() {
	limits, err := mmapio.RaiseLockLimit()
	fmt.Println(limits.Soft == limits.Hard, err)
	again, err := mmapio.ReadLockLimits()
	fmt.Println(again.Soft == limits.Soft, err)
	// Output:
	// true <nil>
	// true <nil>
}

func ExampleLockError() {
	err := error(&mmapio.LockError{Op: "lock", Path: "index", Len: 4096, Cause: mmapio.CauseLimit})
	var le *mmapio.LockError
	if errors.As(err, &le) {
		switch le.Cause {
		case mmapio.CauseLimit, mmapio.CausePermission:
			fmt.Println("raise RLIMIT_MEMLOCK:", le.Cause)
		case mmapio.CauseBeyondEOF, mmapio.CauseMapCount, mmapio.CauseMemory, mmapio.CauseCgroup, mmapio.CauseUnknown:
			fmt.Println("something else:", le.Cause)
		}
	}
	// Output:
	// raise RLIMIT_MEMLOCK: limit
}

func ExampleFile_Resize() {
	f, done := exampleFile()
	defer done()
	page := int64(f.PageSize())

	fmt.Println(f.Resize(3*page), f.Size()/page)
	err := f.View(0, page, func([]byte) error { return f.Resize(page) })
	fmt.Println("while it is held:", errors.Is(err, mmapio.ErrBusy))
	fmt.Println("made durable:", f.Sync())
	// Output:
	// <nil> 3
	// while it is held: true
	// made durable: <nil>
}

func ExampleFile_Refresh() {
	f, done := exampleFile()
	defer done()

	reader, err := mmapio.Open(f.Name())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer reader.Close()
	if err := f.Resize(3 * int64(f.PageSize())); err != nil { // as another process would
		fmt.Println(err)
	}
	size, err := reader.Refresh()
	fmt.Println(size == f.Size(), err)
	// Output:
	// true <nil>
}
