package mmapio_test

import (
	"fmt"

	"github.com/mmapio/mmapio"
)

func ExampleFile_SyncRange() {
	name, remove := scratch("")
	defer remove()

	f, err := mmapio.Create(name, 1<<20)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	for _, record := range []string{"first", "second"} {
		if _, err := f.WriteAt([]byte(record), 70000); err != nil {
			fmt.Println(err)
		}
		// Of a large file that changes elsewhere too, only this must be safe.
		if err := f.SyncRange(70000, int64(len(record))); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(record, "is on the disk")
	}
	// Output:
	// first is on the disk
	// second is on the disk
}

func ExampleFile_StartSync() {
	name, remove := scratch("")
	defer remove()

	const part = 256 << 10
	f, err := mmapio.Create(name, 4*part)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	for off := int64(0); off < f.Size(); off += part {
		err := f.Update(off, part, func(b []byte) error {
			clear(b)
			return nil
		})
		if err == nil {
			// The disk works while the next part is made.
			err = f.StartSync(off, part)
		}
		if err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(f.Sync()) // waits for what is left
	// Output: <nil>
}
