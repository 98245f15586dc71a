package gateway

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"gateway/config"
)

// What docs/i2c.md tells users to write must be a configuration without problems, but for a bus that
// this machine lacks.
func TestTheSnippetsOfTheI2CDocumentation(t *testing.T) {
	page, err := os.ReadFile("../../docs/i2c.md")
	if err != nil {
		t.Fatal(err)
	}
	snippets := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(snippets) < 4 {
		t.Fatalf("%d snippets", len(snippets))
	}
	for i, s := range snippets {
		cfg, problems := config.Parse("docs/i2c.md", s[1])
		if !problems.Failed() {
			Check(cfg, "gateway.toml")
		}
		for line := range strings.Lines(problems.String()) {
			if !strings.Contains(line, "is not there today") {
				t.Errorf("snippet %d: %s", i+1, line)
			}
		}
	}
}
