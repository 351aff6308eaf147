package main

import (
	"strings"
	"testing"
)

func readAll(t *testing.T, lines ...string) (*report, string) {
	t.Helper()
	r := &report{name: "x"}
	var out strings.Builder
	if err := r.read(strings.NewReader(strings.Join(lines, "\n")), &out); err != nil {
		t.Fatal(err)
	}
	return r, out.String()
}

func ev(action, pkg, test, output string) string {
	s := `{"Action":"` + action + `","Package":"m/` + pkg + `"`
	if test != "" {
		s += `,"Test":"` + test + `"`
	}
	if output != "" {
		s += `,"Output":"` + output + `\n"`
	}
	return s + "}"
}

var (
	passA = []string{ev("run", "p", "TestA", ""), ev("output", "p", "TestA", "quiet"), ev("pass", "p", "TestA", "")}
	failB = []string{ev("run", "p", "TestB", ""), ev("output", "p", "TestB", "    b_test.go:3: wrong"), ev("fail", "p", "TestB", ""), ev("fail", "p", "", "")}
	skipC = []string{
		ev("run", "q", "TestC", ""), ev("output", "q", "TestC", "=== RUN   TestC"), ev("output", "q", "TestC", "    c_test.go:9: needs a moon: none"),
		ev("output", "q", "TestC", "--- SKIP: TestC (0.00s)"), ev("skip", "q", "TestC", ""), ev("pass", "q", "", ""),
	}
)

func join(parts ...[]string) []string {
	var all []string
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func TestSummarize(t *testing.T) {
	for _, tc := range []struct {
		name  string
		lines []string
		ok    bool
		want  []string // in what is printed
		not   string
	}{
		{"pass and skip", join(passA, skipC), true, []string{"x: 1 ran: 1 passed, 0 failed; 1 skipped", "skipped: needs a moon: none: q.TestC"}, "quiet"},
		{"fail", join(passA, failB), false, []string{"wrong", "2 ran: 1 passed, 1 failed"}, "broken"},
		{"nothing ran", skipC, false, []string{"no test ran"}, ""},
		{"nothing at all", nil, false, []string{"no test ran"}, ""},
		{"does not build", join(passA, []string{`{"ImportPath":"m/r","Action":"build-output","Output":"r.go:1: bad\n"}`, ev("fail", "r", "", "")}), false, []string{"r.go:1: bad", "broken: m/r"}, ""},
		{"dies", join(passA, []string{ev("run", "s", "TestD", ""), ev("fail", "s", "", "")}), false, []string{"1 never ended", "broken: m/s"}, ""},
		{"other output", append([]string{"go: no such tool"}, passA...), true, []string{"go: no such tool"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, printed := readAll(t, tc.lines...)
			var out strings.Builder
			ok := r.summarize(&out)
			printed += out.String()
			for _, want := range tc.want {
				if !strings.Contains(printed, want) {
					t.Errorf("no %q in\n%s", want, printed)
				}
			}
			if ok != tc.ok || tc.not != "" && strings.Contains(printed, tc.not) {
				t.Errorf("ok is %v, want %v, without %q:\n%s", ok, tc.ok, tc.not, printed)
			}
		})
	}
}

func TestCheckRed(t *testing.T) {
	dies := []string{ev("run", "s", "TestD", ""), ev("fail", "s", "", "")}
	// A proof that was not tried, as package prove says it, as a whole or in part.
	lacks := []string{
		ev("run", "p", "TestE", ""), ev("output", "p", "TestE", "    e_test.go:3: MMAPIO_E2E=1, but FUSE is missing: no /dev/fuse"),
		ev("fail", "p", "TestE", ""), ev("fail", "p", "", ""),
	}
	lacksInPart := join(failB[:3], []string{
		ev("run", "p", "TestB/x", ""), ev("output", "p", "TestB/x", "    b_test.go:5: MMAPIO_E2E=1, but: no loop device"),
		ev("fail", "p", "TestB/x", ""), ev("fail", "p", "", ""),
	})
	for _, tc := range []struct {
		lines []string
		names string
		ok    bool
	}{
		{failB, "TestB", true},
		{failB, "", false},
		{join(passA, failB), "TestB", true},
		{join(passA, failB), "TestA TestB", false},
		{skipC, "TestC", false},
		{join(failB, dies), "TestB TestD", false},
		{failB, "TestB TestGone", false},
		{lacks, "TestE", false},
		{join(failB, lacks), "TestB", true},
		{lacksInPart, "TestB", false},
	} {
		r, _ := readAll(t, tc.lines...)
		var out strings.Builder
		if ok := r.checkRed(&out, strings.Fields(tc.names)); ok != tc.ok {
			t.Errorf("%q: %v, want %v\n%s", tc.names, ok, tc.ok, out.String())
		}
	}
}
