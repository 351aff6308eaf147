package mmapio_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// failAt makes a step of a change fail each time, until the test ends or undo.
func failAt(t testing.TB, step string) (undo func()) {
	t.Helper()
	undo = mmapio.SetFailpoint(func(s string) error {
		if s == step {
			return errInjected
		}
		return nil
	})
	t.Cleanup(undo)
	return undo
}

// TestGrowthStaysLonger: a growth that fails when the file has grown cannot be
// undone while memory is held. Then it says so, and nothing else has changed.
func TestGrowthStaysLonger(t *testing.T) {
	needLocks(t)
	for _, step := range []string{"map", "lock"} {
		path, content := patternFile(t, 3*pageSize+5)
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
		if err := f.Lock(pageSize, 1); err != nil {
			t.Fatal(err)
		}
		r, err := f.Region(7, 9)
		if err != nil {
			t.Fatal(err)
		}
		undo := failAt(t, step)
		err = f.Resize(10 * pageSize)
		undo()
		by := 7*pageSize - 5
		if !errors.Is(err, errInjected) || errors.Is(err, mmapio.ErrBusy) ||
			!strings.Contains(err.Error(), fmt.Sprintf("the file stays %d bytes longer than it was", by)) {
			t.Errorf("%s: %v", step, err)
		}
		if le := (*mmapio.LockError)(nil); errors.As(err, &le) != (step == "lock") {
			t.Errorf("%s: %T", step, err)
		} else if le == nil {
			wantPathError(t, err, "resize", path, errInjected)
		}
		if n := sizeOnDisk(t, path); n != 10*pageSize {
			t.Errorf("%d bytes on disk", n)
		}
		same(t, "the File", contentOf(t, f), content)
		same(t, "the Region", r.Bytes(), content[7:16])
		if got := f.LockedRanges(); !slices.Equal(got, []mmapio.Range{{Off: pageSize, Len: pageSize}}) {
			t.Errorf("locked are %v", got)
		}
		wantPathError(t, f.Resize(f.Size()), "resize", path, mmapio.ErrBusy)
		r.Release()
		mustResize(t, f, f.Size())
		same(t, "in the end the file", onDisk(t, path), content)
	}
}

// TestShrinkLost: if a file cannot be mapped again once it was cut, the File is
// closed, and everybody is told.
func TestShrinkLost(t *testing.T) {
	path, content := patternFile(t, 3*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	failAt(t, "remap")
	err := f.Resize(pageSize + 1)
	if !errors.Is(err, errInjected) || !errors.Is(err, fs.ErrClosed) || !strings.Contains(err.Error(), "could not be mapped again and is closed") {
		t.Errorf("%v", err)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("ReadAt: %v", err)
	}
	wantPathError(t, f.Lock(0, 1), "lock", path, fs.ErrClosed)
	wantPathError(t, f.Close(), "close", path, fs.ErrClosed)
	same(t, "the file", onDisk(t, path), content[:pageSize+1])
	if err := os.Remove(path); err != nil {
		t.Errorf("something is left open: %v", err)
	}
}

// mapChild maps a file until it is told to end.
var mapChild = prove.Register("map", func(args []string) int {
	f, err := mmapio.Open(args[0])
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer f.Close()
	fmt.Println("mapped")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	return 0
})

// TestShrinkMappedElsewhere: another File of this process, and another process,
// are in the way of a cut too, and can be told from this File's own holders.
func TestShrinkMappedElsewhere(t *testing.T) {
	needLocks(t)
	path, content := patternFile(t, 3*pageSize)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	if err := f.Lock(0, 1); err != nil {
		t.Fatal(err)
	}
	pin, err := f.Pin(pageSize, 1)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(who string) {
		t.Helper()
		for _, size := range []int64{0, 1, 2 * pageSize} {
			err := f.Resize(size)
			wantPathError(t, err, "resize", path, mmapio.ErrBusy)
			if !strings.Contains(err.Error(), "mapped by another File or process") {
				t.Errorf("%s: %v", who, err)
			}
			same(t, who, contentOf(t, f), content)
			if got := f.LockedRanges(); !slices.Equal(got, []mmapio.Range{{Off: 0, Len: 2 * pageSize}}) {
				t.Errorf("%s: locked are %v", who, got)
			}
		}
	}
	second := mustOpen(t, path, nil)
	refused("a second File")
	mustClose(t, second)
	child := mapChild.Start(t, prove.Args(path))
	child.Expect("mapped")
	refused("a child")
	child.Send("end")
	if res := child.Wait(); res.Code != 0 {
		t.Fatal(res)
	}
	mustResize(t, f, pageSize+1)
	same(t, "the file", onDisk(t, path), content[:pageSize+1])
	if got := f.LockedRanges(); !slices.Equal(got, []mmapio.Range{{Off: 0, Len: pageSize + 1}}) {
		t.Errorf("locked are %v", got)
	}
	if err := pin.Release(); err != nil {
		t.Error(err)
	}
	if got := f.LockedRanges(); !slices.Equal(got, []mmapio.Range{{Off: 0, Len: pageSize}}) {
		t.Errorf("locked without the pin are %v", got)
	}
}
