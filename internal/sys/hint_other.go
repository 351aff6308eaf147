//go:build !darwin && !freebsd

package sys

const lockHint = ""
