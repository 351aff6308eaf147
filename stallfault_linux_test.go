package mmapio_test

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// Pages of a file of which three in the middle and one near the end cannot be read.
const widePages, wideMiddle, wideEnd = 2048, 1400, 2040

// wideFaults touch one of these pages, in a range from some page to the end that is
// lent by a View, an Update where it is stored to, or a Region. want is the page
// that the error is about.
var wideFaults = []struct {
	name              string
	mode              mmapio.Mode
	region            bool
	from, touch, want int64
}{
	{name: "the first", touch: wideMiddle, want: wideMiddle},
	{name: "the last", touch: wideEnd, want: wideMiddle},
	{name: "the last, from the second on", from: wideMiddle + 1, touch: wideEnd, want: wideMiddle + 1},
	{name: "the last, from a good one on", from: wideMiddle + 3, touch: wideEnd, want: wideEnd},
	{name: "the third, in a Region", region: true, touch: wideMiddle + 2, want: wideMiddle},
	{name: "a store", mode: mmapio.ReadWrite, touch: wideEnd, want: wideMiddle},
	{name: "a store to a copy", mode: mmapio.CopyOnWrite, touch: wideEnd, want: wideMiddle},
}

// wideFaultChild does all this to a file of which nothing is in memory, and prints
// how many faults had to read until the error was there.
var wideFaultChild = prove.Register("wide fault", func(args []string) int {
	t := prove.T()
	for _, c := range wideFaults {
		f := mustOpen(t, args[0], &mmapio.Options{Mode: c.mode})
		check(t, f.Advise(0, f.Size(), mmapio.AdviceRandom))
		ask(t, "drop")
		off := c.from * pageSize
		touch := func(b []byte) error {
			if at := &b[c.touch*pageSize-off]; c.mode == mmapio.ReadOnly {
				sink += int(*at)
			} else {
				*at = 1
			}
			return nil
		}
		op, call := "view", f.View
		switch {
		case c.region:
			op = "guard"
			call = func(off, n int64, fn func([]byte) error) error {
				r, err := f.Region(off, n)
				if err != nil {
					return err
				}
				defer r.Release()
				return mmapio.Guard(func() error { return fn(r.Bytes()) })
			}
		case c.mode != mmapio.ReadOnly:
			op, call = "update", f.Update
		}
		read := prove.CountFaults(t)
		before := read()
		err := call(off, f.Size()-off, touch)
		fmt.Println("major", read().Major-before.Major)
		wantFault(t, err, op, c.want*pageSize, 0, syscall.EIO)
		mustClose(t, f)
	}
	if t.Failed() {
		return 1
	}
	return 0
})

// TestNoStallFault: to find the first page that cannot be read of a wide range that
// is not in memory waits for no disk, and the error names that page.
func TestNoStallFault(t *testing.T) {
	prove.NeedE2E(t, prove.Linux, prove.Root, prove.FUSE)
	prove.Need(t, prove.Advice)
	fs := slowfs.Start(t, slowfs.Options{})
	fs.AddFile("file", widePages*pageSize, slowfs.Offsets)
	fs.FailReads("file", wideMiddle*pageSize, 3*pageSize, syscall.EIO)
	fs.FailReads("file", wideEnd*pageSize, pageSize, syscall.EIO)
	for _, env := range []string{"MMAPIO_DEBUG=", "MMAPIO_DEBUG=nopopulate"} {
		var major []int
		p := wideFaultChild.Start(t, prove.Args(fs.Path("file")), prove.Env(env))
		for line, ok := p.Line(); ok; line, ok = p.Line() {
			if line == "ask drop" {
				fs.DropCache("file", 0, 0)
				p.Send("done")
			} else if n, err := strconv.Atoi(strings.TrimPrefix(line, "major ")); err == nil {
				major = append(major, n)
			}
		}
		if res := p.Wait(); res.Code != 0 || len(major) != len(wideFaults) {
			t.Fatal(res)
		}
		for i, n := range major {
			c := wideFaults[i]
			// A Region does not say where the search should begin, so it goes backwards.
			searches := !c.region && c.want-c.from > 100
			if off := strings.HasSuffix(env, "nopopulate"); off && searches && n < 100 || !(off && searches) && n > 2 {
				t.Errorf("%s: %d major faults with %s", c.name, n, env)
			}
		}
	}
}

// TestRandomReadsWide: a wide read is asked of the disk in large requests, step
// after step, also where it was advised that reads jump about.
func TestRandomReadsWide(t *testing.T) {
	prove.NeedE2E(t, prove.Linux, prove.Root, prove.FUSE)
	prove.Need(t, prove.Advice)
	fs := slowfs.Start(t, slowfs.Options{})
	fs.AddFile("file", widePages*pageSize, slowfs.Offsets)
	f := mustOpen(t, fs.Path("file"), &mmapio.Options{Mode: mmapio.CopyOnWrite})
	check(t, f.Advise(0, f.Size(), mmapio.AdviceRandom))
	fs.ResetLog()
	_, err := f.ReadAt(make([]byte, f.Size()), 0)
	check(t, err)
	if n, most := fs.Count(slowfs.OpRead), widePages*int(pageSize)/(64<<10); n > most {
		t.Errorf("%d requests for %d pages, want %d at most", n, widePages, most)
	}
}
