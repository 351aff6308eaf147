//go:build !linux

package sys

import (
	"errors"
	"os"
)

const tellsWaits = false

func waits() int64 { return 0 }

var errPoisoned = errors.New("memory is broken")

func writeOut(f *os.File, off, n int64) error { return nil }

func awaitFlush(f *os.File, off, n int64) error { return nil }
