package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// event is one line of go test -json; see go doc cmd/test2json.
type event struct {
	Action, Package, ImportPath, Test, Output, FailedBuild string
}

type id struct{ pkg, test string }

// report collects what the events say.
type report struct {
	name   string
	result map[id]string // pass, fail, skip, or run while it has not ended
	output map[id][]string
	lacks  map[id]string // what a test that failed wanted of the machine
	broken []string      // packages that failed as a whole: they do not build, or died
	quiet  bool          // failures are wanted: do not print their output
}

func (r *report) read(in io.Reader, out io.Writer) error {
	r.result, r.output, r.lacks = map[id]string{}, map[id][]string{}, map[id]string{}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		var e event
		if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &e) == nil {
			r.add(e, out)
		} else if line != "" {
			fmt.Fprint(out, line) // go's own complaints are not JSON
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) add(e event, out io.Writer) {
	t := id{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(out, e.Output)
	case "run":
		r.result[t] = "run"
	case "output":
		switch {
		case e.Test != "":
			r.output[t] = append(r.output[t], e.Output)
			if strings.Contains(e.Output, untried) {
				top, _, _ := strings.Cut(e.Test, "/")
				r.lacks[id{e.Package, top}] = strings.TrimSpace(position.ReplaceAllString(e.Output, ""))
			}
		case e.Output != "PASS\n" && e.Output != "FAIL\n":
			fmt.Fprint(out, e.Output)
		}
	case "pass", "fail", "skip":
		if e.Test == "" {
			if e.Action == "fail" && !r.failedIn(e.Package) {
				r.broken = append(r.broken, e.Package)
			}
			return
		}
		r.result[t] = e.Action
		if e.Action == "fail" && !r.quiet {
			fmt.Fprint(out, strings.Join(r.output[t], ""))
		}
		if e.Action != "skip" {
			delete(r.output, t)
		}
	}
}

// failedIn reports whether a test of the package is known to have failed.
func (r *report) failedIn(pkg string) bool {
	for t, result := range r.result {
		if t.pkg == pkg && result == "fail" {
			return true
		}
	}
	return false
}

func (r *report) count(result string) int {
	n := 0
	for _, got := range r.result {
		if got == result {
			n++
		}
	}
	return n
}

// summarize prints the counts and the reasons, and reports whether all is well.
func (r *report) summarize(out io.Writer) bool {
	passed, failed, skipped, unended := r.count("pass"), r.count("fail"), r.count("skip"), r.count("run")
	fmt.Fprintf(out, "%s: %d ran: %d passed, %d failed; %d skipped", r.name, passed+failed+unended, passed, failed, skipped)
	if unended > 0 {
		fmt.Fprintf(out, "; %d never ended", unended)
	}
	fmt.Fprintln(out)
	for _, s := range r.skips() {
		fmt.Fprintf(out, "  skipped: %s\n", s)
	}
	for _, pkg := range r.broken {
		fmt.Fprintf(out, "  broken: %s\n", pkg)
	}
	if passed+failed == 0 {
		fmt.Fprintf(out, "%s: no test ran\n", r.name)
		return false
	}
	return failed == 0 && unended == 0 && len(r.broken) == 0
}

// untried is what package prove says when it fails a test for want of something.
const untried = "MMAPIO_E2E=1, but"

// checkRed reports whether each of the named top-level tests failed. A skip
// is not enough: a proof that did not run has not noticed anything. Nor is a
// failure for want of something that the machine should have.
func (r *report) checkRed(out io.Writer, names []string) bool {
	ok := len(names) > 0
	for _, name := range names {
		got := "did not run"
		for t, result := range r.result {
			if t.test == name {
				got = cmp.Or(r.lacks[t], result)
			}
		}
		switch got {
		case "fail":
			fmt.Fprintf(out, "  red, as it must be: %s\n", name)
		case "run":
			fmt.Fprintf(out, "  never ended: %s\n", name)
			ok = false
		default:
			fmt.Fprintf(out, "  NOT RED: %s: %s\n", name, got)
			ok = false
		}
	}
	if len(r.broken) > 0 {
		fmt.Fprintf(out, "  broken, so nothing is proved: %s\n", strings.Join(r.broken, " "))
		ok = false
	}
	return ok
}

// skips returns the reasons, each with the tests that gave it.
func (r *report) skips() []string {
	byReason := map[string][]string{}
	for t, result := range r.result {
		if result == "skip" {
			why := reason(r.output[t])
			byReason[why] = append(byReason[why], t.pkg[strings.LastIndexByte(t.pkg, '/')+1:]+"."+t.test)
		}
	}
	lines := make([]string, 0, len(byReason))
	for _, why := range slices.Sorted(maps.Keys(byReason)) {
		tests := byReason[why]
		slices.Sort(tests)
		const shown = 4
		list := strings.Join(tests[:min(len(tests), shown)], " ")
		if len(tests) > shown {
			list += fmt.Sprintf(" and %d more", len(tests)-shown)
		}
		lines = append(lines, why+": "+list)
	}
	return lines
}

func (r *report) skipLines() string {
	var b strings.Builder
	for _, s := range r.skips() {
		fmt.Fprintf(&b, "%s: %s\n", r.name, s)
	}
	return b.String()
}

var (
	frame    = regexp.MustCompile(`^\s*(=== |--- )`)
	position = regexp.MustCompile(`^\s*\S+\.go:\d+: `)
)

// reason finds what a test said last before it was skipped.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		if s := strings.TrimSpace(position.ReplaceAllString(line, "")); s != "" && !frame.MatchString(line) {
			return s
		}
	}
	return "no reason given"
}
