//go:build linux && mmapio_page64k

package prove

const pretended = 64 << 10
