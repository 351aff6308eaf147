package cli

import (
	"context"
	"os"
	"os/signal"
)

// interrupts is a context that ends at the first signal that means to stop. The
// second does what it does to any program: what waits for a disk that does not
// answer, or for a reader that does not read, ends by nothing else.
type interrupts struct {
	context.Context
	cancel  context.CancelFunc
	signals chan os.Signal
	watched chan struct{} // closed when the watch is over
	came    bool          // a signal, by then
}

func untilInterrupted(ctx context.Context) *interrupts {
	in := &interrupts{signals: make(chan os.Signal, 1), watched: make(chan struct{})}
	in.Context, in.cancel = context.WithCancel(ctx)
	notify(in.signals, stopSignals)
	go func() {
		defer close(in.watched)
		select {
		case <-in.signals:
			in.came = true
			signal.Stop(in.signals)
			in.cancel()
		case <-in.Done():
		}
	}()
	return in
}

// end ends the watch, and reports whether the context had ended before. Each
// signal that came before is taken account of, each later one does what it did
// before the watch began, or goes to whoever listens as well.
func (in *interrupts) end() (ended bool) {
	ended = in.Err() != nil
	signal.Stop(in.signals)
	in.cancel()
	<-in.watched
	return ended || in.came || len(in.signals) > 0
}

// notify listens for signals, but for those that are ignored: under nohup, or in
// the background of a script. To listen would undo that, for the command that
// lock runs too. (The runtime of Go takes all but SIGHUP and SIGINT over, ignored
// or not, before anybody can look.)
func notify(c chan<- os.Signal, all []os.Signal) {
	for _, sig := range all {
		if !isIgnored(sig) {
			signal.Notify(c, sig)
		}
	}
}
