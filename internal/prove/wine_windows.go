package prove

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// procUnixName is what Wine's kernel32.dll has besides Windows'.
var procUnixName = windows.NewLazySystemDLL("kernel32.dll").NewProc("wine_get_unix_file_name")

// unixPath is what the system below Wine calls a file.
func unixPath(t testing.TB, path string) string {
	t.Helper()
	name, err := windows.UTF16PtrFromString(path)
	if err == nil {
		err = procUnixName.Find()
	}
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := procUnixName.Call(uintptr(unsafe.Pointer(name)))
	if p == 0 {
		t.Fatalf("the system's name of %s: %v", path, err)
	}
	return windows.BytePtrToString(*(**byte)(unsafe.Pointer(&p)))
}

// truncateBelow has truncate(1) do it. "start" runs programs that are not Windows', and does not always wait for them.
func truncateBelow(t testing.TB, path string, size int64) {
	t.Helper()
	start := func() ([]byte, error) {
		return exec.Command("start.exe", "/wait", "/unix", "/usr/bin/truncate", "-s", strconv.FormatInt(size, 10),
			unixPath(t, path)).CombinedOutput()
	}
	out, err := start()
	for try := 0; errors.Is(err, windows.ERROR_INTERNAL_ERROR) && try < 3; try++ {
		out, err = start() // Wine could not begin it, now and then
	}
	if err != nil {
		t.Fatalf("start /unix truncate: %v\n%s", err, out)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if info, err := os.Stat(path); err != nil {
			t.Fatal(err)
		} else if info.Size() == size {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("%s has %d bytes, truncate -s %d had no effect\n%s", path, info.Size(), size, out)
		}
	}
}
