//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package pinner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/mmapio/mmapio/internal/prove"
)

// What would block, or is no file, is passed over inside a directory and named
// where it was asked for.
func TestWalkSpecial(t *testing.T) {
	dir := t.TempDir()
	tree(t, dir, "d/file")
	check(t, syscall.Mkfifo(filepath.Join(dir, "d", "fifo"), 0o600))
	socket, err := net.Listen("unix", filepath.Join(dir, "d", "socket"))
	check(t, err)
	defer socket.Close() //nolint:errcheck // a test's own

	got, err := walk(t, dir, "d")
	if err != nil || !slices.Equal(got, []string{"d/file"}) {
		t.Errorf("got %q, %v", got, err)
	}
	for name, kind := range map[string]string{"d/fifo": "a named pipe", "d/socket": "a socket", "/dev/null": "a device"} {
		path := name
		if !filepath.IsAbs(name) {
			path = filepath.Join(dir, name)
		}
		files, err := Walk(t.Context(), []string{path})
		if files != nil || err == nil || !strings.Contains(err.Error(), path+": is "+kind) {
			t.Errorf("%s: got %v, %v", name, files, err)
		}
	}
}

// ".." after a link leads to where the link's directory lies, and not back to where
// the link does.
func TestWalkAboveLink(t *testing.T) {
	dir := t.TempDir()
	tree(t, dir, "here/same", "there/same", "there/only", "there/deep/er")
	check(t, os.Symlink(filepath.Join("..", "there", "deep"), filepath.Join(dir, "here", "link")))
	for _, path := range []string{"here/link/..", "here/link/../", "here/link/../deep/.."} {
		files, err := Walk(t.Context(), []string{dir + "/" + path})
		check(t, err)
		var got []string
		for _, f := range files {
			text, err := os.ReadFile(f.Path)
			check(t, err)
			got = append(got, string(text))
		}
		if want := []string{"there/deep/er", "there/only", "there/same"}; !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

// A file that became a FIFO since the walk does not block.
func TestOpenFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	check(t, syscall.Mkfifo(path, 0o600))
	_, err := Status(t.Context(), []File{{Path: path, Size: 1}})
	if err == nil || !strings.Contains(err.Error(), "a named pipe") {
		t.Errorf("got %v", err)
	}
}

var walkChild = prove.Register("walk", func(args []string) int {
	files, err := Walk(context.Background(), args)
	for _, f := range files {
		fmt.Println("file", f.Path)
	}
	for _, e := range Split(err) {
		fmt.Println("error", e)
	}
	return 0
})

// What root is never refused: a directory that cannot be read is named, and
// the rest is found.
func TestWalkUnreadable(t *testing.T) {
	dir := prove.PublicDir(t)
	tree(t, dir, "a", "shut/x", "z")
	check(t, os.Chmod(filepath.Join(dir, "shut"), 0))
	res := walkChild.Run(t, prove.Args(dir), prove.AsNobody())
	want := fmt.Sprintf("file %s/a\nfile %s/z\nerror open %s/shut: permission denied\n", dir, dir, dir)
	if res.Code != 0 || res.Output != want {
		t.Errorf("got %v, want %s", res, want)
	}
}

// A directory that is removed while its parent is walked is as little below it as
// a file that is.
func TestWalkWhileDirectoriesGo(t *testing.T) {
	dir := t.TempDir()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			d := filepath.Join(dir, string(rune('a'+i%20)))
			_ = os.Mkdir(d, 0o700)
			_ = os.Remove(d)
		}
	})
	for range 3000 {
		if files, err := Walk(t.Context(), []string{dir}); err != nil || len(files) > 0 {
			t.Fatalf("%v, %v", files, err)
		}
	}
	if _, err := Walk(t.Context(), []string{filepath.Join(dir, "none")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a path that was named: %v", err)
	}
}
