//go:build !(386 || arm || mips || mipsle)

package slowfs

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestImagesAgainstSlices compares both images with plain slices while a file is changed at random.
func TestImagesAgainstSlices(t *testing.T) {
	const limit = 5 * blockSize
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		fill := []Fill{Zeros, Offsets}[seed%2]
		size := rnd.Int64N(limit)
		d := newData(size, fill)
		live := make([]byte, size)
		fill.Bytes(live, 0)
		dur := bytes.Clone(live)
		var snap *snapshot // an fsync that is on its way, and what it found
		var found []byte
		for step := range 60 {
			off := rnd.Int64N(limit)
			n := rnd.Int64N(2 * blockSize)
			switch rnd.IntN(7) {
			case 0, 1:
				p := make([]byte, n+1)
				for i := range p {
					p[i] = byte(rnd.Uint32())
				}
				d.write(p, off)
				live = grown(live, off+n+1)
				copy(live[off:], p)
			case 2:
				d.truncate(off)
				live = grown(live[:min(off, int64(len(live)))], off)
			case 3:
				d.zero(off, off+n)
				d.free(blocks(off), (off+n)/blockSize)
				clear(live[min(off, int64(len(live))):min(off+n, int64(len(live)))])
			case 4:
				d.keep(d.snapshot())
				dur, snap = bytes.Clone(live), nil
			case 5:
				snap, found = d.snapshot(), bytes.Clone(live)
			case 6:
				if snap != nil {
					d.keep(snap)
					dur, snap = found, nil
				}
			}
			same(t, "live", seed, step, &d.live, live)
			same(t, "durable", seed, step, &d.dur, dur)
			if d.used != d.space.count() {
				t.Fatalf("seed %d step %d: used %d, bits %d", seed, step, d.used, d.space.count())
			}
		}
		d.restart()
		same(t, "restarted", seed, -1, &d.live, dur)
	}
}

func grown(p []byte, n int64) []byte {
	if n <= int64(len(p)) {
		return p
	}
	return append(bytes.Clone(p), make([]byte, n-int64(len(p)))...)
}

func same(t *testing.T, what string, seed uint64, step int, im *image, want []byte) {
	t.Helper()
	if im.size != int64(len(want)) {
		t.Fatalf("%s, seed %d step %d: size %d, want %d", what, seed, step, im.size, len(want))
	}
	got := make([]byte, len(want))
	im.readAt(got, 0)
	if !bytes.Equal(got, want) {
		t.Fatalf("%s, seed %d step %d: other bytes", what, seed, step)
	}
}

func TestFailedFsyncKeepsNothingEver(t *testing.T) {
	d := newData(blockSize, Zeros)
	d.write([]byte("lost"), 0)
	d.drop(d.snapshot())
	d.keep(d.snapshot()) // the next fsync succeeds, but the kernel took the pages for clean
	if _, ok := d.dur.blocks[0]; ok {
		t.Fatal("a later fsync made durable what an earlier one had failed for")
	}
	d.write([]byte("kept"), 0)
	d.keep(d.snapshot())
	if b := d.dur.blocks[0]; b == nil || string(b[:4]) != "kept" {
		t.Fatal("written again, but not kept")
	}
}

func TestSpaceIsCountedOnce(t *testing.T) {
	d := newData(0, Zeros)
	d.occupy(0, 1<<20) // 4 GiB
	if got := d.lacking(10, 1<<20+5); got != 5 {
		t.Errorf("lacking %d, want 5", got)
	}
	d.write(make([]byte, 3*blockSize), 1<<30)
	if d.used != 1<<20 {
		t.Errorf("used %d, want %d", d.used, 1<<20)
	}
	d.truncate(0)
	d.free(0, 1<<20)
	if d.used != 0 {
		t.Errorf("used %d after all was freed", d.used)
	}
}
