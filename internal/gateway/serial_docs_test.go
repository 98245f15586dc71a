package gateway

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"gateway/config"
)

// What docs/serial.md tells users to write must be a configuration without problems, but for ports
// that are not there today.
func TestTheSerialPageIsTrue(t *testing.T) {
	page, err := os.ReadFile("../../docs/serial.md")
	if err != nil {
		t.Fatal(err)
	}
	check := func(what, src string) {
		t.Helper()
		cfg, problems := config.Parse("docs/serial.md", src)
		if !problems.Failed() {
			Check(cfg, "gateway.toml")
		}
		for line := range strings.Lines(problems.String()) {
			if !strings.Contains(line, "is not there today") {
				t.Errorf("%s\n%s", line, what)
			}
		}
		for i := range cfg.Serial {
			if _, err := serialOptions(&cfg.Serial[i]); err != nil {
				t.Errorf("%v\n%s", err, what)
			}
		}
	}
	tables := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllSubmatch(page, -1)
	if len(tables) < 7 {
		t.Fatalf("only %d tables found", len(tables))
	}
	for _, m := range tables {
		check(string(m[1]), string(m[1]))
	}
	frames := regexp.MustCompile("(?m)^\\| `(\\{.*?\\})` \\|").FindAllSubmatch(page, -1)
	if len(frames) < 6 {
		t.Fatalf("only %d frames found", len(frames))
	}
	for _, m := range frames {
		check(string(m[1]), "[[serial]]\nname = \"x\"\nport = \"/dev/ttyUSB0\"\nframe = "+string(m[1])+
			"\n[[serial.device]]\nname = \"d\"\nsend = \"x\"\nmatch = '(?P<x>.)'\n")
	}
}
