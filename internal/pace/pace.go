// Package pace decides how much of a file is brought in at a time, and how many
// such windows side by side.
//
// A disk near by is read fastest by one stream: the kernel reads ahead of it. A
// disk that takes long to answer is read fastest by many requests at once. What
// is in memory already is had fastest by few large steps. Which of these it is
// cannot be asked, and changes along a file, so a Pace measures: it begins with
// one small window, and once windows have to wait it compares the throughput of
// one stream with that of two windows side by side, four, and so on, while that
// pays.
package pace

import "time"

// Window sizes in bytes.
const (
	Small  = 2 << 20  // the first one, and each of several side by side
	Stream = 16 << 20 // of a stream that waits for the disk, at most
	Large  = 64 << 20 // of what is in memory already, at most
)

// ReadsFar is a read-ahead with which the kernel keeps most devices busy by
// itself, in large pages. Such a device is not looked at twice.
const ReadsFar = 1 << 20

// Most is how many windows there are side by side at most.
const Most = 1 << (steps - 1)

const steps = 6 // 1, 2, 4 … windows side by side

const (
	// A window may keep the processor, and others from changing the address
	// space, no longer than about this.
	quick = time.Millisecond
	// While it waits for the disk it keeps nobody, but Close and cancel wait
	// for it.
	slow = 10 * time.Millisecond
	// roundTime is how long is measured at least.
	roundTime = 10 * time.Millisecond
	// reads is how many steps of read-ahead at least: what the kernel has read
	// ahead for one way must not count for the next.
	reads = 4
	// What has been found out is good for so long at first, and longer each time
	// that it is found again. A stream that is slow for nothing costs more than a
	// look at it, but for one that reads far: that is seldom slow for nothing, and
	// after a look the kernel begins again with small pages.
	streamFor = 200 * time.Millisecond
	besideFor = time.Second
	// So many times the throughput of a stream that is as fast as it was before is
	// no chance.
	clearly = 4
)

// A Pace is for one caller, who asks Next and tells Done. The zero Pace is not
// ready: see New.
type Pace struct {
	readAhead int64
	ask       func() int64 // for readAhead, once it matters
	always    bool         // waits cannot be told from work

	step int   // 1<<step windows side by side; 0: one stream
	size int64 // of the stream's windows
	cold bool  // the stream has waited

	inside int // windows under way

	// A round is a stretch over which a step is measured. It ends when nothing
	// is under way any more.
	began  time.Time
	bytes  int64 // done
	issued int64
	goal   int64
	waited bool
	idle   int // windows in a row that did not wait

	// Throughput in bytes a second, of the stream and of the best step so far.
	stream, best float64
	usual        float64 // of the stream, when it was measured before
	bestStep     int
	worse        int  // steps in a row that were not better
	compared     bool // all steps that are worth it
	check        int  // the step that seems best, while the stream is measured anew

	settled bool
	fixed   bool          // for ever
	found   int           // the step that was settled for before what is in memory now
	since   time.Time     // when it was
	times   time.Duration // how many times streamFor or besideFor
}

// A Window says how to bring the next part in.
type Window struct {
	Size int64
	// Alone: beside no other, so that the kernel sees one stream.
	Alone bool
	// Ahead: ask for all of it before any of it is waited for.
	Ahead bool
}

// New makes a Pace for a file whose device reads as many bytes ahead as
// readAhead says, which is called once something had to wait. Where the caller
// cannot tell whether a window had to, always is set.
func New(readAhead func() int64, always bool) *Pace {
	p := &Pace{ask: readAhead, always: always, size: Small, times: 1}
	p.round(time.Time{})
	return p
}

// Fixed makes a Pace that has found 1<<step windows side by side to be best, and
// does not look again.
func Fixed(step int) *Pace {
	p := New(func() int64 { return 0 }, false)
	p.settle(step, time.Now())
	p.fixed = true
	return p
}

// Next returns what to begin now. If ok is false, something that is under way
// has to be done first.
func (p *Pace) Next(now time.Time) (w Window, ok bool) {
	if !p.decide(now) {
		return w, false
	}
	if p.issued == 0 {
		p.began = now
	}
	switch {
	case p.step > 0:
		if p.inside >= 1<<p.step {
			return w, false
		}
		w = Window{Size: Small, Ahead: true}
	case p.inside >= 1:
		return w, false
	default:
		w = Window{Size: p.size, Alone: true}
	}
	p.inside++
	p.issued += w.Size
	return w, true
}

// Done tells that a window is done: how large it was in the end, how long it
// took, and whether it had to wait for the disk.
func (p *Pace) Done(w Window, bytes int64, took time.Duration, waited bool) {
	waited = waited || p.always
	if waited && p.ask != nil {
		p.readAhead, p.ask = p.ask(), nil
		p.goal = max(p.goal, reads*p.readAhead)
	}
	p.inside--
	p.bytes += bytes
	p.waited = p.waited || waited
	p.idle++
	if waited {
		p.idle = 0
	}
	if !w.Alone {
		return
	}
	p.cold = waited
	limit, most := quick, int64(Large)
	if waited {
		limit, most = slow, Stream
	}
	switch {
	case took > 2*limit && p.size > Small:
		p.size /= 2
	case took < limit/8 && bytes == p.size && !waited:
		p.size *= 4
	case took < limit && bytes == p.size:
		p.size *= 2
	}
	p.size = min(p.size, most)
	if waited && p.size > w.Size && !p.settled {
		// What the stream can do is seen in windows of full size: the kernel
		// reads ahead little at first, too.
		p.bytes, p.issued = 0, 0
	}
}

// round begins to measure.
func (p *Pace) round(now time.Time) {
	p.began, p.bytes, p.issued, p.waited = now, 0, 0, false
	p.goal = max(Small, reads*p.readAhead)
	if p.step > 0 {
		p.goal = max(2<<p.step*Small, p.goal)
	}
}

// decide looks at what was measured. It returns false if it has to wait until
// nothing is under way: a stream begins and ends alone.
func (p *Pace) decide(now time.Time) bool {
	var to int
	switch {
	case p.fixed:
		return true
	case p.settled:
		long := streamFor
		if p.step > 0 || p.readAhead >= ReadsFar {
			long = besideFor
		}
		late := now.Sub(p.since) >= p.times*long
		if !(p.step > 0 && p.idle >= 2<<p.step || late && p.cold) {
			return true
		}
		if p.inside > 0 {
			return false
		}
		if late {
			p.found, p.times = 0, 2*p.times
			if p.step == 0 {
				p.times *= 2 // stream
			}
		} else {
			p.found = p.step // for when it is no longer in memory
		}
		p.settled, p.step, p.worse, p.best, p.bestStep = false, 0, 0, 0, 0
		p.round(now)
		return true
	case p.compared:
		return p.conclude(now)
	case p.step == 0 && !p.waited:
		// In memory: nothing to be learned.
		if p.inside == 0 {
			p.round(now)
		}
		return true
	case p.step == 0 && p.found > 0:
		to = p.found
	case p.step == 0:
		if p.issued < p.goal || now.Sub(p.began) < roundTime {
			return true
		}
		to = max(1, p.check)
	case p.bytes < p.goal || now.Sub(p.began) < roundTime:
		return true
	}
	if p.step == 0 && p.inside > 0 {
		return false
	}
	rate := float64(p.bytes) / now.Sub(p.began).Seconds()
	switch {
	case p.step == 0 && p.found > 0:
		p.settle(to, now)
		return true
	case p.check > 0:
		p.stream = rate
		if p.best < 1.5*rate {
			to = 0 // the stream had had a bad moment
		}
		p.settle(to, now)
		return true
	case p.step == 0:
		p.usual, p.stream, p.step = p.stream, rate, to
		p.round(now)
		return true
	// A disk is not equally fast all the time. Where many requests help, they
	// help a lot.
	case p.waited && rate >= 1.5*p.stream && rate >= 1.15*p.best:
		p.best, p.bestStep, p.worse = rate, p.step, 0
	default:
		p.worse++
	}
	if !p.waited || p.worse > 1 || p.worse == 1 && p.readAhead >= ReadsFar || p.step == steps-1 {
		if p.bestStep > 0 && p.best >= clearly*p.stream && p.stream >= p.usual/2 {
			p.settle(p.bestStep, now)
			return true
		}
		p.compared = true
		return p.conclude(now)
	}
	p.step++
	p.round(now)
	return true
}

// conclude goes back to the stream: for good, or to measure it anew.
func (p *Pace) conclude(now time.Time) bool {
	if p.inside > 0 {
		return false
	}
	p.compared = false
	if p.bestStep == 0 {
		p.settle(0, now)
		return true
	}
	p.check, p.step = p.bestStep, 0
	p.round(now)
	return true
}

func (p *Pace) settle(step int, now time.Time) {
	if p.found == 0 {
		p.since = now
	}
	p.step, p.settled, p.found, p.check = step, true, 0, 0
	p.cold, p.idle = true, 0
	p.round(now)
}
