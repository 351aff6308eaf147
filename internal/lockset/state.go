package lockset

// A state is what holds from one offset up to the next step.
type state struct {
	level        Level // assigned
	now, onFault int64 // pins of either level
}

// wanted returns the level that the state asks for.
func (s state) wanted() Level {
	switch {
	case s.now > 0:
		return Now
	case s.onFault > 0:
		return max(s.level, OnFault)
	}
	return s.level
}

type op uint8

const (
	opLevel op = iota // set level
	opRaise           // set level where it is lower
	opPin             // add to the counts
	opWipe            // back to the zero state
)

// A change is what apply does to each state in a range.
type change struct {
	op           op
	level        Level
	now, onFault int64
}

func (c *change) of(s state) state {
	switch c.op {
	case opLevel:
		s.level = c.level
	case opRaise:
		s.level = max(s.level, c.level)
	case opPin:
		s.now += c.now
		s.onFault += c.onFault
		if s.now < 0 || s.onFault < 0 {
			panic("lockset: a pin is released twice")
		}
	case opWipe:
		s = state{}
	}
	return s
}

// A step is an offset where the state changes.
type step struct {
	at int64
	state
}
