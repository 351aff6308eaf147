//go:build !linux

package mmapio_test

import (
	"os"
	"testing"
)

// needFarMappings is about an emulator of Linux.
func needFarMappings(testing.TB, *os.File, int64, string) {}
