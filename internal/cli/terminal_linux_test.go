package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmapio/mmapio/internal/prove"
)

// terminalCommand is mmapio at the terminal that its first argument names, in a
// session of its own, with pipes for input and output.
var terminalCommand = prove.Register("mmapio at a terminal", func(args []string) int {
	t := prove.T()
	if _, err := unix.Setsid(); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(args[0], os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	if err := unix.IoctlSetInt(int(tty.Fd()), unix.TIOCSCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return Main(context.Background(), args[1:], os.Stdin, os.Stdout, os.Stderr)
})

// newTerminal returns what types at a terminal, and its name.
func newTerminal(t *testing.T) (keys *os.File, name string) {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		prove.Unable(t, "no terminal: %v", err)
	}
	t.Cleanup(func() { keys.Close() })
	fd := int(keys.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	return keys, fmt.Sprintf("/dev/pts/%d", n)
}

// press types a key, and returns when the terminal has sent the signal for it to all who
// get one, which it does before it shows the letter that is typed next.
func press(t *testing.T, keys *os.File, key string) {
	t.Helper()
	const next = "."
	if _, err := keys.WriteString(key + next); err != nil {
		t.Fatal(err)
	}
	for b := []byte{0}; string(b) != next; {
		if _, err := keys.Read(b); err != nil {
			t.Fatal(err)
		}
	}
}

// counts says of each interrupt that it came, and exits with their number. The
// shell waits for a program that no key reaches and that ends with the test: it
// leaves a wait for a trap at once.
const counts = `trap '' INT
exec 3<&0
cat <&3 >/dev/null 2>&1 &
n=0
trap 'n=$((n+1)); echo got $n' INT
trap 'exit $n' TERM
echo ready
while kill -0 $!; do wait $!; done`

// Ctrl-C comes once: from the terminal to who is in its foreground, and else from
// mmapio.
func TestCommandInterruptedOnce(t *testing.T) {
	needLock(t)
	dir := prove.PublicDir(t)
	prove.NewFile(t, dir, "file", 1<<20)
	for name, run := range map[string]string{"in the foreground": "sh", "elsewhere": "setsid sh"} {
		t.Run(name, func(t *testing.T) {
			keys, tty := newTerminal(t)
			args := append([]string{tty, "lock", dir, "--"}, strings.Fields(run)...)
			p := terminalCommand.Start(t, prove.Args(args...), prove.Args("-c", counts))
			p.Expect("ready")
			const times = 5
			for i := range times {
				press(t, keys, "\x03")
				p.Expect(fmt.Sprintf("got %d", i+1))
			}
			// Goes the same way after all interrupts that are to be passed on.
			p.Signal(syscall.SIGTERM)
			if res := p.Wait(); res.Code != times {
				t.Errorf("Ctrl-C %d times, %v", times, res)
			}
		})
	}
}
