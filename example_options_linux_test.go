package mmapio_test

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/mmapio/mmapio"
)

// A key that goes neither to swap, nor into core dumps, nor to children, and
// that is zeroed when the File is closed.
func ExampleAnonymous_secret() {
	key, err := mmapio.Anonymous(32, &mmapio.Options{Lock: mmapio.LockNow, NoDump: true, NoFork: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer key.Close()
	err = key.Update(0, key.Size(), func(b []byte) error {
		copy(b, "read it straight into here")
		return nil
	})
	fmt.Println(err, key.VerifyLocked(0, key.Size()))
	// Output: <nil> <nil>
}

// A File that grows up to Reserve stays where it is, and so do pointers to it.
func ExampleOptions_reserve() {
	f, err := mmapio.Anonymous(8, &mmapio.Options{Reserve: 1 << 30})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	before, err := mmapio.ValueAt[uint64](f, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer before.Release()
	fmt.Println(f.Resize(64 << 20))
	after, err := mmapio.ValueAt[uint64](f, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer after.Release()
	fmt.Println(before.Ptr() == after.Ptr())
	// Output:
	// <nil>
	// true
}

// Exclusive makes sure that the file is this program's own.
func ExampleOptions_exclusive() {
	f, done := exampleFile()
	defer done()

	o := &mmapio.Options{Mode: mmapio.ReadWrite, Create: true, Exclusive: true, Perm: 0o600, MinSize: 100}
	_, err := mmapio.OpenFile(f.Name(), o)
	fmt.Println(errors.Is(err, fs.ErrExist))
	mine, err := mmapio.OpenFile(f.Name()+".mine", o)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer mine.Close()
	info, err := mine.Stat()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(info.Mode(), info.Size())
	// Output:
	// true
	// -rw------- 100
}

// Without a descriptor there is nothing that could be resized or synced.
func ExampleOptions_dropFD() {
	f, done := exampleFile()
	defer done()

	g, err := mmapio.OpenFile(f.Name(), &mmapio.Options{DropFD: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	fmt.Println(g.Size() == f.Size(), g.LockAll())
	_, err = g.Refresh()
	fmt.Println(errors.Is(err, errors.ErrUnsupported))
	// Output:
	// true <nil>
	// true
}

func ExampleFile_LockAll() {
	f, done := exampleFile()
	defer done()

	fmt.Println(f.LockAll(), f.LockedBytes() == f.Size())
	fmt.Println(f.Resize(1 << 20)) // what is added is not: see Options.Lock
	fmt.Println(f.LockedBytes() == f.Size())
	fmt.Println(f.UnlockAll(), f.LockedBytes())
	// Output:
	// <nil> true
	// <nil>
	// false
	// <nil> 0
}

// Will it fit? Lock says so too, and why not; this is for who wants to know first.
func ExampleReadLockLimits() {
	f, done := exampleFile()
	defer done()

	limits, err := mmapio.ReadLockLimits()
	if err != nil {
		fmt.Println(err)
		return
	}
	room := limits.Soft - max(limits.InUse, 0) // InUse is -1 where the system does not tell
	switch {
	case limits.Unlimited, limits.Soft < 0, f.Size() <= room:
		fmt.Println("it fits")
	case limits.Hard < 0, f.Size() <= limits.Hard-limits.Soft+room:
		fmt.Println("it fits after RaiseLockLimit")
	default:
		fmt.Println("too much by", f.Size()-room)
	}
	// Output: it fits
}
