package mmapio_test

import (
	"testing"
	"time"

	"github.com/mmapio/mmapio"
)

// BenchmarkForgotten is what it costs to ask again about pages that are there,
// from which follows how often that may be done: ns a page.
func BenchmarkForgotten(b *testing.B) {
	b.Cleanup(mmapio.KnownFor(time.Hour, time.Hour))
	const pages = 4096
	path, _ := patternFile(b, pages*pageSize)
	f := mustOpen(b, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	p := make([]byte, 64)
	for _, c := range []struct {
		name   string
		every  int // pages between which everything is forgotten
		stride int64
		do     func(off int64) error
	}{
		{"ReadAt, known", 0, 1, func(off int64) error { _, err := f.ReadAt(p, off); return err }},
		{"ReadAt, forgotten", pages, 1, func(off int64) error { _, err := f.ReadAt(p, off); return err }},
		{"ReadAt, forgotten, no neighbours", 64, 64, func(off int64) error { _, err := f.ReadAt(p, off); return err }},
		{"WriteAt, known", 0, 1, func(off int64) error { _, err := f.WriteAt(p, off); return err }},
		{"WriteAt, forgotten", pages, 1, func(off int64) error { _, err := f.WriteAt(p, off); return err }},
	} {
		b.Run(c.name, func(b *testing.B) {
			for i := range int64(pages) {
				if err := c.do(i * pageSize); err != nil {
					b.Fatal(err)
				}
			}
			for i := 0; b.Loop(); i++ {
				if c.every > 0 && i%c.every == 0 {
					f.Expire()
				}
				if err := c.do(int64(i) * c.stride % pages * pageSize); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
