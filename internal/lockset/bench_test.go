package lockset

import (
	"math/rand/v2"
	"testing"
)

const benchPage = 4096

// heldSet returns a set that wants and holds [0, size).
func heldSet(size int64) *Set {
	s := New(benchPage)
	s.Assign(0, size, Now)
	s.Hold(0, size, Now)
	return s
}

// nested is a pin of a few bytes inside what is locked.
func nested(b testing.TB, s *Set, off int64) {
	if !s.Covered(off, off+64, Now) {
		b.Fatal("not covered")
	}
	s.Unpin(s.Pin(off, off+64, Now))
}

func BenchmarkNestedPin(b *testing.B) {
	s := heldSet(1 << 30)
	b.ReportAllocs()
	for b.Loop() {
		nested(b, s, 1<<20+100)
	}
}

// BenchmarkNestedPinAmong has other pins live, and pins in random places.
func BenchmarkNestedPinAmong(b *testing.B) {
	for _, bm := range []struct {
		name string
		n    int64
	}{{"100", 100}, {"10k", 10_000}, {"1M", 1_000_000}} {
		b.Run(bm.name, func(b *testing.B) {
			s := heldSet(bm.n * benchPage)
			for i := range bm.n {
				s.Pin(i*benchPage, i*benchPage+64, Now)
			}
			offs := make([]int64, 1<<14)
			for i := range offs {
				offs[i] = rand.Int64N(bm.n)*benchPage + 1024
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				nested(b, s, offs[i%len(offs)])
				i++
			}
		})
	}
}

// BenchmarkTouchingPins makes a million pins that touch, and releases them in
// random order; the time is for one pin.
func BenchmarkTouchingPins(b *testing.B) {
	const n = 1_000_000
	order := rand.Perm(n)
	pins := make([]Pin, n)
	b.ReportAllocs()
	for b.Loop() {
		s := New(benchPage)
		for i := range int64(n) {
			pins[i] = s.Pin(i*100, (i+1)*100, Now)
		}
		for _, i := range order {
			s.Unpin(pins[i])
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/pin")
}

// BenchmarkAlternatingLocks locks and holds every other page of 2 million, in
// random order, and lets them go; the time is for one page.
func BenchmarkAlternatingLocks(b *testing.B) {
	const n = 1_000_000
	order := rand.Perm(n)
	dst := make([]Run, 0, 8)
	b.ReportAllocs()
	for b.Loop() {
		s := New(benchPage)
		for _, i := range order {
			lo := int64(i) * 2 * benchPage
			hi := lo + benchPage
			s.Assign(lo, hi, Now)
			for _, r := range s.Missing(dst[:0], lo, hi, Now) {
				s.Hold(r.Lo, r.Hi, Now)
			}
		}
		if s.HeldRuns() != n {
			b.Fatalf("%d runs", s.HeldRuns())
		}
		for _, i := range order {
			lo := int64(i) * 2 * benchPage
			hi := lo + benchPage
			s.Assign(lo, hi, None)
			for _, r := range s.Excess(dst[:0], lo, hi) {
				s.Hold(r.Lo, r.Hi, None)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/page")
}

// BenchmarkLockUnlock is the whole of the books for one page locked and
// unlocked, system calls left out.
func BenchmarkLockUnlock(b *testing.B) {
	s := New(benchPage)
	dst := make([]Run, 0, 8)
	b.ReportAllocs()
	for b.Loop() {
		s.Assign(8192, 8292, Now)
		for _, r := range s.Missing(dst, 8192, 8292, Now) {
			s.Hold(r.Lo, r.Hi, Now)
		}
		s.Assign(8192, 8292, None)
		for _, r := range s.Excess(dst, 8192, 8292) {
			s.Hold(r.Lo, r.Hi, r.Level)
		}
	}
}

func BenchmarkRelock(b *testing.B) {
	s := heldSet(1 << 30)
	b.ReportAllocs()
	for b.Loop() {
		s.Assign(1<<20, 1<<21, Now)
		if !s.Covered(1<<20, 1<<21, Now) {
			b.Fatal("not covered")
		}
	}
}
