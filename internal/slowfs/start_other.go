//go:build !linux || 386 || arm || mips || mipsle

package slowfs

import (
	"os"
	"runtime"
	"testing"
)

// Start skips the test: the child is a Linux FUSE server, and go-fuse does not compile for 32 bits there.
func Start(t testing.TB, _ Options) *FS {
	t.Helper()
	const why = "slowfs needs FUSE on a 64-bit Linux, this is " + runtime.GOOS + "/" + runtime.GOARCH
	if os.Getenv("MMAPIO_E2E") == "1" && runtime.GOOS != "linux" {
		t.Fatal(why)
	}
	t.Skip(why)
	return nil
}

// Errors never travel here, since Start gives out no FS.
func errnoOf(error) (int, bool) { return 0, true }

func errOf(int) error { return nil }
