//go:build !darwin && !dragonfly && !freebsd && !netbsd && !openbsd

package sys

const lockHint = ""

const raiseHint = ""
