package mmapio_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// diskSizes are what file systems take at least.
var diskSizes = map[string]int64{"ext4": 64 << 20, "xfs": 320 << 20}

// TestDurableOnDisk is the power cut on real file systems: the disk is copied at
// the moment that a call returns, and the copy mounted elsewhere.
func TestDurableOnDisk(t *testing.T) {
	prove.LeakCheck(t)
	prove.NeedE2E(t, prove.LoopDevice, prove.Ext4, prove.XFS)
	for fs, size := range diskSizes {
		t.Run(fs, func(t *testing.T) {
			disk := prove.LoopFS(t, fs, size)
			f := opened(t)(mmapio.Create(filepath.Join(disk.Dir, "f"), 3*recordSize))
			n := 0
			for _, step := range []struct {
				name string
				do   func() error
			}{
				{"Create", func() error { return mustSync(f, writeAt(f, 0, durableRecord(fs, 0))) }},
				{"WriteAt", func() error { return mustSync(f, writeAt(f, recordSize, durableRecord(fs, 1))) }},
				{"SyncRange", func() error {
					if err := writeAt(f, 2*recordSize, durableRecord(fs, 2)); err != nil {
						return err
					}
					return f.SyncRange(2*recordSize, recordSize)
				}},
				{"Resize", func() error {
					if err := f.Resize(1<<20 + recordSize); err != nil {
						return err
					}
					return mustSync(f, writeAt(f, 3*recordSize, durableRecord(fs, 3)))
				}},
				{"Region", func() error {
					return inRegion(f, 4*recordSize, durableRecord(fs, 4), (*mmapio.Region).Sync)
				}},
			} {
				t.Run(step.name, func(t *testing.T) {
					n++
					if err := step.do(); err != nil {
						t.Fatal(err)
					}
					copied := prove.MountImage(t, fs, disk.Image)
					got, err := os.ReadFile(filepath.Join(copied.Dir, "f"))
					if err != nil {
						t.Fatal(err)
					}
					if int64(len(got)) != f.Size() {
						t.Errorf("%d bytes are left of %d", len(got), f.Size())
					}
					for i := range min(n, len(got)/recordSize) {
						if string(got[i*recordSize:(i+1)*recordSize]) != string(durableRecord(fs, i)) {
							t.Errorf("record %d of %d is not there", i, n)
						}
					}
				})
			}
			mustClose(t, f)
		})
	}
}

// killedWriter writes records and never syncs.
var killedWriter = prove.Register("killed writer", func(args []string) int {
	f, err := mmapio.Create(args[0], durableRecords*recordSize)
	for n := 0; err == nil && n < durableRecords; n++ {
		if err = writeAt(f, int64(n*recordSize), durableRecord("killed", n)); err == nil {
			fmt.Println(n)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	select {}
})

// TestKilled: what WriteAt has written survives the end of the process, at any
// moment, without a sync.
func TestKilled(t *testing.T) {
	prove.LeakCheck(t)
	prove.NeedE2E(t, prove.Ext4, prove.TmpfsMount)
	for name, dir := range map[string]string{
		"ext4": prove.LoopFS(t, "ext4", 64<<20).Dir, "tmpfs": prove.SmallTmpfs(t, 64<<20),
	} {
		total := 0
		for i := range 25 {
			path := filepath.Join(dir, strconv.Itoa(i))
			p := killedWriter.Start(t, prove.Args(path))
			n := 0
			heard := func() bool {
				line, ok := p.Line()
				if ok {
					n++
					if line != strconv.Itoa(n-1) {
						t.Fatalf("the writer said %q after %d records", line, n-1)
					}
				}
				return ok
			}
			for range 1 + rand.IntN(100) {
				if !heard() {
					t.Fatal(p.Wait())
				}
			}
			time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
			p.Kill()
			for heard() {
			}
			got := onDisk(t, path)
			for k := range n {
				if string(got[k*recordSize:(k+1)*recordSize]) != string(durableRecord("killed", k)) {
					t.Fatalf("%s: record %d of %d is not there", name, k, n)
				}
			}
			total += n
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%s: 25 kills, %d records", name, total)
	}
}
