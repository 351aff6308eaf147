package known

import "time"

// A Tally tells pages that are met again and again within a while from those
// that come up once or twice.
type Tally struct{ once, twice Set }

// Init prepares a Tally for pages numbered [0, pages), which are forgotten after
// life at the latest.
func (t *Tally) Init(pages int, life time.Duration) {
	t.once.Init(pages, life, nil)
	t.twice.Init(pages, life, nil)
}

// Third counts the pages from lo to last as met, and reports whether all of them
// were met twice before.
func (t *Tally) Third(lo, last int) bool {
	switch {
	case !t.once.Has(lo, last):
		t.once.Add(lo, last)
	case !t.twice.Has(lo, last):
		t.twice.Add(lo, last)
	default:
		return true
	}
	return false
}

// Expire forgets all pages. The timers call it.
func (t *Tally) Expire() {
	t.once.Expire()
	t.twice.Expire()
}

// Stop ends the timers and sets no others.
func (t *Tally) Stop() {
	t.once.Stop()
	t.twice.Stop()
}
