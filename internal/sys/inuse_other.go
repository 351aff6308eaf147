//go:build !windows

package sys

import "errors"

var errInUse = errors.New("the file is mapped")
