package mmapio_test

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/mmapio/mmapio"
	"github.com/mmapio/mmapio/internal/prove"
)

// touched has a Guard that opens a File, holds all of it, and lets go of both by
// deferred calls, which run before the Guard hears of the fault. last runs after
// them.
func touched(open func() (*mmapio.File, error), touch func(b []byte), last func()) error {
	return mmapio.Guard(func() error {
		defer last()
		f, err := open()
		if err != nil {
			return err
		}
		defer f.Close()
		r, err := f.Region(0, f.Size())
		if err != nil {
			return err
		}
		defer r.Release()
		touch(r.Bytes())
		return nil
	})
}

// collected has the collector give addresses back that nobody uses.
func collected() {
	for range 5 {
		runtime.GC()
		time.Sleep(2 * time.Millisecond) // for cleanups, which run after it
	}
}

// TestGuardLetGo has what a Guard's function defers give the memory back that it
// has faulted on: it is a FaultError still, of the right file.
func TestGuardLetGo(t *testing.T) {
	needFaults(t)
	path, _ := patternFile(t, 4*pageSize)
	ro := func() (*mmapio.File, error) { return mmapio.OpenFile(path, &mmapio.Options{Offset: 100}) }
	for name, last := range map[string]func(){"at once": func() {}, "collected": collected} {
		t.Run(name, func(t *testing.T) {
			err := touched(ro, func(b []byte) { b[2*pageSize] = 1 }, last)
			wantFault(t, err, "guard", 2*pageSize, 100, err)
			if err != nil && !strings.Contains(err.Error(), "let go of") {
				t.Error(err) // it cannot be told from a load
			}
		})
	}
}

// TestGuardLetGoCut is that for a page that was cut off.
func TestGuardLetGoCut(t *testing.T) {
	needCut(t)
	path, _ := patternFile(t, 4*pageSize)
	err := touched(func() (*mmapio.File, error) { return mmapio.Open(path) }, func(b []byte) {
		prove.Truncate(t, path, pageSize)
		sum(b)
	}, collected)
	wantFault(t, err, "guard", pageSize, 0, io.ErrUnexpectedEOF)
}

// TestGuardLetGoMemory is that for memory that is given back as it is let go.
func TestGuardLetGoMemory(t *testing.T) {
	needFaults(t)
	beyond := func(b []byte) { *(*byte)(unsafe.Add(unsafe.Pointer(&b[0]), len(b))) = 1 }
	err := touched(func() (*mmapio.File, error) { return mmapio.Anonymous(pageSize, nil) }, beyond, func() {})
	var fe *mmapio.FaultError
	if !errors.As(err, &fe) || fe.Path != "anonymous" || fe.Off != pageSize {
		t.Errorf("%T %v", err, err)
	}
}

// TestGuardKeepsNothing has a long Guard during which Files come and go.
func TestGuardKeepsNothing(t *testing.T) {
	prove.Need(t, prove.Maps)
	path, _ := patternFile(t, pageSize)
	err := mmapio.Guard(func() error {
		for range 3 {
			if _, err := mmapio.Open(path); err != nil { // and never closed
				return err
			}
		}
		wantGone(t, path)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
