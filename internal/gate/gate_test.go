package gate

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

func TestEnterAfterShut(t *testing.T) {
	var g Gate
	p, ok := g.Enter()
	if !ok {
		t.Fatal("an open gate refused")
	}
	if g.Empty() {
		t.Error("empty with one inside")
	}
	left := 0
	g.Shut(func() { left++ })
	if _, ok := g.Enter(); ok {
		t.Error("a shut gate let one in")
	}
	if g.Hold() {
		t.Error("a shut gate let one hold")
	}
	refused := left
	p.Leave()
	if !g.Empty() {
		t.Error("not empty after the last one left")
	}
	if left != refused+1 {
		t.Errorf("told of %d leaves, want 1", left-refused)
	}
	g.Open()
	if p, ok := g.Enter(); !ok {
		t.Error("an opened gate refused")
	} else {
		p.Leave()
	}
}

// Nesting deeper than there are cells to try must spill, not fail or be lost.
func TestNesting(t *testing.T) {
	var g, other Gate
	var passes []Pass
	for range 3 * tries {
		p, ok := g.Enter()
		if !ok {
			t.Fatal("refused")
		}
		q, _ := other.Enter()
		passes = append(passes, p)
		q.Leave()
	}
	if !other.Empty() {
		t.Error("one gate's guests are counted at another")
	}
	for i, p := range passes {
		if g.Empty() {
			t.Fatalf("empty with %d inside", len(passes)-i)
		}
		p.Leave()
	}
	if !g.Empty() {
		t.Error("not empty")
	}
}

// grow makes the stack move, so that its address hashes to another cell.
//
//go:noinline
func grow(n int) byte {
	var pad [1024]byte
	if n > 0 {
		pad[n%len(pad)] = grow(n - 1)
	}
	return pad[(n+1)%len(pad)]
}

func TestStackMove(t *testing.T) {
	done := make(chan bool)
	go func() {
		var g Gate
		p, _ := g.Enter()
		grow(500)
		p.Leave()
		done <- g.Empty()
	}()
	if !<-done {
		t.Error("a guest whose stack moved never left")
	}
}

// The invariant: once Shut and Wait have returned, nobody is inside.
func TestWait(t *testing.T) {
	var inside atomic.Int64
	for range 200 {
		var g Gate
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					p, ok := g.Enter()
					if !ok {
						return
					}
					inside.Add(1)
					if inside.Load()%3 == 0 || runtime.GOARCH == "wasm" { // nothing is preempted there
						runtime.Gosched()
					}
					inside.Add(-1)
					p.Leave()
				}
			})
		}
		runtime.Gosched()
		g.Shut(nil)
		g.Wait()
		if n := inside.Load(); n != 0 {
			t.Fatalf("%d inside after Wait", n)
		}
		wg.Wait()
	}
}

func TestNoAllocation(t *testing.T) {
	var g Gate
	if n := testing.AllocsPerRun(100, func() { p, _ := g.Enter(); p.Leave() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkEnterLeave(b *testing.B) {
	var g Gate
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p, _ := g.Enter()
			p.Leave()
		}
	})
}
