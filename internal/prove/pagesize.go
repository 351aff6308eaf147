package prove

import "os"

// PageSize is the size of a page as the library must have it: the system's, or what the build tag mmapio_page64k
// pretends. The oracles here always speak of the system's.
func PageSize() int {
	if pretended > 0 {
		return pretended
	}
	return os.Getpagesize()
}

const pretends = "this build pretends that pages are larger than the kernel's"
