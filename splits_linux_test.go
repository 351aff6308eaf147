package mmapio_test

import (
	"runtime"
	"testing"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// The mappings that the advice of a File costs are given back with it, also if nobody
// closes it: else locks and advice would be refused one day.
func TestDroppedAdvice(t *testing.T) {
	prove.Need(t, prove.Maps)
	const n = 1000 // pages, more than what other tests have left for the collector
	runtime.GC()
	before := mmapio.Splits()
	func() {
		f, err := mmapio.Anonymous(2*(n+1)*pageSize, nil)
		check(t, err)
		for p := range int64(n) {
			check(t, f.Advise((2*p+1)*pageSize, pageSize, mmapio.AdviceRandom))
		}
		if more := mmapio.Splits() - before; more < n/2 {
			t.Fatalf("%d pieces cost %d mappings", n, more)
		}
		runtime.KeepAlive(f)
	}()
	if !collect(func() bool { return mmapio.Splits()-before < n/2 }) {
		t.Errorf("%d mappings still count", mmapio.Splits()-before)
	}
}
