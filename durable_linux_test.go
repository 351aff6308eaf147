package mmapio_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
	"github.com/mmapio/mmapio/internal/slowfs"
)

// recordSize is no divisor of a page, so that some records lie on two.
const recordSize = 333

// durableRecord is what a path writes as its n-th: nothing else looks like it.
func durableRecord(path string, n int) []byte {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d", path, n)
	b := make([]byte, recordSize)
	for i := 0; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], h.Sum64()+uint64(i))
	}
	copy(b, fmt.Sprintf("%s record %d ", path, n))
	return b
}

// A durablePath is a way to write records that are to survive. write returns
// when the n-th is promised to be durable.
type durablePath struct {
	policy mmapio.SyncPolicy
	size   int64 // of the file at first; 0: room for all
	batch  int   // records that are promised together; 0: 1
	write  func(f *mmapio.File, off int64, b []byte) error
}

const durableRecords = 2000

// mustSync is a path that asks for a sync, after a write.
func mustSync(f *mmapio.File, err error) error {
	if err == nil {
		err = f.Sync()
	}
	return err
}

func writeAt(f *mmapio.File, off int64, b []byte) error {
	_, err := f.WriteAt(b, off)
	return err
}

// inRegion stores through a Region while keep holds it, and calls sync.
func inRegion(f *mmapio.File, off int64, b []byte, sync func(*mmapio.Region) error) error {
	r, err := f.Region(off, int64(len(b)))
	if err != nil {
		return err
	}
	defer r.Release()
	if err := mmapio.Guard(func() error { copy(r.Bytes(), b); return nil }); err != nil {
		return err
	}
	return sync(r)
}

// aSyncLater waits until a sync that began after the call has ended, or for so
// long that the policy must have seen to one.
func aSyncLater(f *mmapio.File) {
	before := mmapio.Asked(f)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Microsecond) {
		if mmapio.Covered(f) > before {
			return
		}
	}
}

// durablePaths are all ways.
var durablePaths = map[string]durablePath{
	"writeat": {write: func(f *mmapio.File, off int64, b []byte) error { return mustSync(f, writeAt(f, off, b)) }},
	"update": {write: func(f *mmapio.File, off int64, b []byte) error {
		return mustSync(f, f.Update(off, int64(len(b)), func(p []byte) error { copy(p, b); return nil }))
	}},
	"chunks": {write: func(f *mmapio.File, off int64, b []byte) error {
		return mustSync(f, f.UpdateChunks(off, int64(len(b)), 100, func(c mmapio.Chunk) error {
			copy(c.Data, b[c.Off-off:])
			return nil
		}))
	}},
	"storeat": {write: func(f *mmapio.File, off int64, b []byte) error {
		return mustSync(f, mmapio.StoreAt(f, off, [recordSize]byte(b)))
	}},
	"syncrange": {write: func(f *mmapio.File, off int64, b []byte) error {
		if err := writeAt(f, off, b); err != nil {
			return err
		}
		return f.SyncRange(off, int64(len(b)))
	}},
	"pinned": {write: func(f *mmapio.File, off int64, b []byte) error {
		p, err := f.Pin(off, 1)
		if err == nil {
			defer p.Release()
			err = writeAt(f, off, b)
		}
		if err != nil {
			return err
		}
		return f.SyncRange(0, f.Size())
	}},
	"region": {write: func(f *mmapio.File, off int64, b []byte) error {
		return inRegion(f, off, b, (*mmapio.Region).Sync)
	}},
	"value": {write: func(f *mmapio.File, off int64, b []byte) error {
		v, err := mmapio.ValueAt[[recordSize]byte](f, off)
		if err != nil {
			return err
		}
		defer v.Release()
		return mustSync(f, mmapio.Guard(func() error { *v.Ptr() = [recordSize]byte(b); return nil }))
	}},
	"resize": {size: 1, write: func(f *mmapio.File, off int64, b []byte) error {
		if err := f.Resize(off + recordSize); err != nil {
			return err
		}
		return mustSync(f, writeAt(f, off, b))
	}},
	"old": {size: 4096, write: func(f *mmapio.File, off int64, b []byte) error { // an old generation
		if err := f.Resize(max(f.Size(), off+recordSize)); err != nil {
			return err
		}
		return inRegion(f, off, b, func(r *mmapio.Region) error {
			if err := f.Resize(f.Size() + 4096); err != nil {
				return err
			}
			return r.Sync()
		})
	}},
	"writes":  {policy: mmapio.SyncPolicy{Writes: 1}, write: writeAt},
	"writes3": {policy: mmapio.SyncPolicy{Writes: 3}, batch: 3, write: writeAt},
	"bytes":   {policy: mmapio.SyncPolicy{Bytes: 2*recordSize - 1}, batch: 2, write: writeAt},
	"interval": {policy: mmapio.SyncPolicy{Interval: time.Millisecond},
		write: func(f *mmapio.File, off int64, b []byte) error {
			if err := writeAt(f, off, b); err != nil {
				return err
			}
			aSyncLater(f)
			return nil
		}},
	"held": {policy: mmapio.SyncPolicy{Interval: time.Millisecond},
		write: func(f *mmapio.File, off int64, b []byte) error {
			return inRegion(f, off, b, func(*mmapio.Region) error { aSyncLater(f); return nil })
		}},
	"close": {policy: mmapio.SyncPolicy{Interval: time.Hour}, write: func(f *mmapio.File, off int64, b []byte) error {
		g, err := mmapio.OpenFile(f.Name(), &mmapio.Options{Mode: mmapio.ReadWrite, Sync: mmapio.SyncPolicy{Bytes: 1 << 40}})
		if err != nil {
			return err
		}
		if err := writeAt(g, off, b); err != nil {
			return err
		}
		return g.Close()
	}},
}

// durableWriter is the program that the power fails: a goroutine for each path
// writes one record after the other and says so when it is durable.
var durableWriter = prove.Register("durable writer", func(args []string) int {
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	var wg sync.WaitGroup
	for _, name := range args[1:] {
		wg.Go(func() {
			p := durablePaths[name]
			size := p.size
			if size == 0 {
				size = (durableRecords + 1) * recordSize
			}
			f, err := mmapio.OpenFile(filepath.Join(args[0], name), &mmapio.Options{
				Mode: mmapio.ReadWrite, Create: true, MinSize: size, Sync: p.policy,
			})
			if err == nil {
				err = f.Sync() // Close is not meant to be reached
			}
			for n := 0; err == nil && n < durableRecords; n++ {
				err = p.write(f, int64(n*recordSize), durableRecord(name, n))
				if err == nil && (p.batch == 0 || n%p.batch == p.batch-1) {
					mu.Lock()
					fmt.Fprintln(out, name, n)
					_ = out.Flush()
					mu.Unlock()
				}
			}
			if err != nil {
				mu.Lock()
				fmt.Fprintln(os.Stderr, name, err) // without power nothing works
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return 0
})

// powerCuts starts a writer again and again, cuts the power at a random moment,
// and looks for every record that was said to be durable.
func powerCuts(t *testing.T, cuts int, names ...string) {
	t.Helper()
	disk := slowfs.Start(t, slowfs.Options{NoFlush: true})
	total := 0
	for cut := range cuts {
		dir := "cut" + strconv.Itoa(cut)
		if err := os.Mkdir(disk.Path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		d, err := os.Open(disk.Dir())
		if err == nil {
			err = d.Sync()
			d.Close()
		}
		noError(t, "sync the directory above", err)

		p := durableWriter.Start(t, prove.Args(append([]string{disk.Path(dir)}, names...)...))
		acked := map[string]int{}
		said := func(line string) {
			var name string
			var n int
			if _, err := fmt.Sscan(line, &name, &n); err == nil {
				acked[name] = n + 1
			}
		}
		// At some moment after each path has promised a record, at least.
		for wait := rand.IntN(40); len(acked) < len(names) || wait > 0; wait-- {
			line, ok := p.Line()
			if !ok {
				t.Fatalf("the writer has ended: %v", p.Wait())
			}
			said(line)
		}
		time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
		disk.Cut()
		p.Kill()
		for {
			line, ok := p.Line()
			if !ok {
				break
			}
			said(line)
		}
		for _, name := range names {
			total += acked[name]
			survived(t, disk, dir, name, acked[name])
		}
		disk.PowerOn()
		if t.Failed() {
			t.Fatalf("cut %d; the writer said:\n%s", cut, lastLines(p.Wait().Output, 20))
		}
	}
	t.Logf("%d cuts, %d records", cuts, total)
}

// survived looks for the first n records of a path.
func survived(t *testing.T, disk *slowfs.FS, dir, name string, n int) {
	t.Helper()
	got, found := disk.Durable(dir + "/" + name)
	if !found {
		t.Errorf("%s: there is no such file", name)
		return
	}
	if len(got) < n*recordSize {
		t.Errorf("%s: %d bytes are left, %d records were promised", name, len(got), n)
		return
	}
	for i := range n {
		if !bytes.Equal(got[i*recordSize:(i+1)*recordSize], durableRecord(name, i)) {
			t.Errorf("%s: record %d of %d is not there", name, i, n)
			return
		}
	}
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// TestDurable: what a call has promised to be on the disk is there after a
// power cut, whatever way it was written.
func TestDurable(t *testing.T) {
	prove.LeakCheck(t)
	prove.NeedE2E(t, prove.FUSE, prove.Root)
	for name := range durablePaths {
		t.Run(name, func(t *testing.T) { powerCuts(t, 20, name) })
	}
}

// TestDurableAll is that with all writers at once.
func TestDurableAll(t *testing.T) {
	prove.LeakCheck(t)
	prove.NeedE2E(t, prove.FUSE, prove.Root)
	var names []string
	for name := range durablePaths {
		names = append(names, name)
	}
	powerCuts(t, 30, names...)
}

// TestDurableHeld: an interval's sync is made for those who store through a
// Region, though nobody has counted what they store.
func TestDurableHeld(t *testing.T) {
	prove.LeakCheck(t)
	prove.NeedE2E(t, prove.FUSE, prove.Root)
	powerCuts(t, 5, "held")
}

// replacer replaces a file again and again, as the example does.
var replacer = prove.Register("replacer", func(args []string) int {
	for n := 1; ; n++ {
		b := newContent(n)
		if err := replace(args[0], int64(len(b)), func(p []byte) error { copy(p, b); return nil }); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(n)
	}
})

func newContent(n int) []byte { return bytes.Repeat([]byte{byte(n)}, n*1000) }

// TestDurableNewFile: a file that is replaced is always whole, and the last one
// that replace has returned for, or one that came after.
func TestDurableNewFile(t *testing.T) {
	prove.LeakCheck(t)
	prove.NeedE2E(t, prove.FUSE, prove.Root)
	for range 20 {
		disk := slowfs.Start(t, slowfs.Options{NoFlush: true})
		disk.AddData("f", newContent(0))
		p := replacer.Start(t, prove.Args(disk.Path("f")))
		last := 0
		for range 1 + rand.IntN(10) {
			if _, ok := p.Line(); !ok {
				t.Fatal(p.Wait())
			}
			last++
		}
		time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
		disk.Cut()
		p.Kill()
		for {
			if _, ok := p.Line(); !ok {
				break
			}
			last++
		}
		got, found := disk.Durable("f")
		if n := len(got) / 1000; !found || n < last || !bytes.Equal(got, newContent(n)) {
			t.Fatalf("%d bytes are left, found %v; version %d was promised", len(got), found, last)
		}
		disk.Stop()
	}
}
