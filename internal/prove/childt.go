package prove

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// T is the testing.TB of the body of a child: errors are printed and make the exit status 1, Fatal ends the child at
// once, cleanups run when the body returns. Skip is Fatal: a child that skips would let its parent pass.
func T() testing.TB { return childT }

var childT = &childTB{}

// childTB embeds a nil TB for the sake of its private method. What is not here, a child has no use for.
type childTB struct {
	testing.TB
	failed   bool
	cleanups []func()
}

func (*childTB) Helper()                  {}
func (c *childTB) Name() string           { return childIs.Name }
func (c *childTB) Failed() bool           { return c.failed }
func (c *childTB) Skipped() bool          { return false }
func (c *childTB) Cleanup(f func())       { c.cleanups = append(c.cleanups, f) }
func (*childTB) Context() context.Context { return context.Background() }

func (*childTB) Log(args ...any)                 { fmt.Fprintln(os.Stderr, args...) }
func (*childTB) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (c *childTB) Fail()                             { c.failed = true }
func (c *childTB) Error(args ...any)                 { c.Log(args...); c.Fail() }
func (c *childTB) Errorf(format string, args ...any) { c.Logf(format, args...); c.Fail() }

func (c *childTB) FailNow()                          { c.runCleanups(); os.Exit(1) }
func (c *childTB) Fatal(args ...any)                 { c.Log(args...); c.FailNow() }
func (c *childTB) Fatalf(format string, args ...any) { c.Logf(format, args...); c.FailNow() }
func (c *childTB) SkipNow()                          { c.FailNow() }
func (c *childTB) Skip(args ...any)                  { c.Fatal(args...) }
func (c *childTB) Skipf(format string, args ...any)  { c.Fatalf(format, args...) }

func (c *childTB) TempDir() string {
	dir, err := os.MkdirTemp("", "mmapio-prove-")
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (c *childTB) runCleanups() {
	for len(c.cleanups) > 0 {
		last := c.cleanups[len(c.cleanups)-1]
		c.cleanups = c.cleanups[:len(c.cleanups)-1]
		last()
	}
}
