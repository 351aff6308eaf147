//go:build !linux && !windows

package mmapio_test

import "testing"

var systemActs map[string]func(t testing.TB, path string)
