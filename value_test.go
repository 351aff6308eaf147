package mmapio_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// A kind is a type, and what may be done with it.
type kind struct {
	name                           string
	size                           uintptr
	load, store, valueAt, valuesAt func(f *mmapio.File, off int64) error
}

func kindFor[T any]() kind {
	return kind{
		name: reflect.TypeFor[T]().String(), size: reflect.TypeFor[T]().Size(),
		load:  func(f *mmapio.File, off int64) error { _, err := mmapio.LoadAt[T](f, off); return err },
		store: func(f *mmapio.File, off int64) error { return mmapio.StoreAt(f, off, *new(T)) },
		valueAt: func(f *mmapio.File, off int64) error {
			v, err := mmapio.ValueAt[T](f, off)
			if err == nil {
				if at := uintptr(unsafe.Pointer(v.Ptr())); at%unsafe.Alignof(*v.Ptr()) != 0 {
					err = fmt.Errorf("lies at %x", at)
				}
				v.Release()
			}
			return err
		},
		valuesAt: func(f *mmapio.File, off int64) error {
			v, err := mmapio.ValuesAt[T](f, off, 3)
			if err == nil {
				if len(v.Slice()) != 3 || cap(v.Slice()) != 3 {
					err = fmt.Errorf("%d values, capacity %d", len(v.Slice()), cap(v.Slice()))
				}
				v.Release()
			}
			return err
		},
	}
}

func (k kind) ops() map[string]func(f *mmapio.File, off int64) error {
	return map[string]func(*mmapio.File, int64) error{
		"loadat": k.load, "storeat": k.store, "valueat": k.valueAt, "valuesat": k.valuesAt,
	}
}

type (
	named  uint32
	pair   struct{ A, B uint32 }
	record struct {
		ID    uint64
		Pos   [3]float32
		Flags uint8
		_     [3]uint8
		Next  pair
		Count atomic.Int64
		Gap   struct{}
	}
	withBool struct {
		A uint64
		B [2]bool
	}
	withPointer struct {
		A uint64
		P *int
	}
	withLock struct {
		A  uint64
		Mu sync.Mutex
	}
	generic[T any] struct{ V T }
)

var allowedKinds = []kind{
	kindFor[int8](), kindFor[int16](), kindFor[int32](), kindFor[int64](),
	kindFor[uint8](), kindFor[uint16](), kindFor[uint32](), kindFor[uint64](),
	kindFor[float32](), kindFor[float64](), kindFor[complex64](), kindFor[complex128](),
	kindFor[named](), kindFor[pair](), kindFor[record](), kindFor[[5]byte](), kindFor[[2][3]pair](),
	kindFor[generic[uint16]](), kindFor[time.Duration](),
	kindFor[atomic.Int32](), kindFor[atomic.Int64](), kindFor[atomic.Uint32](), kindFor[atomic.Uint64](),
	kindFor[[4]atomic.Uint64](), kindFor[atomic.Bool](), // which holds a uint32
}

var refusedKinds = []kind{
	kindFor[bool](), kindFor[int](), kindFor[uint](), kindFor[uintptr](),
	kindFor[*int](), kindFor[unsafe.Pointer](), kindFor[string](), kindFor[[]byte](), kindFor[map[int]int](),
	kindFor[chan int](), kindFor[func()](), kindFor[any](), kindFor[error](),
	kindFor[withBool](), kindFor[withPointer](), kindFor[withLock](), kindFor[generic[int]](), kindFor[generic[string]](),
	kindFor[[3]int](), kindFor[[0]*int](), kindFor[time.Time](),
	kindFor[struct{}](), kindFor[[0]uint64](), kindFor[[5]struct{}](), kindFor[generic[[0]byte]](),
	kindFor[sync.Mutex](), kindFor[sync.RWMutex](), kindFor[sync.Once](), kindFor[sync.WaitGroup](), kindFor[sync.Map](),
	kindFor[atomic.Uintptr](), kindFor[atomic.Pointer[int]](), kindFor[atomic.Value](),
}

// TestTypes says which types may lie in a file.
func TestTypes(t *testing.T) {
	needMaps(t)
	f, err := mmapio.Create(tempDir(t)+"/file", 2*pageSize)
	f = opened(t)(f, err)
	for _, k := range allowedKinds {
		for op, do := range k.ops() {
			if err := do(f, 64); err != nil {
				t.Errorf("%s of %s: %v", op, k.name, err)
			}
		}
	}
	for _, k := range refusedKinds {
		for op, do := range k.ops() {
			// Twice: the second answer is remembered.
			for range 2 {
				wantPathError(t, do(f, 64), op, f.Name(), fs.ErrInvalid)
			}
		}
	}
}

// TestValueOrder checks that of several things that are wrong the first in the
// order of the contract is told: closed, mode, type, alignment, bounds.
func TestValueOrder(t *testing.T) {
	needMaps(t)
	path, _ := patternFile(t, 2*pageSize)
	refused, words := kindFor[withPointer](), kindFor[uint64]()
	align := int(unsafe.Alignof(uint64(0)))
	for _, offset := range []int64{0, 1, pageSize, pageSize + 3} {
		f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite, Offset: offset})
		ro := mustOpen(t, path, &mmapio.Options{Offset: offset})
		size := f.Size()
		// No type but bytes suits the one, every type the other.
		odd := int64(1)<<40 + 3 - offset
		even := int64(1)<<40 - offset
		for op, do := range words.ops() {
			for _, off := range []int64{odd, -odd, 3 - offset} {
				ae := (*mmapio.AlignError)(nil)
				err := do(f, off)
				if !errors.As(err, &ae) || *ae != (mmapio.AlignError{Op: op, Path: path, Off: off, Align: align}) || !errors.Is(err, fs.ErrInvalid) {
					t.Errorf("%s at %d: %+v", op, off, err)
				}
			}
			n := int64(8)
			if op == "valuesat" {
				n = 24
			}
			for _, off := range []int64{even, -even - 2*offset, -offset} {
				if off >= 0 && off+n <= size {
					continue
				}
				wantRangeError(t, do(f, off), mmapio.RangeError{Op: op, Path: path, Off: off, Len: n, Size: size})
			}
		}
		for op, do := range refused.ops() {
			wantPathError(t, do(f, odd), op, path, fs.ErrInvalid)
		}
		wantPathError(t, refused.store(ro, odd), "storeat", path, mmapio.ErrReadOnly)
		wantPathError(t, words.store(ro, odd), "storeat", path, mmapio.ErrReadOnly)
		mustClose(t, f)
		mustClose(t, ro)
		for op, do := range refused.ops() {
			wantPathError(t, do(f, odd), op, path, fs.ErrClosed)
			wantPathError(t, do(ro, odd), op, path, fs.ErrClosed)
		}
	}
}

// TestValuesBounds is about how many Values fit.
func TestValuesBounds(t *testing.T) {
	path, content := patternFile(t, pageSize)
	f := mustOpen(t, path, nil)
	v, err := mmapio.ValuesAt[uint64](f, 0, int(pageSize/8))
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range v.Slice() {
		if want := binary.NativeEndian.Uint64(content[8*i:]); got != want {
			t.Fatalf("value %d is %x, want %x", i, got, want)
		}
	}
	v.Release()
	for _, n := range []int{-1, math.MinInt, int(pageSize/8) + 1, math.MaxInt/8 + 1, math.MaxInt / 8, math.MaxInt, math.MinInt/8 + 1} {
		re := (*mmapio.RangeError)(nil)
		if _, err := mmapio.ValuesAt[uint64](f, 0, n); !errors.As(err, &re) || re.Op != "valuesat" || re.Size != pageSize {
			t.Errorf("%d values: %+v", n, err)
		}
	}
	for _, off := range []int64{0, 8, pageSize} {
		v, err := mmapio.ValuesAt[uint64](f, off, 0)
		if err != nil {
			t.Fatal(err)
		}
		if s := v.Slice(); s == nil || len(s) != 0 {
			t.Errorf("no values at %d: %v", off, s)
		}
		v.Release()
		if v.Slice() != nil {
			t.Error("not nil after Release")
		}
	}
	if _, err := mmapio.ValuesAt[uint64](f, pageSize+8, 0); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("no values beyond the end: %v", err)
	}
}

// TestLoadStore compares LoadAt and StoreAt with what is in the file, at every
// kind of place: atomic, not, and over the edge of a page.
func TestLoadStore(t *testing.T) {
	needMaps(t)
	path, content := patternFile(t, 3*pageSize)
	anon := opened(t)(mmapio.Anonymous(3*pageSize, nil))
	if _, err := anon.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	type triple [3]uint16
	for _, f := range []*mmapio.File{mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite}), anon} {
		for _, off := range []int64{0, 2, 4, 8, pageSize - 4, pageSize - 2, 3*pageSize - 6} {
			got, err := mmapio.LoadAt[triple](f, off)
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range got {
				if want := binary.NativeEndian.Uint16(content[off+int64(2*i):]); v != want {
					t.Errorf("at %d: %x, want %x", off, v, want)
				}
			}
			if err := mmapio.StoreAt(f, off, got); err != nil {
				t.Error(err)
			}
			b, err := mmapio.LoadAt[[8]byte](f, min(off, 3*pageSize-8))
			if err != nil || [8]byte(content[min(off, 3*pageSize-8):]) != b {
				t.Errorf("8 bytes at %d: %x, %v", off, b, err)
			}
			if err := mmapio.StoreAt(f, min(off, 3*pageSize-8), b); err != nil {
				t.Error(err)
			}
		}
		same(t, "after storing what was there", contentOf(t, f), content)
	}
}

// TestNoTearing has writers store values whose halves belong together, and
// readers check that they always get such.
func TestNoTearing(t *testing.T) {
	needMaps(t)
	f, err := mmapio.Create(tempDir(t)+"/file", 4*pageSize)
	for _, f := range []*mmapio.File{opened(t)(f, err), opened(t)(mmapio.Anonymous(4*pageSize, nil))} {
		tearStorm(t, f, 8, func(v uint32) uint64 { return uint64(v)<<32 | uint64(v) },
			func(v uint64) bool { return uint32(v) == uint32(v>>32) })
		tearStorm(t, f, pageSize+8, func(v uint32) pair { return pair{v, v} }, func(v pair) bool { return v.A == v.B })
		tearStorm(t, f, 2*pageSize-8, func(v uint32) [8]uint8 {
			b := [8]uint8{}
			for i := range b {
				b[i] = uint8(v)
			}
			return b
		}, func(v [8]uint8) bool { return v == [8]uint8{v[0], v[0], v[0], v[0], v[0], v[0], v[0], v[0]} })
		tearStorm(t, f, 20, func(v uint32) [2]uint16 { return [2]uint16{uint16(v), uint16(v)} },
			func(v [2]uint16) bool { return v[0] == v[1] })
	}
}

func tearStorm[T any](t *testing.T, f *mmapio.File, off int64, of func(uint32) T, whole func(T) bool) {
	t.Helper()
	var stop atomic.Bool
	var all sync.WaitGroup
	for i := range uint32(2) {
		all.Go(func() {
			for v := i; !stop.Load(); v += 0x01010101 {
				if err := mmapio.StoreAt(f, off, of(v)); err != nil {
					t.Error(err)
					return
				}
			}
		})
		all.Go(func() {
			for !stop.Load() {
				if v, err := mmapio.LoadAt[T](f, off); err != nil || !whole(v) {
					t.Errorf("%T at %d: %v, %v", v, off, v, err)
					return
				}
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	stop.Store(true)
	all.Wait()
}

const counterOff, countTo = 4096 - 8, 20000

// counter counts in a file, from several goroutines.
var counter = prove.Register("counter", func(args []string) int {
	f := mustOpen(prove.T(), args[0], &mmapio.Options{Mode: mmapio.ReadWrite})
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		prove.T().Fatal(err)
	}
	count(prove.T(), f)
	return 0
})

func count(t testing.TB, f *mmapio.File) {
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			v, err := mmapio.ValueAt[atomic.Uint64](f, counterOff)
			if err != nil {
				t.Error(err)
				return
			}
			defer v.Release()
			for range countTo {
				v.Ptr().Add(1)
			}
		})
	}
	all.Wait()
}

// TestCounter counts in several goroutines of several processes.
func TestCounter(t *testing.T) {
	prove.Need(t, prove.Children)
	path, _ := patternFile(t, 8192)
	f := mustOpen(t, path, &mmapio.Options{Mode: mmapio.ReadWrite})
	if err := mmapio.StoreAt[uint64](f, counterOff, 7); err != nil {
		t.Fatal(err)
	}
	var children []*prove.Process
	for range 3 {
		p := counter.Start(t, prove.Args(path))
		p.Expect("ready")
		children = append(children, p)
	}
	for _, p := range children {
		p.Send("go")
	}
	count(t, f)
	for _, p := range children {
		if res := p.Wait(); res.Code != 0 {
			t.Error(res)
		}
	}
	want := uint64(7 + 4*3*countTo)
	if got, err := mmapio.LoadAt[uint64](f, counterOff); got != want || err != nil {
		t.Errorf("counted to %d, %v, want %d", got, err, want)
	}
	if got := binary.NativeEndian.Uint64(onDisk(t, path)[counterOff:]); got != want {
		t.Errorf("the file says %d, want %d", got, want)
	}
}

// TestValueAllocs checks that the hot calls allocate nothing.
func TestValueAllocs(t *testing.T) {
	needMaps(t)
	f := mustOpen(t, func() string { p, _ := patternFile(t, pageSize); return p }(), &mmapio.Options{Mode: mmapio.ReadWrite})
	for what, do := range map[string]func(){
		"LoadAt[uint64]":  func() { _, _ = mmapio.LoadAt[uint64](f, 8) },
		"LoadAt[record]":  func() { _, _ = mmapio.LoadAt[[100]uint16](f, 8) },
		"StoreAt[uint64]": func() { _ = mmapio.StoreAt(f, 8, uint64(1)) },
		"StoreAt[record]": func() { _ = mmapio.StoreAt(f, 8, [100]uint16{}) },
	} {
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Error(what + " allocates " + strconv.FormatFloat(n, 'g', -1, 64) + " times")
		}
	}
}
