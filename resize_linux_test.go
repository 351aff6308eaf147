package mmapio_test

import (
	"syscall"
	"testing"


)

func init() {
	blocksOf = func(t testing.TB, path string) int64 {
		t.Helper()
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks
	}
}
