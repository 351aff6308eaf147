package mmapio_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/mmapio/mmapio"
)

// To have a file in RAM before it is used, for at most so long.
func ExampleFile_Populate() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "index")
	if err := os.WriteFile(name, make([]byte, 1<<20), 0o600); err != nil {
		log.Fatal(err)
	}
	f, err := mmapio.Open(name)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := f.Populate(ctx, 0, f.Size()); err != nil {
		log.Fatal(err)
	}
	fmt.Println("warm")

	cancel()
	fmt.Println(errors.Is(f.Populate(ctx, 0, f.Size()), context.Canceled))
	// Output:
	// warm
	// true
}
