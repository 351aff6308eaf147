package prove

import (
	"fmt"
	"testing"
)

// DropCaches writes dirty pages out and drops every page of the page cache that no process has mapped. It calls Quiet:
// until the end of the test no other test does the same.
func DropCaches(t testing.TB) {
	t.Helper()
	Need(t, CacheDrop)
	Quiet(t)
	dropCaches(t)
}

// Quiet waits until no other test on this machine drops caches, and keeps them from it until the end of the test: for a
// test that says what is in the page cache without holding it there. Packages are tested side by side.
func Quiet(t testing.TB) {
	t.Helper()
	Need(t, Linux)
	quiet(t)
}

// Resident asks a second process how many pages the file has and how many of them are in the page cache. The second
// process maps nothing that counts, and sees what is so when this one is gone.
func Resident(t testing.TB, path string) (pages, resident int) {
	t.Helper()
	Need(t, Linux)
	res := start(t, &childSpec{Name: residentChild, Args: []string{path}}).Wait()
	if _, err := fmt.Sscanf(res.Output, "%d %d", &pages, &resident); err != nil || res.Code != 0 {
		t.Fatalf("cannot tell what is resident of %s: %v", path, res)
	}
	return pages, resident
}
