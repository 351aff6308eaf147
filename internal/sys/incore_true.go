//go:build (dragonfly || linux || netbsd) && !(linux && mmapio_page64k)

package sys

func canIncore() bool { return true }
