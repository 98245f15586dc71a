package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"gateway/config"
	"gateway/internal/gateway"
)

// A snippet is a configuration that users are shown.
type snippet struct {
	place string // file:line
	text  string
}

// shown returns every configuration in README, docs/ and examples/, and the packaged one, both as it
// stands and with its examples uncommented.
func shown(t *testing.T) []snippet {
	t.Helper()
	root := filepath.Join("..", "..")
	var all []snippet
	read := func(path string) string {
		b, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, doc := range markdown(t, root) {
		for _, s := range fenced(read(doc), "toml") {
			s.place = doc + s.place
			all = append(all, s)
		}
	}
	examples, err := filepath.Glob(filepath.Join(root, "examples", "*.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range examples {
		name := filepath.Join("examples", filepath.Base(e))
		all = append(all, snippet{name, read(name)})
	}
	const packaged = "internal/service/gateway.toml"
	text := read(packaged)
	// A # right before a character is a key or a table switched off; prose has a space between.
	on := regexp.MustCompile(`(?m)^#(\S|  )`).ReplaceAllString(text, "$1")
	if on == text {
		t.Fatal("the packaged configuration shows nothing")
	}
	return append(all, snippet{packaged, text}, snippet{packaged + " with its examples", on})
}

// markdown returns the names of README and of all of docs/.
func markdown(t *testing.T, root string) []string {
	t.Helper()
	names := []string{"README.md"}
	err := fs.WalkDir(os.DirFS(root), "docs", func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".md") {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// fenced returns the code blocks of a language; the place of each is ":" and its first line.
func fenced(text, language string) []snippet {
	var all []snippet
	var block *snippet
	n := 0
	for line := range strings.Lines(text) {
		n++
		switch fence := strings.TrimSpace(line); {
		case block == nil && fence == "```"+language:
			block = &snippet{place: ":" + strconv.Itoa(n+1)}
		case block != nil && fence == "```":
			all = append(all, *block)
			block = nil
		case block != nil:
			block.text += line
		}
	}
	return all
}

// Every configuration that is shown can be used: a reader who copies it gets no error.
func TestShownConfigurationsCanBeUsed(t *testing.T) {
	all := shown(t)
	for _, s := range all {
		path := filepath.Join(t.TempDir(), "gateway.toml")
		if err := os.WriteFile(path, []byte(s.text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, problems := config.Load(path)
		if cfg != nil && !problems.Failed() {
			gateway.Check(cfg, path)
		}
		if problems.Failed() {
			t.Errorf("%s:\n%v\n%s", s.place, problems, s.text)
		}
	}
	if len(all) < 6 {
		t.Fatalf("only %d configurations found", len(all))
	}
}

// Messages and policies that are shown are JSON.
func TestShownJSONIsJSON(t *testing.T) {
	root := filepath.Join("..", "..")
	seen := 0
	for _, doc := range markdown(t, root) {
		b, err := os.ReadFile(filepath.Join(root, doc))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range fenced(string(b), "json") {
			seen++
			var v any
			if err := json.Unmarshal([]byte(s.text), &v); err != nil {
				t.Errorf("%s%s: %v", doc, s.place, err)
			}
		}
	}
	if seen < 3 {
		t.Fatalf("only %d found", seen)
	}
}

// Every key that the configuration knows is in the documentation, and every table in the reference.
func TestConfigurationReferenceIsComplete(t *testing.T) {
	root := filepath.Join("..", "..", "docs")
	text := ""
	for _, name := range []string{"configuration.md", "serial.md", "i2c.md"} {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		text += string(b)
	}
	known := 0
	var walk func(table string, s reflect.Type)
	walk = func(table string, s reflect.Type) {
		for i := range s.NumField() {
			f := s.Field(i)
			elem := f.Type
			for elem.Kind() == reflect.Pointer || elem.Kind() == reflect.Slice {
				elem = elem.Elem()
			}
			nested := elem.Kind() == reflect.Struct && elem.PkgPath() == s.PkgPath()
			key := f.Tag.Get("toml")
			if key == "" {
				if f.Anonymous && nested {
					walk(table, elem)
				}
				continue
			}
			known++
			named := regexp.MustCompile("[`{ ,]" + key + "[`.]|\\b" + key + " = |\\[\\[?" + strings.TrimPrefix(table+"."+key, "."))
			if !named.MatchString(text) {
				t.Errorf("nothing is said of the key %s of [%s]", key, table)
			}
			if nested && elem.Name() != "Place" {
				walk(strings.TrimPrefix(table+"."+key, "."), elem)
			}
		}
	}
	walk("", reflect.TypeFor[config.Config]())
	if known < 100 {
		t.Fatalf("only %d keys found", known)
	}
}

// Every use of the program that is shown is one that it understands: the command is there, and its
// help names the flags.
func TestShownCommandsExist(t *testing.T) {
	use := regexp.MustCompile(`(?m)(?:^|&& |\.\/)(?:sudo )?(?:\./)?gateway ([a-z0-9]+)([^\n#|&]*)`)
	flag := regexp.MustCompile(`\s--?([a-z][a-z-]*)`)
	root := filepath.Join("..", "..")
	seen := 0
	for _, doc := range markdown(t, root) {
		b, err := os.ReadFile(filepath.Join(root, doc))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range fenced(string(b), "sh") {
			for _, m := range use.FindAllStringSubmatch(s.text, -1) {
				seen++
				name, rest := m[1], m[2]
				var out, errs strings.Builder
				words := []string{name}
				if sub := strings.Fields(rest); len(sub) > 0 && regexp.MustCompile(`^[a-z]+$`).MatchString(sub[0]) {
					words = append(words, sub[0])
				}
				// A command with commands of its own has a help for each; another takes the word for an argument.
				code := Main(t.Context(), streams{strings.NewReader(""), &out, &errs}, append(words, "--help"))
				if code != exitOK {
					out.Reset()
					code = Main(t.Context(), streams{strings.NewReader(""), &out, &errs}, []string{name, "--help"})
				}
				if code != exitOK {
					t.Errorf("%s%s: gateway %s: exit %d: %s", doc, s.place, name, code, errs.String())
					continue
				}
				for _, f := range flag.FindAllStringSubmatch(rest, -1) {
					if !strings.Contains(out.String(), "-"+f[1]) {
						t.Errorf("%s%s: gateway %s%s: the help does not tell of --%s", doc, s.place, name, rest, f[1])
					}
				}
			}
		}
	}
	if seen < 10 {
		t.Fatalf("only %d uses found", seen)
	}
}
