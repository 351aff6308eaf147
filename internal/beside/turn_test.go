package beside

import (
	"errors"
	"sync"
	"testing"
	"time"
)

// A call is made in turn, and what it says comes back.
func TestTurn(t *testing.T) {
	var turn Turn
	want := errors.New("whatever the call says")
	err := turn.Run(func() error {
		if turn.state.Load()%2 == 0 {
			t.Error("nobody has the turn during a call")
		}
		return want
	})
	if err != want { //nolint:errorlint // the very same
		t.Errorf("a call returned %v", err)
	}
	if turn.state.Load()%2 != 0 {
		t.Error("the turn is kept after a call")
	}
}

// Who has the turn is waited for.
func TestTurns(t *testing.T) {
	defer func(d time.Duration) { turnWait = d }(turnWait)
	turnWait = time.Hour
	var turn Turn
	var wg sync.WaitGroup
	sum := 0 // as long as nobody goes without a turn it needs no lock
	for range 4 {
		wg.Go(func() {
			for range 500 {
				err := turn.Run(func() error {
					sum++
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if sum != 2000 {
		t.Errorf("2000 turns made %d", sum)
	}
}

// Who keeps the turn for too long is waited for once, and who has it next is waited
// for again.
func TestTurnLate(t *testing.T) {
	var turn Turn
	if !turn.take() {
		t.Fatal("a turn that nobody has is not to be had")
	}
	if turn.take() {
		t.Fatal("two have the turn")
	}
	patience := turnWait
	defer func() { turnWait = patience }()
	turnWait = time.Hour
	want := errors.New("whatever the call says")
	if err := turn.Run(func() error { return want }); err != want { //nolint:errorlint // the very same
		t.Errorf("a call without a turn returned %v", err)
	}
	turn.leave()
	if !turn.take() {
		t.Fatal("the turn was left, and is not to be had")
	}
	if turn.late.Load() == turn.state.Load() {
		t.Error("the next one who has the turn would not be waited for")
	}
	turn.leave()
}

// A call that panics leaves the turn.
func TestTurnPanic(t *testing.T) {
	var turn Turn
	func() {
		defer func() { _ = recover() }()
		_ = turn.Run(func() error { panic("in a call") })
	}()
	if !turn.take() {
		t.Error("the turn is not to be had after a panic")
	}
}
