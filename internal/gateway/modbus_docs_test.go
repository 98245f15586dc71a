package gateway

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"gateway/config"
)

// What docs/modbus.md tells users to write is a configuration without problems, but for ports that
// are not there today.
func TestTheModbusPageIsTrue(t *testing.T) {
	page, err := os.ReadFile("../../docs/modbus.md")
	if err != nil {
		t.Fatal(err)
	}
	snippets := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllSubmatch(page, -1)
	if len(snippets) < 3 {
		t.Fatalf("only %d snippets", len(snippets))
	}
	for _, s := range snippets {
		cfg, problems := config.Parse("docs/modbus.md", "[broker]\nenabled = true\n"+string(s[1]))
		if !problems.Failed() {
			Check(cfg, "docs/modbus.md")
		}
		for line := range strings.Lines(problems.String()) {
			if !strings.Contains(line, "is not there today") {
				t.Errorf("%s\n%s", line, s[1])
			}
		}
	}
}
