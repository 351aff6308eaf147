package mmapio_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// modelT is what *testing.T and *rapid.T have in common.
type modelT interface {
	Helper()
	Fatalf(format string, args ...any)
}

// A fileModel is a File and what it must be: plain bytes. A program of bytes
// says what is done to both.
type fileModel struct {
	t       modelT
	path    string
	program []byte

	disk   []byte // the file
	f      *mmapio.File
	o      mmapio.Options
	shown  []byte // what the File shows
	locked []bool // a byte each
	canPin bool   // locking is not refused here
	log    []string
}

// modelMost bounds the file: a few pages, and a bit.
const modelMost = 6

// next takes a number from the program.
func (m *fileModel) next(n int64) int64 {
	var v int64
	for n > 1<<8 && len(m.program) > 1 || v == 0 && len(m.program) > 0 {
		v = v<<8 | int64(m.program[0]) + 1
		m.program = m.program[1:]
		if v > n {
			break
		}
	}
	if n <= 0 {
		return 0
	}
	return v % n
}

// number picks a place: often at, or next to, the edge of a page or the end.
func (m *fileModel) number(end int64) int64 {
	switch m.next(4) {
	case 0:
		return max(0, m.next(end/pageSize+2)*pageSize+m.next(3)-1)
	case 1:
		return max(0, end+m.next(3)-1)
	}
	return m.next(end + 2)
}

func (m *fileModel) say(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

func (m *fileModel) failf(format string, args ...any) {
	m.t.Helper()
	log := m.log
	if len(log) > 40 {
		log = log[len(log)-40:]
	}
	m.t.Fatalf("%s\nof %d bytes, %+v, after\n%s", fmt.Sprintf(format, args...), len(m.shown), m.o, fmt.Sprintln(log))
}

// open closes what is open and opens anew, some way.
func (m *fileModel) open() {
	if m.f != nil {
		if err := m.f.Close(); err != nil {
			m.failf("Close: %v", err)
		}
	}
	m.o = mmapio.Options{Mode: allModes[m.next(3)], Offset: m.number(int64(len(m.disk)))}
	m.o.Offset = min(m.o.Offset, int64(len(m.disk)))
	if reserves {
		m.o.Reserve = m.next(3) * 3 * pageSize
	}
	if m.o.Mode == mmapio.ReadWrite {
		m.o.Sparse = m.next(2) == 0
	}
	m.say("open %v from %d reserve %d", m.o.Mode, m.o.Offset, m.o.Reserve)
	f, err := mmapio.OpenFile(m.path, &m.o)
	if err != nil {
		m.failf("open: %v", err)
	}
	m.f, m.shown = f, bytes.Clone(m.disk[m.o.Offset:])
	m.locked = make([]bool, len(m.shown))
}

// sized brings the model to another size. The file has it already.
func (m *fileModel) sized(size int64) {
	was := int64(len(m.shown))
	shown := make([]byte, size)
	copy(shown, m.shown)
	if size > was {
		copy(shown[was:], m.disk[m.o.Offset+was:])
	}
	locked := make([]bool, size)
	copy(locked, m.locked)
	m.shown, m.locked = shown, locked
}

func (m *fileModel) resize() {
	size := m.number(min(int64(len(m.shown))+2*pageSize, modelMost*pageSize-m.o.Offset))
	m.say("resize %d", size)
	err := m.f.Resize(size)
	switch m.o.Mode {
	case mmapio.ReadOnly:
		if !errors.Is(err, mmapio.ErrReadOnly) {
			m.failf("Resize: %v", err)
		}
	case mmapio.CopyOnWrite:
		if !errors.Is(err, errors.ErrUnsupported) {
			m.failf("Resize: %v", err)
		}
	default:
		if err != nil {
			m.failf("Resize(%d): %v", size, err)
		}
		m.disk = resized(m.disk, m.o.Offset+size)
		m.sized(size)
	}
}

// other is another process: it appends, or cuts.
func (m *fileModel) other() {
	if !reserves {
		return
	}
	if m.next(2) == 0 && len(m.disk) < modelMost*int(pageSize) {
		add := pattern(m.next(2*pageSize), m.next(100))
		m.say("others append %d", len(add))
		if err := appendTo(m.path, add); err != nil {
			m.failf("%v", err)
		}
		m.disk = append(m.disk, add...)
	} else if cuts {
		n := min(m.number(int64(len(m.disk))), int64(len(m.disk)))
		n = endAt(n)
		m.say("others cut to %d", n)
		if err := os.Truncate(m.path, n); err != nil {
			m.failf("%v", err)
		}
		m.disk = m.disk[:n]
		m.cut()
	}
	size, err := m.f.Refresh()
	want := max(0, int64(len(m.disk))-m.o.Offset)
	if err != nil || size != want {
		m.failf("Refresh: %d, %v, want %d", size, err, want)
	}
	m.sized(want)
}

// cut reads a File whose file is shorter: what is there comes, to the end of
// its page, and the rest is a fault.
func (m *fileModel) cut() {
	ps := pageSize
	there := (int64(len(m.disk)) + ps - 1) / ps * ps
	there = min(max(there-m.o.Offset, 0), int64(len(m.shown)))
	buf := make([]byte, len(m.shown))
	n, err := m.f.ReadAt(buf, 0)
	var fe *mmapio.FaultError
	if there < int64(len(buf)) {
		if int64(n) != there || !errors.As(err, &fe) || !errors.Is(err, io.ErrUnexpectedEOF) || fe.Off != there {
			m.failf("ReadAt of a cut file: %d, %v, want %d", n, err, there)
		}
	} else if n != len(buf) || len(buf) > 0 && err != nil {
		m.failf("ReadAt of a cut file: %d, %v, want all", n, err)
	}
	whole := min(max(int64(len(m.disk))-m.o.Offset, 0), there)
	if i := differ(buf[:whole], m.shown[:whole]); i >= 0 {
		m.failf("ReadAt of a cut file differs at %d", i)
	}
}

func (m *fileModel) read() {
	size := int64(len(m.shown))
	off, n := m.number(size), m.next(2*pageSize)
	buf := make([]byte, n)
	got, err := m.f.ReadAt(buf, off)
	want := min(max(size-off, 0), n)
	switch {
	case int64(got) != want, off >= size && err != io.EOF, off < size && (got < len(buf)) != (err == io.EOF): //nolint:errorlint // itself
		m.failf("ReadAt(%d, %d): %d, %v", off, n, got, err)
	case err != nil && err != io.EOF: //nolint:errorlint // itself
		m.failf("ReadAt(%d, %d): %v", off, n, err)
	case want > 0 && differ(buf[:got], m.shown[off:off+want]) >= 0:
		m.failf("ReadAt(%d, %d) differs", off, n)
	}
}

// write stores by one of the ways there are.
func (m *fileModel) write() {
	size, how := int64(len(m.shown)), m.next(4)
	off, n := m.number(size), m.next(pageSize+9)
	if how == 3 {
		n = 8
		off -= (m.o.Offset + off) % 8
		if off < 0 {
			return
		}
	}
	b := pattern(n, m.next(1000))
	m.say("write %d: %d at %d", how, n, off)
	var err error
	switch how {
	case 0:
		_, err = m.f.WriteAt(b, off)
	case 1:
		err = m.f.Update(off, n, func(to []byte) error { copy(to, b); return nil })
	case 2:
		err = m.f.UpdateChunks(off, n, 1+m.next(99), func(c mmapio.Chunk) error { copy(c.Data, b[c.Off-off:]); return nil })
	case 3:
		err = mmapio.StoreAt(m.f, off, [8]byte(b))
	}
	var re *mmapio.RangeError
	switch {
	case m.o.Mode == mmapio.ReadOnly:
		if !errors.Is(err, mmapio.ErrReadOnly) {
			m.failf("a store: %v", err)
		}
	case off > size || n > size-off:
		if !errors.As(err, &re) {
			m.failf("a store of %d at %d: %v", n, off, err)
		}
	case err != nil:
		m.failf("a store of %d at %d: %v", n, off, err)
	default:
		copy(m.shown[off:], b)
		if m.o.Mode == mmapio.ReadWrite && n > 0 {
			copy(m.disk[m.o.Offset+off:], b)
		}
	}
}

func (m *fileModel) lock() {
	size := int64(len(m.shown))
	lo := min(m.number(size), size)
	hi := min(lo+m.next(2*pageSize), size)
	on := m.next(2) == 0
	m.say("lock %v [%d, %d)", on, lo, hi)
	if !m.canPin {
		return
	}
	err := m.f.Unlock(lo, hi-lo)
	if on {
		err = m.f.Lock(lo, hi-lo)
	}
	if err != nil {
		m.failf("lock [%d, %d): %v", lo, hi, err)
	}
	for i := lo; i < hi; i++ {
		m.locked[i] = on
	}
}

// check compares all that can be seen.
func (m *fileModel) check() {
	if m.f.Size() != int64(len(m.shown)) {
		m.failf("Size() = %d, want %d", m.f.Size(), len(m.shown))
	}
	if err := m.f.View(0, m.f.Size(), func(b []byte) error {
		if i := differ(b, m.shown); i >= 0 {
			m.failf("differs at byte %d", i)
		}
		return nil
	}); err != nil {
		m.failf("View: %v", err)
	}
	disk, err := os.ReadFile(m.path)
	if i := differ(disk, m.disk); i >= 0 || err != nil {
		m.failf("the file differs at byte %d (%d bytes, want %d): %v", i, len(disk), len(m.disk), err)
	}
	// A page is locked if any byte on it is.
	page := func(i int) int64 { return (int64(i) + m.o.Offset%pageSize) / pageSize }
	held := map[int64]bool{}
	for i, on := range m.locked {
		if on {
			held[page(i)] = true
		}
	}
	want := make([]bool, len(m.shown))
	for i := range want {
		want[i] = held[page(i)]
	}
	got := make([]bool, len(m.shown))
	for _, r := range m.f.LockedRanges() {
		for i := r.Off; i < r.Off+r.Len; i++ {
			got[i] = true
		}
	}
	for i := range want {
		if got[i] != want[i] {
			m.failf("byte %d is locked: %v, want %v", i, got[i], want[i])
		}
	}
}

// run does what a program says.
func (m *fileModel) run() {
	m.disk = pattern(m.next(4*pageSize), 1)
	if err := os.WriteFile(m.path, m.disk, 0o600); err != nil {
		m.failf("%v", err)
	}
	m.open()
	defer func() { m.f.Close() }()
	for steps := 0; len(m.program) > 0 && steps < 60; steps++ {
		switch m.next(12) {
		case 0, 1, 2:
			m.write()
		case 3, 4:
			m.resize()
		case 5, 6:
			m.lock()
		case 7, 8:
			m.other()
		case 9:
			m.open()
		default:
			m.read()
		}
		m.check()
	}
}

// modelDir has the files of all runs, one after the other.
func newModel(t modelT, dir string, program []byte, canPin bool) *fileModel {
	path := filepath.Join(dir, "file")
	_ = os.Remove(path)
	return &fileModel{t: t, path: path, program: program, canPin: canPin}
}

func canLock() bool {
	f, err := mmapio.Anonymous(16*pageSize, nil)
	if err != nil {
		return false
	}
	defer f.Close()
	return f.LockAll() == nil
}

// TestModel runs random programs.
func TestModel(t *testing.T) {
	needMaps(t)
	prove.LeakCheck(t)
	dir, can := tempDir(t), canLock()
	rapid.Check(t, func(t *rapid.T) {
		newModel(t, dir, rapid.SliceOfN(rapid.Byte(), 30, 300).Draw(t, "program"), can).run()
	})
}

// FuzzFile runs the programs that the fuzzer thinks of.
func FuzzFile(f *testing.F) {
	needMaps(f)
	dir, can := tempDir(f), canLock() // each worker is a process
	for seed := range int64(8) {
		f.Add(pattern(200, seed))
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		newModel(t, dir, program, can).run()
	})
}
