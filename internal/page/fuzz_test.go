package page

import (
	"math"
	"math/big"
	"testing"
)

func fuzzSeeds(f *testing.F) {
	edges := []int64{0, 1, -1, 4095, 4096, 4097, math.MaxInt64, math.MaxInt64 - 4095, math.MinInt64}
	for _, lo := range edges {
		for _, hi := range edges {
			for _, shift := range []uint8{2, 12, 14, 16, 62} {
				f.Add(lo, hi, shift)
			}
		}
	}
}

// pageSize turns any byte into a power of two from 4 to 1<<62.
func pageSize(shift uint8) int64 { return 1 << (2 + shift%61) }

func bigDown(x, size *big.Int) *big.Int {
	// Div is Euclidean, which for a positive divisor rounds down.
	q := new(big.Int).Div(x, size)
	return q.Mul(q, size)
}

func bigUp(x, size *big.Int) *big.Int {
	up := new(big.Int).Add(x, size)
	return bigDown(up.Sub(up, big.NewInt(1)), size)
}

func FuzzInBounds(f *testing.F) {
	for _, x := range []int64{0, 1, -1, 4096, math.MaxInt64, math.MinInt64} {
		f.Add(x, x, x)
		f.Add(int64(0), x, x)
		f.Add(x, int64(1), x)
	}
	f.Fuzz(func(t *testing.T, off, n, size int64) {
		end := new(big.Int).Add(big.NewInt(off), big.NewInt(n))
		want := off >= 0 && n >= 0 && end.Cmp(big.NewInt(size)) <= 0
		if got := InBounds(off, n, size); got != want {
			t.Errorf("InBounds(%d, %d, %d) = %v, want %v", off, n, size, got, want)
		}
	})
}

func FuzzRound(f *testing.F) {
	fuzzSeeds(f)
	f.Fuzz(func(t *testing.T, lo, hi int64, shift uint8) {
		ps := pageSize(shift)
		bigLo, bigHi, bigPS := big.NewInt(lo), big.NewInt(hi), big.NewInt(ps)
		down, up := bigDown(bigLo, bigPS), bigUp(bigHi, bigPS)

		if got := Down(lo, ps); big.NewInt(got).Cmp(down) != 0 {
			t.Errorf("Down(%d, %d) = %d, want %v", lo, ps, got, down)
		}
		got, ok := Up(hi, ps)
		if ok != up.IsInt64() || ok && got != up.Int64() {
			t.Errorf("Up(%d, %d) = %d, %v, want %v", hi, ps, got, ok, up)
		}

		outLo, outHi, ok := Outward(lo, hi, ps)
		switch {
		case hi <= lo:
			if outLo != outHi || !ok {
				t.Errorf("Outward(%d, %d, %d) = %d, %d, %v, want an empty range", lo, hi, ps, outLo, outHi, ok)
			}
		case ok != up.IsInt64():
			t.Errorf("Outward(%d, %d, %d) is ok: %v, want %v", lo, hi, ps, ok, !ok)
		case ok && (outLo != down.Int64() || outHi != up.Int64()):
			t.Errorf("Outward(%d, %d, %d) = %d, %d, want %v, %v", lo, hi, ps, outLo, outHi, down, up)
		}

		inLo, inHi := Inward(lo, hi, ps)
		wantLo, wantHi := bigUp(bigLo, bigPS), bigDown(bigHi, bigPS)
		if wantLo.Cmp(wantHi) >= 0 {
			if inLo != inHi {
				t.Errorf("Inward(%d, %d, %d) = %d, %d, want an empty range", lo, hi, ps, inLo, inHi)
			}
		} else if inLo != wantLo.Int64() || inHi != wantHi.Int64() {
			t.Errorf("Inward(%d, %d, %d) = %d, %d, want %v, %v", lo, hi, ps, inLo, inHi, wantLo, wantHi)
		}

		count := new(big.Int)
		if lo < hi {
			count.Sub(up, down)
			count.Div(count, bigPS)
		}
		if got := Count(lo, hi, ps); big.NewInt(got).Cmp(count) != 0 {
			t.Errorf("Count(%d, %d, %d) = %d, want %v", lo, hi, ps, got, count)
		}
	})
}
