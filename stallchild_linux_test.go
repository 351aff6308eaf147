package mmapio_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

const stallPages = 128

// touchAll are all ways to touch pages, each given the start of a page at a
// time, in an order that no read-ahead guesses.
var touchAll = map[string]struct {
	mode  mmapio.Mode
	whole bool // touches all in one call, or in its own order
	calls bool // brings them in by system calls with the mechanism off as well
	opts  mmapio.Options
	do    func(f *mmapio.File, off int64) error
}{
	"ReadAt":             {do: readByte},
	"ReadAt wide":        {whole: true, do: func(f *mmapio.File, _ int64) error { _, err := f.ReadAt(make([]byte, f.Size()), 0); return err }},
	"ReadAt ReadWrite":   {mode: mmapio.ReadWrite, do: readByte},
	"ReadAt CopyOnWrite": {mode: mmapio.CopyOnWrite, do: readByte},
	"ReadAt DropFD":      {opts: mmapio.Options{DropFD: true}, do: readByte},
	"ReadAt Offset":      {opts: mmapio.Options{Offset: 5}, do: readByte},
	"Section.ReadAt": {do: func(f *mmapio.File, off int64) error {
		s, err := f.Section(off, 1)
		if err == nil {
			_, err = s.ReadAt(make([]byte, 1), 0)
		}
		return err
	}},
	"WriteAt":             {mode: mmapio.ReadWrite, do: writeByte},
	"WriteAt CopyOnWrite": {mode: mmapio.CopyOnWrite, do: writeByte},
	"LoadAt":              {do: func(f *mmapio.File, off int64) error { _, err := mmapio.LoadAt[uint64](f, off); return err }},
	"StoreAt":             {mode: mmapio.ReadWrite, do: func(f *mmapio.File, off int64) error { return mmapio.StoreAt[uint32](f, off, 1) }},
	"View":                {do: func(f *mmapio.File, off int64) error { return f.View(off, 1, touchSlice) }},
	"View of 1 MiB":       {whole: true, do: func(f *mmapio.File, _ int64) error { return f.View(f.Size()/2-3, min(1<<20, f.Size()/2), touchSlice) }},
	"Update":              {mode: mmapio.ReadWrite, do: func(f *mmapio.File, off int64) error { return f.Update(off, 1, touchSlice) }},
	"UpdateChunks": {mode: mmapio.ReadWrite, do: func(f *mmapio.File, off int64) error {
		return f.UpdateChunks(off, 10, 3, func(c mmapio.Chunk) error { return touchSlice(c.Data) })
	}},
	"Region": {do: func(f *mmapio.File, off int64) error {
		r, err := f.Region(off, 1)
		if err != nil {
			return err
		}
		defer r.Release()
		return touchSlice(r.Bytes())
	}},
	"ValueAt": {do: func(f *mmapio.File, off int64) error {
		v, err := mmapio.ValueAt[uint64](f, off)
		if err != nil {
			return err
		}
		defer v.Release()
		sink += int(*v.Ptr())
		return nil
	}},
	"ValuesAt": {do: func(f *mmapio.File, off int64) error {
		v, err := mmapio.ValuesAt[uint64](f, off, 3)
		if err != nil {
			return err
		}
		defer v.Release()
		sink += int(v.Slice()[2])
		return nil
	}},
	"Pin": {calls: true, do: func(f *mmapio.File, off int64) error {
		p, err := f.Pin(off, 1)
		if err == nil {
			err = p.Release()
		}
		return err
	}},
	"Chunks": {whole: true, do: func(f *mmapio.File, _ int64) error {
		return through(f.Chunks(0, f.Size(), 3*pageSize+1), func(c mmapio.Chunk) error { return touchSlice(c.Data) })
	}},
	"Pages": {whole: true, do: func(f *mmapio.File, _ int64) error {
		return through(f.Pages(0, f.Size()), func(c mmapio.Chunk) error { return touchSlice(c.Data) })
	}},
}

var sink int

func touchSlice(b []byte) error { sink += sum(b); return nil }

func readByte(f *mmapio.File, off int64) error {
	_, err := f.ReadAt(make([]byte, 1), off)
	return err
}

func writeByte(f *mmapio.File, off int64) error {
	_, err := f.WriteAt([]byte{1}, off)
	return err
}

// stallChild touches pages of a file, so many bytes apart, and prints how many faults it took.
var stallChild = prove.Register("stall", func(args []string) int {
	t, way := prove.T(), touchAll[args[0]]
	stride, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	o := way.opts
	o.Mode = way.mode
	f := mustOpen(t, args[1], &o)
	readByte(f, 0) //nolint:errcheck // whatever the first call takes
	read := prove.CountFaults(t)
	before := read()
	for i := range int64(stallPages - 1) {
		if way.whole && i > 0 {
			break
		}
		// 37 has no divisor in common with the number of pages.
		if err := way.do(f, (1+i*37%(stallPages-1))*stride); err != nil {
			t.Fatal(err)
		}
	}
	after := read()
	fmt.Println("major", after.Major-before.Major)
	fmt.Println("minor", after.Minor-before.Minor)
	mustClose(t, f)
	return 0
})

// stalls has a child touch a file, with the mechanism or without.
func stalls(t *testing.T, way, path string, stride int64, off bool) (major, minor int) {
	t.Helper()
	env := "MMAPIO_DEBUG=leaks"
	if off {
		env += ",nopopulate"
	}
	p := stallChild.Start(t, prove.Args(way, path, strconv.FormatInt(stride, 10)), prove.Env(env))
	var err error
	if major, err = strconv.Atoi(p.Expect("major ")); err == nil {
		minor, err = strconv.Atoi(p.Expect("minor "))
	}
	if err != nil {
		t.Fatal(err)
	}
	if res := p.Wait(); res.Code != 0 {
		t.Fatal(res)
	}
	return major, minor
}
