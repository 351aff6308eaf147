package prove

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func openFDs() ([]string, error) {
	const dir = "/proc/self/fd"
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	own := "/proc/" + strconv.Itoa(os.Getpid()) + "/"
	var all []string
	for _, e := range list {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // the descriptor that read the directory
		}
		if strings.HasPrefix(target, "anon_inode:[event") { // eventpoll, eventfd: the runtime's poller
			continue
		}
		if target == own+"maps" || target == own+"pagemap" {
			continue // internal/sys keeps these open, one each, on purpose
		}
		if target == own+"cgroup" || strings.HasPrefix(filepath.Base(target), "memory.") {
			continue // and internal/limits these
		}
		all = append(all, target)
	}
	slices.Sort(all)
	return all, nil
}
