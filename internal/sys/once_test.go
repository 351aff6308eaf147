//go:build freebsd || linux || windows

package sys

import (
	"errors"
	"testing"
)

// What could not be tried is tried again, and an answer is remembered.
func TestOnceKnown(t *testing.T) {
	short := errors.New("short")
	tries := 0
	get := onceKnown(func() (int, error) {
		if tries++; tries < 3 {
			return -tries, short
		}
		return tries, nil
	})
	for i, want := range []int{-1, -2, 3, 3, 3} {
		v, err := get()
		if v != want || (err != nil) != (want < 0) {
			t.Errorf("call %d: %d, %v, want %d", i+1, v, err, want)
		}
	}
	if n := testing.AllocsPerRun(10, func() { get() }); n > 0 {
		t.Errorf("a known answer makes %v allocations", n)
	}
}
