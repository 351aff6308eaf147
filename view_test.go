package mmapio_test

import (
	"testing"

	"github.com/mmapio/mmapio"
)

// To append to what View and Update lend makes a copy: what is behind it is not stored to.
func TestLentSlicesEndWhereTheyEnd(t *testing.T) {
	const content = "0123456789"
	needMaps(t)
	f := opened(t)(mmapio.Anonymous(int64(len(content)), nil))
	store(t, f, 0, content)
	s := mustSection(t, f, 1, 8)
	for name, lend := range map[string]func(off, n int64, fn func([]byte) error) error{
		"View": f.View, "Update": f.Update, "Section.View": s.View, "Section.Update": s.Update,
	} {
		check(t, lend(2, 3, func(b []byte) error {
			if len(b) != 3 || cap(b) != 3 {
				t.Errorf("%s: %d bytes with a capacity of %d", name, len(b), cap(b))
			}
			_ = append(b, "xx"...)
			return nil
		}))
	}
	same(t, "what was lent", contentOf(t, f), []byte(content))
}
