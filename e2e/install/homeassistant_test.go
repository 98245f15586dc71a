package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gateway/e2e/rig"
)

// What docs/home-assistant.md shows is rendered as Home Assistant does it, by Jinja, for messages as the
// gateway publishes them. A template that gives nothing leaves the sensor as it is.
func TestHomeAssistantTemplates(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(rig.Root(), "docs", "home-assistant.md"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(rig.Python(t), "-c", `
import jinja2, json, re, sys, yaml
doc = sys.stdin.read()
templates = []
def find(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "value_template": templates.append(value)
            else: find(value)
    elif isinstance(node, list):
        for item in node: find(item)
for kind, text in re.findall(r"^`+"```"+`(yaml|json)\n(.*?)^`+"```"+`", doc, re.M | re.S):
    find(yaml.safe_load(text) if kind == "yaml" else json.loads(text))
for payload in (
    '{"values":{"supply_temperature":71.2,"pump":true}}',
    '{"values":{"supply_temperature":71.2,"pump":false}}',
    '{"values":{},"bad":{"supply_temperature":"timeout","pump":"timeout"}}',
    '{"values":{"supply_temperature":71.2,"pump":true},"historical":true}',
):
    print([jinja2.Environment().from_string(t).render(value_json=json.loads(payload)) for t in templates])
`)
	cmd.Stdin = strings.NewReader(string(doc))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v (it takes python3-jinja2 and python3-yaml)\n%s", err, out)
	}
	// The sensor and the binary sensor of the configuration, both again by discovery, and the sensor that
	// keeps out what comes late.
	if want := `['71.2', 'ON', '71.2', 'ON', '71.2']
['71.2', 'OFF', '71.2', 'OFF', '71.2']
['', '', '', '', '']
['71.2', 'ON', '71.2', 'ON', '']
`; string(out) != want {
		t.Errorf("rendered\n%swant\n%s", out, want)
	}
}
