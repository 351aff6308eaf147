//go:build !(386 || arm || mips || mipsle)

package slowfs

import (
	"maps"
	"math/bits"
)

// blockSize is the grain of the images, whatever the machine's page size is.
const blockSize = 4096

// block is never changed once it is in an image: so images, and snapshots on their way to becoming durable, share it.
type block [blockSize]byte

var zeroBlock block

// image is what a file holds: blocks that were written, else its fill up to fillEnd, else zeros.
type image struct {
	size    int64
	fill    Fill
	fillEnd int64
	blocks  map[int64]*block
}

func (im *image) clone() image {
	c := *im
	c.blocks = maps.Clone(im.blocks)
	return c
}

// readAt does not look at the size: what lies beyond it is zero.
func (im *image) readAt(p []byte, off int64) {
	for len(p) > 0 {
		n := min(int64(len(p)), blockSize-off%blockSize)
		if b := im.blocks[off/blockSize]; b != nil {
			copy(p[:n], b[off%blockSize:])
		} else {
			filled := min(max(im.fillEnd-off, 0), n)
			im.fill.Bytes(p[:filled], off)
			clear(p[filled:n])
		}
		p, off = p[n:], off+n
	}
}

// bitmap says which blocks take up space. In chunks, since a file may be 1 TiB of nothing.
type bitmap map[int64]*[64]uint64

const chunkBlocks = 64 * 64

func (b bitmap) walk(from, to int64, add bool, fn func(w *uint64, mask uint64)) {
	for i := from; i < to; {
		chunk := b[i/chunkBlocks]
		if chunk == nil {
			if !add {
				i = (i/chunkBlocks + 1) * chunkBlocks
				continue
			}
			chunk = new([64]uint64)
			b[i/chunkBlocks] = chunk
		}
		n := min(64-i%64, to-i)
		mask := ^uint64(0) >> (64 - n) << (i % 64)
		fn(&chunk[i%chunkBlocks/64], mask)
		i += n
	}
}

func ones(w uint64) int64 { return int64(bits.OnesCount64(w)) }

func (b bitmap) count() (n int64) {
	for _, chunk := range b {
		for _, w := range chunk {
			n += ones(w)
		}
	}
	return n
}

func (b bitmap) clone() bitmap {
	c := make(bitmap, len(b))
	for k, v := range b {
		w := *v
		c[k] = &w
	}
	return c
}

// data is the contents of a regular file: the live image and the durable one.
type data struct {
	live, dur image
	dirty     map[int64]struct{} // blocks in which live may differ from dur and that an fsync has to bring over

	space       bitmap // occupied or reserved by live
	used        int64  // bits set in it
	durSpace    bitmap
	spaceChange bool // since durSpace was taken

	taken, kept, keptSpace uint64 // snapshots: the last that was taken, the latest that became durable
}

func newData(size int64, fill Fill) *data {
	d := &data{dirty: map[int64]struct{}{}, space: bitmap{}, durSpace: bitmap{}}
	d.live = image{size: size, fill: fill, blocks: map[int64]*block{}}
	if fill != Zeros {
		d.live.fillEnd = size
		d.occupy(0, blocks(size))
	}
	d.dur = d.live.clone()
	d.durSpace = d.space.clone()
	d.spaceChange = false
	return d
}

func blocks(n int64) int64 { return (n + blockSize - 1) / blockSize }

// lacking is how many blocks of [from, to) would be new.
func (d *data) lacking(from, to int64) int64 {
	n := to - from
	d.space.walk(from, to, false, func(w *uint64, mask uint64) { n -= ones(*w & mask) })
	return n
}

func (d *data) occupy(from, to int64) {
	d.space.walk(from, to, true, func(w *uint64, mask uint64) {
		d.used += ones(mask &^ *w)
		*w |= mask
	})
	d.spaceChange = true
}

func (d *data) free(from, to int64) {
	d.space.walk(from, to, false, func(w *uint64, mask uint64) {
		d.used -= ones(mask & *w)
		*w &^= mask
	})
	d.spaceChange = true
}

func (d *data) put(i int64, b *block) {
	if b == nil {
		delete(d.live.blocks, i)
	} else {
		d.live.blocks[i] = b
	}
	d.dirty[i] = struct{}{}
}

func (d *data) write(p []byte, off int64) {
	d.occupy(off/blockSize, blocks(off+int64(len(p))))
	d.live.size = max(d.live.size, off+int64(len(p)))
	for len(p) > 0 {
		i, at := off/blockSize, off%blockSize
		n := min(int64(len(p)), blockSize-at)
		b := new(block)
		if n < blockSize {
			d.live.readAt(b[:], i*blockSize)
		}
		copy(b[at:], p[:n])
		d.put(i, b)
		p, off = p[n:], off+n
	}
}

func (d *data) truncate(size int64) {
	if size < d.live.size {
		last := blocks(size)
		d.live.fillEnd = min(d.live.fillEnd, size)
		d.zeroPart(size, last*blockSize)
		for i := range d.live.blocks {
			if i >= last {
				d.put(i, nil)
			}
		}
		for k := range d.space {
			d.free(max(k*chunkBlocks, last), (k+1)*chunkBlocks)
		}
	}
	d.live.size = size
}

// zero makes [from, to) read as zeros. It keeps the space: to punch a hole, free that too.
func (d *data) zero(from, to int64) {
	if end := blocks(from) * blockSize; from < end { // the block that from lies inside of
		d.zeroPart(from, min(end, to))
		from = end
	}
	if start := to / blockSize * blockSize; start < to && start >= from {
		d.zeroPart(start, to)
		to = start
	}
	if from >= to {
		return
	}
	for i := range d.live.blocks {
		if i >= from/blockSize && i < to/blockSize {
			d.put(i, nil)
		}
	}
	if to >= d.live.fillEnd { // the usual case, a truncation: nothing of the fill has to be covered
		d.live.fillEnd = min(d.live.fillEnd, from)
		return
	}
	for i := from / blockSize; i < to/blockSize; i++ {
		d.put(i, &zeroBlock)
	}
}

func (d *data) zeroPart(from, to int64) {
	i := from / blockSize
	if from == to || d.live.blocks[i] == nil && from >= d.live.fillEnd {
		return
	}
	b := new(block)
	d.live.readAt(b[:], i*blockSize)
	clear(b[from-i*blockSize : to-i*blockSize])
	d.put(i, b)
}

// snapshot is what an FSYNC found when it came: it becomes durable when the FSYNC is answered, but what was written
// in between does not.
type snapshot struct {
	n             uint64
	size, fillEnd int64
	blocks        map[int64]*block
	space         bitmap
}

func (d *data) snapshot() *snapshot {
	d.taken++
	s := &snapshot{n: d.taken, size: d.live.size, fillEnd: d.live.fillEnd, blocks: make(map[int64]*block, len(d.dirty))}
	for i := range d.dirty {
		s.blocks[i] = d.live.blocks[i]
	}
	if d.spaceChange {
		s.space = d.space.clone()
		d.spaceChange = false // if this FSYNC fails the reservation is not durable, as little as the data
	}
	return s
}

// keep makes a snapshot durable. One that comes late holds no block that a later one did not have too.
func (d *data) keep(s *snapshot) {
	for i, b := range s.blocks {
		d.clean(i, b)
	}
	if s.space != nil && s.n > d.keptSpace {
		d.durSpace, d.keptSpace = s.space, s.n
	}
	if s.n < d.kept {
		return
	}
	d.kept = s.n
	for i, b := range s.blocks {
		if b == nil {
			delete(d.dur.blocks, i)
		} else {
			d.dur.blocks[i] = b
		}
	}
	d.dur.size, d.dur.fillEnd = s.size, s.fillEnd
}

// drop is keep for an FSYNC that failed: what was written counts as clean although it is not kept.
// What was cut off does not come back by that.
func (d *data) drop(s *snapshot) {
	for i, b := range s.blocks {
		if b != nil {
			d.clean(i, b)
		}
	}
}

func (d *data) clean(i int64, b *block) {
	if d.live.blocks[i] == b {
		delete(d.dirty, i)
	}
}

// restart makes the durable image the live one.
func (d *data) restart() {
	d.live = d.dur.clone()
	clear(d.dirty)
	d.space = d.durSpace.clone()
	d.used = d.space.count()
	d.spaceChange = false
	// Snapshots of before are void: the FSYNCs that they belong to were told so.
}
