//go:build !linux

package limits

import (
	"errors"
	"testing"
)

func TestUnsupported(t *testing.T) {
	_, err1 := ReadMemlock()
	_, err2 := Cgroups()
	_, _, err3 := MapCount()
	_, err4 := ReadMemory()
	_, err5 := FreeMemory()
	_, err6 := AddressSpace()
	for i, err := range []error{err1, err2, err3, err4, err5, err6} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("call %d: %v", i+1, err)
		}
	}
}
