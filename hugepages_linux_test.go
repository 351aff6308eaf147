package mmapio_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// hugeBytes is what smaps says about a File.
func hugeBytes(t testing.TB, f *mmapio.File) (n int64) {
	t.Helper()
	for _, v := range prove.Mappings(t, memoryOf(t, f)) {
		n += v.AnonHuge + v.ShmemHuge + v.FileHuge
	}
	return n
}

// wantHuge compares Residency.Huge with smaps, and with what there should be.
func wantHuge(t testing.TB, f *mmapio.File, want int64) {
	t.Helper()
	r, err := f.Residency(0, f.Size())
	if smaps := hugeBytes(t, f); err != nil || r.Huge*pageSize != smaps || smaps != want {
		t.Errorf("%+v, %v; smaps says %d, want %d bytes in huge pages", r, err, smaps, want)
	}
}

const hugePage = 2 << 20

func needHuge(t *testing.T) {
	t.Helper()
	prove.Need(t, prove.Root, prove.Pagemap, prove.Scan, prove.Collapse)
	mode, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	size, _ := os.ReadFile("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
	if err != nil || bytes.Contains(mode, []byte("[never]")) || string(size) != fmt.Sprintln(hugePage) {
		prove.Unable(t, "no huge pages: %s%s%v", mode, size, err)
	}
}

// To ask for huge pages gives none and dirties nothing; to store does.
func TestHugePagesAnonymous(t *testing.T) {
	needHuge(t)
	for _, reserve := range []int64{0, 64 << 20} {
		f := opened(t)(mmapio.Anonymous(4*hugePage, &mmapio.Options{HugePages: true, Reserve: reserve}))
		if r, err := f.Residency(0, f.Size()); err != nil || r.Resident != 0 || r.Huge != 0 {
			t.Errorf("nothing stored: %+v, %v", r, err)
		}
		wantHuge(t, f, 0)
		if _, err := f.WriteAt([]byte{1}, hugePage); err != nil {
			t.Fatal(err)
		}
		wantHuge(t, f, hugePage)
		if r, err := f.Residency(hugePage-pageSize, 3*pageSize); err != nil || r.Resident != 2 || r.Huge != 2 {
			t.Errorf("part of it: %+v, %v", r, err)
		}
		if _, err := f.WriteAt(make([]byte, f.Size()), 0); err != nil {
			t.Fatal(err)
		}
		wantHuge(t, f, 4*hugePage)
		if err := f.Resize(6 * hugePage); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{1}, 5*hugePage); err != nil {
			t.Fatal(err)
		}
		if r, err := f.Residency(5*hugePage, hugePage); err != nil || r.Huge*pageSize != hugePage {
			t.Errorf("what was added: %+v, %v", r, err)
		}
	}
	// The control: nobody asked.
	f := opened(t)(mmapio.Anonymous(4*hugePage, nil))
	if _, err := f.WriteAt(make([]byte, f.Size()), 0); err != nil {
		t.Fatal(err)
	}
	if hugeBytes(t, f) != 0 {
		prove.Unable(t, "the kernel gives huge pages to all")
	}
	wantHuge(t, f, 0)
	advise(t, f, 5, f.Size()-10, mmapio.AdviceCollapse) // outwards
	if got := hugeBytes(t, f); got < 3*hugePage {
		t.Errorf("collapsed to %d bytes in huge pages", got)
	}
	wantHuge(t, f, hugeBytes(t, f))
	if got := contentOf(t, f); !bytes.Equal(got, make([]byte, f.Size())) {
		t.Error("collapsing changed it")
	}
	// Locked pages are locked in huge pages, too.
	if err := f.Lock(hugePage, pageSize); err != nil {
		t.Fatal(err)
	}
	advise(t, f, 0, f.Size(), mmapio.AdviceCollapse)
	if err := f.VerifyLocked(hugePage, pageSize); err != nil {
		t.Error(err)
	}
}

// A tmpfs that is mounted with huge=advise gives huge pages to who asks.
func TestHugePagesTmpfs(t *testing.T) {
	needHuge(t)
	prove.Need(t, prove.TmpfsMount, prove.Scan, prove.Collapse)
	dir := prove.SmallTmpfs(t, 64<<20)
	if err := syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT, "huge=advise"); err != nil {
		prove.Unable(t, "no huge pages on tmpfs: %v", err)
	}
	for i, o := range []mmapio.Options{{HugePages: true}, {HugePages: true, Reserve: 32 << 20}, {HugePages: true, Offset: 3*pageSize + 1}, {}} {
		path := filepath.Join(dir, fmt.Sprint(i))
		o.Mode, o.Create, o.Sparse, o.MinSize = mmapio.ReadWrite, true, true, 4*hugePage
		f := mustOpen(t, path, &o)
		if _, n := prove.Resident(t, path); n != 0 {
			t.Errorf("%+v: to ask put %d pages into RAM", o, n)
		}
		if _, err := f.WriteAt(make([]byte, f.Size()), 0); err != nil {
			t.Fatal(err)
		}
		switch {
		case !o.HugePages:
			wantHuge(t, f, 0)
			advise(t, f, 0, f.Size(), mmapio.AdviceCollapse)
			if got := hugeBytes(t, f); got < 3*hugePage {
				t.Errorf("collapsed to %d bytes in huge pages", got)
			}
			wantHuge(t, f, hugeBytes(t, f))
		case o.Offset > 0:
			wantHuge(t, f, 3*hugePage) // the first is not mapped whole
		default:
			wantHuge(t, f, 4*hugePage)
		}
	}
}

// What a file system on a disk makes of it is up to it; what is said about it is
// true.
func TestHugePagesDisk(t *testing.T) {
	needHuge(t)
	prove.Need(t, prove.Ext4, prove.Scan)
	path := prove.NewFile(t, prove.LoopFS(t, "ext4", 64<<20).Dir, "file", 4*hugePage)
	prove.DropCaches(t)
	f := mustOpen(t, path, &mmapio.Options{HugePages: true})
	if _, n := prove.Resident(t, path); n != 0 {
		t.Errorf("to ask put %d pages into RAM", n)
	}
	touch(t, f)
	got := hugeBytes(t, f)
	t.Logf("%d of %d bytes in huge pages", got, f.Size())
	wantHuge(t, f, got)
	advise(t, f, 0, f.Size(), mmapio.AdviceCollapse)
}
