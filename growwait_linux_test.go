package mmapio_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// whileGrowing are calls of a File of 64 KiB, all in memory, and of a Section of its
// first half. beyond is the range error that they end in.
var whileGrowing = []struct {
	name   string
	beyond bool
	do     func(f *mmapio.File, s *mmapio.Section) error
}{
	{name: "ReadAt", do: func(f *mmapio.File, _ *mmapio.Section) error { _, err := f.ReadAt(make([]byte, 64), 8); return err }},
	{name: "WriteAt", do: func(f *mmapio.File, _ *mmapio.Section) error { return writeByte(f, 5) }},
	{name: "LoadAt", do: func(f *mmapio.File, _ *mmapio.Section) error { _, err := mmapio.LoadAt[uint64](f, 8); return err }},
	{name: "StoreAt", do: func(f *mmapio.File, _ *mmapio.Section) error { return mmapio.StoreAt[uint64](f, 8, 1) }},
	{name: "View", do: func(f *mmapio.File, _ *mmapio.Section) error { return f.View(0, 64<<10, touchSlice) }},
	{name: "Update", do: func(f *mmapio.File, _ *mmapio.Section) error { return f.Update(0, 64, touchSlice) }},
	{name: "Region", do: func(f *mmapio.File, _ *mmapio.Section) error { return releasedAfter(f.Region(0, 64)) }},
	{name: "ValueAt", do: func(f *mmapio.File, _ *mmapio.Section) error { return releasedAfter(mmapio.ValueAt[uint64](f, 8)) }},
	{name: "ValuesAt", do: func(f *mmapio.File, _ *mmapio.Section) error { return releasedAfter(mmapio.ValuesAt[uint64](f, 8, 9)) }},
	{name: "Chunks", do: func(f *mmapio.File, _ *mmapio.Section) error { return through(f.Chunks(0, 64<<10, 4<<10), touchChunk) }},
	{name: "Pages", do: func(f *mmapio.File, _ *mmapio.Section) error { return through(f.Pages(0, 64<<10), touchChunk) }},
	{name: "UpdateChunks", do: func(f *mmapio.File, _ *mmapio.Section) error {
		return f.UpdateChunks(0, 64<<10, 4<<10, touchChunk)
	}},
	{name: "Populate", do: func(f *mmapio.File, _ *mmapio.Section) error {
		return f.Populate(context.Background(), 0, 64<<10)
	}},
	{name: "Prefetch", do: func(f *mmapio.File, _ *mmapio.Section) error { return f.Prefetch(0, 64<<10) }},
	{name: "WillNeed", do: func(f *mmapio.File, _ *mmapio.Section) error {
		return f.Advise(0, 64<<10, mmapio.AdviceWillNeed)
	}},
	{name: "Cold", do: func(f *mmapio.File, _ *mmapio.Section) error { return f.Advise(0, 64<<10, mmapio.AdviceCold) }},
	{name: "Residency", do: func(f *mmapio.File, _ *mmapio.Section) error { _, err := f.Residency(0, 64<<10); return err }},
	{name: "ResidentRanges", do: func(f *mmapio.File, _ *mmapio.Section) error {
		if _, err := f.ResidentRanges(0, 64<<10); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		return nil // the kernel need not tell
	}},
	{name: "StartSync", do: func(f *mmapio.File, _ *mmapio.Section) error { return f.StartSync(0, 64<<10) }},
	{name: "Section", do: func(f *mmapio.File, _ *mmapio.Section) error { _, err := f.Section(0, 64<<10); return err }},
	{name: "Section.ReadAt", do: func(_ *mmapio.File, s *mmapio.Section) error { _, err := s.ReadAt(make([]byte, 64), 8); return err }},
	{name: "Section.WriteAt", do: func(_ *mmapio.File, s *mmapio.Section) error { _, err := s.WriteAt(make([]byte, 64), 8); return err }},
	{name: "Section.View", do: func(_ *mmapio.File, s *mmapio.Section) error { return s.View(0, 64, touchSlice) }},
	{name: "Section.Update", do: func(_ *mmapio.File, s *mmapio.Section) error { return s.Update(0, 64, touchSlice) }},
	{name: "Section.Chunks", do: func(_ *mmapio.File, s *mmapio.Section) error { return through(s.Chunks(0, 64, 8), touchChunk) }},

	// What is being added is not there yet.
	{name: "WriteAt beyond", beyond: true, do: func(f *mmapio.File, _ *mmapio.Section) error { return writeByte(f, 64<<10) }},
	{name: "View beyond", beyond: true, do: func(f *mmapio.File, _ *mmapio.Section) error { return f.View(64<<10, 1, touchSlice) }},
	{name: "Update beyond", beyond: true, do: func(f *mmapio.File, _ *mmapio.Section) error { return f.Update(64<<10, 1, touchSlice) }},
	{name: "Region beyond", beyond: true, do: func(f *mmapio.File, _ *mmapio.Section) error { return releasedAfter(f.Region(64<<10, 1)) }},
	{name: "ValueAt beyond", beyond: true, do: func(f *mmapio.File, _ *mmapio.Section) error {
		return releasedAfter(mmapio.ValueAt[uint64](f, 64<<10))
	}},
	{name: "Chunks beyond", beyond: true, do: func(f *mmapio.File, _ *mmapio.Section) error {
		return through(f.Chunks(64<<10, 1, 1), touchChunk)
	}},
	{name: "Chunks of no size", beyond: true, do: func(f *mmapio.File, _ *mmapio.Section) error {
		return through(f.Chunks(0, 1, 0), touchChunk)
	}},
	{name: "UpdateChunks beyond", beyond: true, do: func(f *mmapio.File, _ *mmapio.Section) error {
		return f.UpdateChunks(64<<10, 1, 1, touchChunk)
	}},
	{name: "Populate beyond", beyond: true, do: func(f *mmapio.File, _ *mmapio.Section) error {
		return f.Populate(context.Background(), 64<<10, 1)
	}},
	{name: "Residency beyond", beyond: true, do: func(f *mmapio.File, _ *mmapio.Section) error {
		_, err := f.Residency(64<<10, 1)
		return err
	}},
	{name: "Section beyond", beyond: true, do: func(f *mmapio.File, _ *mmapio.Section) error { _, err := f.Section(64<<10, 1); return err }},
	{name: "Section.View beyond", beyond: true, do: func(_ *mmapio.File, s *mmapio.Section) error {
		return s.View(s.Size(), 1, touchSlice)
	}},
}

func touchChunk(c mmapio.Chunk) error { return touchSlice(c.Data) }

func releasedAfter(held interface{ Release() }, err error) error {
	if err == nil {
		held.Release()
	}
	return err
}

// TestGrowthKeepsNobodyWaiting: while a Resize waits for the disk to give it blocks,
// all that is about what was there goes on, and what is not there yet is refused.
func TestGrowthKeepsNobodyWaiting(t *testing.T) {
	prove.Need(t, prove.FUSE)
	prove.LeakCheck(t)
	const size = 64 << 10
	disk := slowfs.Start(t, slowfs.Options{})
	disk.AddFile("f", size, slowfs.Offsets)
	f := mustOpen(t, disk.Path("f"), &mmapio.Options{Mode: mmapio.ReadWrite})
	noError(t, "Populate", f.Populate(context.Background(), 0, size))
	s := mustSection(t, f, 0, size/2)
	release := sync.OnceFunc(disk.Hold(slowfs.OpFallocate, "f"))
	defer release()
	grown := make(chan error, 1)
	go func() { grown <- f.Resize(2 * size) }()
	disk.WaitHeld(1)
	var calls sync.WaitGroup
	for _, c := range whileGrowing {
		t.Run(c.name, func(t *testing.T) {
			done := make(chan error, 1)
			calls.Go(func() { done <- c.do(f, s) })
			select {
			case err := <-done:
				if re := (*mmapio.RangeError)(nil); c.beyond != errors.As(err, &re) || err != nil && !c.beyond {
					t.Error(err)
				} else if c.beyond && re.Size != size && re.Size != size/2 {
					t.Errorf("%v: not the size before", err)
				}
			case <-time.After(10 * time.Second):
				t.Error("it waits for the Resize")
			}
		})
	}
	select {
	case err := <-grown:
		t.Fatalf("the Resize has ended before the calls: %v", err)
	default:
	}
	release()
	noError(t, "Resize", <-grown)
	calls.Wait()
	// Once Resize has returned, nobody sees the size of before.
	for _, c := range whileGrowing {
		if c.beyond && c.name != "Section.View beyond" && c.name != "Chunks of no size" {
			noError(t, c.name, c.do(f, s))
		}
	}
	mustClose(t, f)
}

// TestSectionIsCutMeanwhile: a section that a shrink under way cuts off is out of
// range, as it is a moment later, and does not end early.
func TestSectionIsCutMeanwhile(t *testing.T) {
	path, _ := patternFile(t, 2*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	s := mustSection(t, f, pageSize, 64)
	_, err := s.ReadAt(make([]byte, 64), 0)
	noError(t, "ReadAt", err)
	goOn := sync.OnceFunc(mmapio.StopShrink(f))
	defer goOn()
	shrunk, read := make(chan error, 1), make(chan error, 1)
	go func() { shrunk <- f.Resize(pageSize) }()
	for end := time.Now().Add(30 * time.Second); sizeOnDisk(t, path) != pageSize; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the file does not become shorter")
		}
	}
	go func() {
		_, err := s.ReadAt(make([]byte, 64), 0)
		read <- err
	}()
	select {
	case err := <-read:
		t.Errorf("while the file is shorter: %v", err)
		read <- err
	case <-time.After(50 * time.Millisecond): // to come as far as it gets
	}
	goOn()
	noError(t, "Resize", <-shrunk)
	wantRangeError(t, <-read, mmapio.RangeError{Op: "readat", Path: path, Off: pageSize, Len: 64, Size: pageSize})
}
