package prove

import (
	"fmt"
	"strings"
	"testing"
)

// LockedPages says of every page that holds a byte of b whether the mapping that holds it has VmFlags lo (or ht). A
// page that is not mapped at all is not locked.
func LockedPages(t testing.TB, b []byte) []bool {
	t.Helper()
	s := spanOf(b)
	locked := make([]bool, s.pages)
	for _, v := range Mappings(t, b) {
		if !v.IsLocked() {
			continue
		}
		for i := range locked {
			if a := s.addr(i); v.Start <= a && a < v.End {
				locked[i] = true
			}
		}
	}
	return locked
}

// PresentPages says of every page that holds a byte of b whether this process has it mapped in: in memory, and not the
// shared zero page, which holds nothing.
func PresentPages(t testing.TB, b []byte) []bool {
	t.Helper()
	Need(t, Pagemap)
	present, _ := readPages(t, spanOf(b))
	return present
}

// SwappedPages says of every page that holds a byte of b whether it is in swap.
func SwappedPages(t testing.TB, b []byte) []bool {
	t.Helper()
	Need(t, Pagemap)
	_, swapped := readPages(t, spanOf(b))
	return swapped
}

// Of /proc/kpageflags, from include/uapi/linux/kernel-page-flags.h.
const (
	kpfActive = 1 << 6
	kpfHead   = 1 << 15
	kpfTail   = 1 << 16
)

// ActivePages says of every page that holds a byte of b whether the kernel counts it among those in use, which go last
// when memory gets short. It needs root.
func ActivePages(t testing.TB, b []byte) []bool {
	t.Helper()
	return flagged(t, b, kpfActive)
}

// LargePages says of every page that holds a byte of b whether it is mapped, and a part of a larger one that the kernel
// keeps as a whole. It needs root.
func LargePages(t testing.TB, b []byte) []bool {
	t.Helper()
	return flagged(t, b, kpfHead|kpfTail)
}

func flagged(t testing.TB, b []byte, flags uint64) []bool {
	t.Helper()
	Need(t, Pagemap, Root)
	marked, err := flaggedPages(spanOf(b), flags)
	if err != nil {
		t.Fatal(err)
	}
	return marked
}

// Count is how many are true.
func Count(pages []bool) int {
	n := 0
	for _, yes := range pages {
		if yes {
			n++
		}
	}
	return n
}

// AssertHeld fails the test unless every page that holds a byte of b is locked and present.
func AssertHeld(t testing.TB, b []byte) {
	t.Helper()
	want := make([]bool, spanOf(b).pages)
	for i := range want {
		want[i] = true
	}
	AssertHeldPages(t, b, want)
}

// AssertNotHeld fails the test if a page that holds a byte of b is locked, present or not.
func AssertNotHeld(t testing.TB, b []byte) {
	t.Helper()
	AssertHeldPages(t, b, make([]bool, spanOf(b).pages))
}

// AssertHeldPages fails the test unless each page is as want has it: true is locked and present, false is not locked at
// all. A page that is locked but absent is neither, since a lock that waits for a fault does not hold anything yet.
func AssertHeldPages(t testing.TB, b []byte, want []bool) {
	t.Helper()
	s := spanOf(b)
	if len(want) != s.pages {
		t.Fatalf("want is about %d pages, but %d bytes at %#x lie on %d", len(want), len(b), s.start, s.pages)
	}
	if diff := heldDiff(want, LockedPages(t, b), PresentPages(t, b)); diff != "" {
		t.Errorf("the kernel disagrees about %d bytes at %#x (%d pages):\n%s%s", len(b), s.start, s.pages, diff, list(Mappings(t, b)))
	}
}

// heldDiff is a line for each run of pages that are not as wanted.
func heldDiff(want, locked, present []bool) string {
	var out strings.Builder
	wrong := func(i int) bool { return want[i] != locked[i] || want[i] && !present[i] }
	for i := 0; i < len(want); {
		from := i
		for i++; i < len(want) && want[i] == want[from] && locked[i] == locked[from] && present[i] == present[from]; i++ {
		}
		if !wrong(from) {
			continue
		}
		fmt.Fprintf(&out, "  pages %d to %d (%d of them): want %s, are %s and %s\n", from, i-1, i-from,
			either(want[from], "held", "not locked"), either(locked[from], "locked", "not locked"),
			either(present[from], "present", "absent"))
	}
	return out.String()
}

func either(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}
