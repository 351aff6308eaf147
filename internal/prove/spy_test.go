package prove

import (
	"fmt"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

// A spy is a testing.TB that notes what a helper does to the test instead of letting it.
type spy struct {
	testing.TB
	errors  []string
	skipped string
}

type stopped struct{}

func (s *spy) Errorf(format string, args ...any) {
	s.errors = append(s.errors, fmt.Sprintf(format, args...))
}
func (s *spy) Fatalf(format string, args ...any) { s.Errorf(format, args...); panic(stopped{}) }
func (s *spy) Skipf(format string, args ...any) {
	s.skipped = fmt.Sprintf(format, args...)
	panic(stopped{})
}

// watch runs the helper and returns what it did to its test.
func watch(t *testing.T, helper func(testing.TB)) (s *spy) {
	t.Helper()
	s = &spy{TB: t}
	defer func() {
		if r := recover(); r != nil && r != any(stopped{}) {
			panic(r)
		}
	}()
	helper(s)
	return s
}

// fails wants the helper to fail its test with this text.
func fails(t *testing.T, text string, helper func(testing.TB)) {
	t.Helper()
	s := watch(t, helper)
	if all := strings.Join(s.errors, "\n"); !strings.Contains(all, text) || all == "" {
		t.Errorf("want a failure that says %q, got %q", text, all)
	}
}

func skips(t *testing.T, text string, helper func(testing.TB)) {
	t.Helper()
	s := watch(t, helper)
	if !strings.Contains(s.skipped, text) || s.skipped == "" {
		t.Errorf("want a skip that says %q, got %q and failures %q", text, s.skipped, s.errors)
	}
}

func TestNeed(t *testing.T) {
	const there, gone Feature = 1000, 1001
	features[there], features[gone] = "", "it was never built"
	if why := impossible(); why != "" { // no set-up of this machine could have it
		t.Setenv(E2EEnv, "1")
		skips(t, why, func(t testing.TB) { NeedE2E(t) })
		skips(t, "never built", func(t testing.TB) { Need(t, there, gone) })
		return
	}
	t.Setenv(E2EEnv, "")
	Need(t, there)
	skips(t, "never built", func(t testing.TB) { Need(t, there, gone) })
	skips(t, E2EEnv, func(t testing.TB) { NeedE2E(t, there) })
	t.Setenv(E2EEnv, "1")
	Need(t, there)
	NeedE2E(t, there)
	fails(t, "never built", func(t testing.TB) { Need(t, there, gone) })
	fails(t, "never built", func(t testing.TB) { NeedE2E(t, gone) })
}

func TestFeaturesHaveNames(t *testing.T) {
	for f := Linux; f <= FileEnd; f++ {
		why := Missing(f)
		t.Logf("%-20v %s", f, either(why == "", "there", why))
		if strings.HasPrefix(f.String(), "Feature(") || why == "unknown feature" {
			t.Errorf("%d has no name or no check", int(f))
		}
	}
	if int(FileEnd) != len(featureNames)-1 {
		t.Error("the names are out of step")
	}
}
