//go:build !windows

package mmapio_test

import "testing"

// inPageErrors is for Windows, which has them.
func inPageErrors(testing.TB) {}
