package mmapio_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// TestMappedPrivatelyOnly: of a file that the kernel maps in one way only, whatever its
// length, the other modes are refused and that one is not.
func TestMappedPrivatelyOnly(t *testing.T) {
	prove.LeakCheck(t)
	disk := slowfs.Start(t, slowfs.Options{DirectIO: true})
	disk.AddData("empty", nil)
	disk.AddData("some", []byte("some"))
	for _, name := range []string{"empty", "some"} {
		for _, mode := range allModes {
			f, err := mmapio.OpenFile(disk.Path(name), &mmapio.Options{Mode: mode})
			if mode != mmapio.CopyOnWrite {
				if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "only CopyOnWrite") {
					t.Errorf("%s, %v: %v", name, mode, err)
				}
				continue
			}
			check(t, err)
			mustClose(t, f)
		}
	}
}
