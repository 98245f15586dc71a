package board

import (
	"slices"
	"strings"
	"testing"

	"gateway/e2e/rig"
)

// A Step is a use of one of the gateway's tools, and texts that its output must have, each within a
// line; "exit N" is the exit code.
type Step struct {
	Name, Command string
	Want          []string
}

// Script has the board run `gateway TOOL COMMAND` for each step.
func Script(tool string, steps []Step) string {
	script := "sleep 1\n"
	for _, s := range steps {
		script += "echo '== " + s.Name + "'; gateway " + tool + " " + s.Command + " 2>&1; echo exit $?\n"
	}
	return script + "echo '== end'"
}

// Check waits until the script has run and fails the test for each step that said something else.
func (b *Board) Check(t testing.TB, tool string, steps []Step) {
	t.Helper()
	b.Console.Await(t, Patience, "the end of the script", rig.HasLine("== end"))
	lines := b.Console.Lines()
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], "\r ")
	}
	for _, s := range steps {
		from := slices.Index(lines, "== "+s.Name)
		if from < 0 {
			t.Errorf("%s did not run", s.Name)
			continue
		}
		out := lines[from+1:]
		if to := slices.IndexFunc(out, func(l string) bool { return strings.HasPrefix(l, "== ") }); to >= 0 {
			out = out[:to]
		}
		for _, want := range s.Want {
			if !slices.ContainsFunc(out, func(l string) bool { return strings.Contains(l, want) }) {
				t.Errorf("gateway %s %s: no line with %q in\n%s", tool, s.Command, want, strings.Join(out, "\n"))
			}
		}
	}
	if t.Failed() {
		t.Log(strings.Join(lines, "\n"))
	}
}
