package sys

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// A kernel such as the BSDs', which unlocks all of a range or nothing.
func TestUnlockMixed(t *testing.T) {
	ps := PageSize()
	r := rand.New(rand.NewPCG(1, 2))
	errBroken := errors.New("broken")
	for range 2000 {
		locked := make([]bool, 1+r.IntN(20))
		for i := range locked {
			locked[i] = r.IntN(3) > 0
		}
		lo := r.IntN(len(locked))
		hi := lo + 1 + r.IntN(len(locked)-lo)
		want := slices.Clone(locked)
		clear(want[lo:hi])
		calls := 0
		err := unlockMixed(lo*ps, (hi-lo)*ps, func(at, n int) (bool, error) {
			calls++
			if at%ps != 0 || n%ps != 0 || n <= 0 {
				t.Fatalf("[%d, +%d)", at, n)
			}
			part := locked[at/ps : (at+n)/ps]
			if slices.Contains(part, false) {
				return true, nil
			}
			clear(part)
			return false, nil
		})
		if err != nil || !slices.Equal(locked, want) || calls > 2*(hi-lo) {
			t.Fatalf("%v, pages %v after %d calls, want %v", err, locked, calls, want)
		}
	}
	if err := unlockMixed(0, 4*ps, func(_, n int) (bool, error) {
		if n > ps {
			return true, nil
		}
		return false, errBroken
	}); err != errBroken { //nolint:errorlint // as it is
		t.Errorf("got %v", err)
	}
}
