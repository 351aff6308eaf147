//go:build !arm

// An example cannot skip, and under qemu a program for arm is not told at which
// address it faulted.

package mmapio_test

import (
	"errors"
	"fmt"

	"github.com/mmapio/mmapio"
)

func ExampleGuard() {
	name, remove := scratch("read only")
	defer remove()

	f, err := mmapio.Open(name)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()

	r, err := f.Region(0, f.Size())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Release()

	// A store into read-only memory, or a load from a page that cannot be had,
	// ends a program; under a guard it is an error.
	err = mmapio.Guard(func() error {
		r.Bytes()[5] = 'O'
		return nil
	})
	var fault *mmapio.FaultError
	fmt.Println(errors.As(err, &fault), errors.Is(err, mmapio.ErrReadOnly))
	fmt.Printf("%s\n", r.Bytes())
	// Output:
	// true true
	// read only
}
