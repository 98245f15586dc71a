package conformance

import (
	"bufio"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/uncovered.txt anew")

// A statement is a row of a table.
type statement struct {
	version, id string
	side        string // c, s or b
	same        string // 3.1.1 only: the statement of 5.0 that asks for the same, or -
	text        string
}

func (s statement) name() string { return s.version + " " + s.id }

func readTable(t *testing.T, version string) []statement {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "statements-"+version+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []statement
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line := sc.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		s := statement{version: version, same: "-"}
		var rest string
		s.id, rest, _ = strings.Cut(line, " ")
		s.side, rest, _ = strings.Cut(rest, " ")
		if version != "5.0" {
			s.same, rest, _ = strings.Cut(rest, " ")
		}
		if s.text = rest; s.text == "" || !strings.Contains("csb", s.side) {
			t.Fatalf("%s: bad row %q", version, line)
		}
		out = append(out, s)
	}
	return out
}

var citation = regexp.MustCompile(`MQTT-\d+\.\d+\.\d+-\d+( of 3\.1\.1)?`)

// citations returns the tests that cite each statement, by the statement's name.
func citations(t *testing.T, roots ...string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") || filepath.Base(path) == "statements_test.go" {
				return err
			}
			return cite(path, found)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func cite(path string, found map[string][]string) error {
	src, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, path, src, parser.ParseComments)
	if err != nil {
		return err
	}
	text := func(from, to token.Pos) string {
		return string(src[files.Position(from).Offset:files.Position(to).Offset])
	}
	tables := map[string]string{} // by the name of the variable
	for _, d := range f.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
			for _, spec := range g.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					tables[name.Name] = text(g.Pos(), g.End())
				}
			}
		}
	}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Test") && !strings.HasPrefix(fn.Name.Name, "Fuzz") {
			continue
		}
		from := fn.Pos()
		if fn.Doc != nil {
			from = fn.Doc.Pos()
		}
		cited := text(from, fn.End())
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				cited += tables[id.Name]
			}
			return true
		})
		test := filepath.ToSlash(filepath.Dir(path)) + "." + fn.Name.Name
		test = strings.TrimLeft(test, "./")
		for _, id := range citation.FindAllString(cited, -1) {
			name := "5.0 " + id
			if old, ok := strings.CutSuffix(id, " of 3.1.1"); ok {
				name = "3.1.1 " + old
			}
			if !slices.Contains(found[name], test) {
				found[name] = append(found[name], test)
			}
		}
	}
	return nil
}

// TestStatements walks the tables and names the tests of each statement.
func TestStatements(t *testing.T) {
	five, old := readTable(t, "5.0"), readTable(t, "3.1.1")
	found := citations(t, "..", "../../e2e/mqttclient", "../../internal/brokerstore")
	known := map[string]bool{}
	for _, s := range slices.Concat(five, old) {
		if known[s.name()] {
			t.Errorf("%s is there twice", s.name())
		}
		known[s.name()] = true
	}
	for name, tests := range found {
		if !known[name] {
			t.Errorf("%v cite %s, which no table has", tests, name)
		}
	}
	for version, n := range map[string][2]int{"5.0": {len(five), 251}, "3.1.1": {len(old), 138}} {
		if n[0] != n[1] {
			t.Errorf("%s: the table has %d statements, the specification %d", version, n[0], n[1])
		}
	}
	excused := readUncovered(t)
	for name := range excused {
		if !known[name] {
			t.Errorf("uncovered.txt has %s, which no table has", name)
		}
	}
	var report, uncovered strings.Builder
	covered := map[string]int{}
	total := map[string]int{}
	for _, s := range slices.Concat(five, old) {
		if s.same != "-" && !known["5.0 "+s.same] {
			t.Errorf("%s: there is no %s in 5.0", s.name(), s.same)
		}
		tests := found[s.name()]
		if s.same != "-" {
			tests = slices.Concat(tests, found["5.0 "+s.same])
		}
		key := fmt.Sprintf("%s, side %s", s.version, s.side)
		total[key]++
		if len(tests) > 0 {
			covered[key]++
			if excused[s.name()] && !*update {
				t.Errorf("%s is covered by %s; take it out of uncovered.txt (-update), so that it stays covered", s.name(), tests[0])
			}
			fmt.Fprintf(&report, "%s %s: %s\n", s.name(), s.side, strings.Join(tests, ", "))
			continue
		}
		fmt.Fprintf(&report, "%s %s: NO TEST: %s\n", s.name(), s.side, s.text)
		fmt.Fprintf(&uncovered, "%s %s %s\n", s.name(), s.side, s.text)
		if !excused[s.name()] && !*update {
			t.Errorf("%s (%s) has no test any more", s.name(), s.text)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(total)) {
		fmt.Fprintf(&report, "%s: %d of %d statements are cited by tests\n", key, covered[key], total[key])
	}
	t.Log("\n" + report.String())
	if *update {
		if err := os.WriteFile(filepath.Join("testdata", "uncovered.txt"), []byte(uncovered.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func readUncovered(t *testing.T) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "uncovered.txt"))
	if err != nil && !*update {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 {
			out[f[0]+" "+f[1]] = true
		}
	}
	return out
}
