//go:build dragonfly || linux || netbsd

package sys

func canIncore() bool { return true }
