package page

import (
	"fmt"
	"math"
	"testing"
)

var sizes = []int64{4096, 16384, 65536}

func forSizes(t *testing.T, fn func(t *testing.T, ps int64)) {
	t.Helper()
	for _, ps := range sizes {
		t.Run(fmt.Sprint(ps), func(t *testing.T) { fn(t, ps) })
	}
}

func TestInBounds(t *testing.T) {
	const most = math.MaxInt64
	tests := []struct {
		off, n, size int64
		want         bool
	}{
		{0, 0, 0, true},
		{0, 1, 0, false},
		{1, 0, 0, false},
		{0, 10, 10, true},
		{10, 0, 10, true},
		{3, 7, 10, true},
		{3, 8, 10, false},
		{11, 0, 10, false},
		{-1, 1, 10, false},
		{0, -1, 10, false},
		{5, -1, 10, false},
		{0, 0, -1, false},
		{0, most, most, true},
		{most, 0, most, true},
		{1, most, most, false},
		{most, most, most, false},
		{most, 1, most, false},
		{0, math.MinInt64, 10, false},
		{math.MinInt64, 0, 10, false},
		{0, 1, math.MinInt64, false},
	}
	for _, tt := range tests {
		if got := InBounds(tt.off, tt.n, tt.size); got != tt.want {
			t.Errorf("InBounds(%d, %d, %d) = %v, want %v", tt.off, tt.n, tt.size, got, tt.want)
		}
	}
}

func TestDownUp(t *testing.T) {
	forSizes(t, func(t *testing.T, ps int64) {
		last := math.MaxInt64 - (ps - 1) // the greatest multiple
		tests := []struct {
			x, down, up int64
			ok          bool
		}{
			{0, 0, 0, true},
			{1, 0, ps, true},
			{ps - 1, 0, ps, true},
			{ps, ps, ps, true},
			{ps + 1, ps, 2 * ps, true},
			{-1, -ps, 0, true},
			{-ps, -ps, -ps, true},
			{math.MinInt64, math.MinInt64, math.MinInt64, true},
			{math.MinInt64 + 1, math.MinInt64, math.MinInt64 + ps, true},
			{last - 1, last - ps, last, true},
			{last, last, last, true},
			{last + 1, last, 0, false},
			{math.MaxInt64, last, 0, false},
		}
		for _, tt := range tests {
			if got := Down(tt.x, ps); got != tt.down {
				t.Errorf("Down(%d) = %d, want %d", tt.x, got, tt.down)
			}
			if got, ok := Up(tt.x, ps); got != tt.up || ok != tt.ok {
				t.Errorf("Up(%d) = %d, %v, want %d, %v", tt.x, got, ok, tt.up, tt.ok)
			}
		}
	})
}

func TestRanges(t *testing.T) {
	forSizes(t, func(t *testing.T, ps int64) {
		last := math.MaxInt64 - (ps - 1)
		tests := []struct {
			lo, hi       int64
			outLo, outHi int64
			ok           bool
			inLo, inHi   int64
			count        int64
			whole        bool
		}{
			{lo: 0, hi: 0, ok: true},
			{lo: 0, hi: 1, outHi: ps, ok: true, count: 1},
			{lo: 0, hi: ps, outHi: ps, ok: true, inHi: ps, count: 1, whole: true},
			{lo: 1, hi: ps, outHi: ps, ok: true, count: 1},
			{lo: 1, hi: 2*ps + 1, outHi: 3 * ps, ok: true, inLo: ps, inHi: 2 * ps, count: 3, whole: true},
			{lo: ps - 1, hi: ps + 1, outHi: 2 * ps, ok: true, count: 2},
			{lo: ps + 5, hi: ps + 5, outLo: ps, outHi: ps, ok: true},
			{lo: 3 * ps, hi: ps, outLo: 3 * ps, outHi: 3 * ps, ok: true},
			{lo: ps + 7, hi: ps + 3, outLo: ps, outHi: ps, ok: true},
			{lo: last - ps, hi: last, outLo: last - ps, outHi: last, ok: true, inLo: last - ps, inHi: last, count: 1, whole: true},
			{lo: last - ps, hi: last + 1, inLo: last - ps, inHi: last, count: 2, whole: true},
			{lo: last + 1, hi: math.MaxInt64, count: 1},
		}
		for _, tt := range tests {
			lo, hi, ok := Outward(tt.lo, tt.hi, ps)
			if lo != tt.outLo || hi != tt.outHi || ok != tt.ok {
				t.Errorf("Outward(%d, %d) = %d, %d, %v, want %d, %d, %v",
					tt.lo, tt.hi, lo, hi, ok, tt.outLo, tt.outHi, tt.ok)
			}
			lo, hi = Inward(tt.lo, tt.hi, ps)
			switch {
			case !tt.whole && lo != hi:
				t.Errorf("Inward(%d, %d) = %d, %d, want an empty range", tt.lo, tt.hi, lo, hi)
			case tt.whole && (lo != tt.inLo || hi != tt.inHi):
				t.Errorf("Inward(%d, %d) = %d, %d, want %d, %d", tt.lo, tt.hi, lo, hi, tt.inLo, tt.inHi)
			}
			if n := Count(tt.lo, tt.hi, ps); n != tt.count {
				t.Errorf("Count(%d, %d) = %d, want %d", tt.lo, tt.hi, n, tt.count)
			}
		}
	})
}

func TestCountWidest(t *testing.T) {
	if got, want := Count(math.MinInt64, math.MaxInt64, 4), int64(1)<<62; got != want {
		t.Errorf("Count of every int64 in pages of 4 = %d, want %d", got, want)
	}
}
