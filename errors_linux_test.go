package mmapio_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// TestExchangedFile: a file that becomes a FIFO between the look at its name and
// the open is refused too, and the open does not wait for a writer.
func TestExchangedFile(t *testing.T) {
	prove.LeakCheck(t)
	dir := t.TempDir()
	name, fifo := filepath.Join(dir, "name"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(name, []byte("regular"), 0o600), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	var opens, refused atomic.Int64
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			f, err := mmapio.Open(name)
			switch {
			case err == nil:
				if f.Size() != 7 {
					t.Errorf("%d bytes of a file of 7", f.Size())
				}
				f.Close()
			case errors.Is(err, fs.ErrInvalid):
				refused.Add(1)
			default:
				t.Error(err)
				return
			}
			opens.Add(1)
		}
	}()
	end := time.Now().Add(300 * time.Millisecond)
	for time.Now().Before(end) {
		if err := unix.Renameat2(unix.AT_FDCWD, name, unix.AT_FDCWD, fifo, unix.RENAME_EXCHANGE); err != nil {
			close(stop)
			<-stopped
			prove.Unable(t, "files cannot change places here: %v", err)
		}
	}
	close(stop)
	select {
	case <-stopped:
	case <-time.After(5 * time.Second):
		t.Fatalf("after %d opens one waits for a writer", opens.Load())
	}
	t.Logf("%d opens, %d of a FIFO", opens.Load(), refused.Load())
}
