// Package archtest holds the rules about who may import whom.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// layer returns how high a package stands: imports run from higher to lower numbers, or stay within
// one room of the same layer.
func layer(path string) (level int, room string) {
	path = strings.TrimPrefix(path, "gateway/")
	top, rest, _ := strings.Cut(path, "/")
	switch {
	case top == "cmd":
		return 6, "cmd"
	case path == "internal/demo":
		return 5, path
	case path == "internal/gateway":
		return 4, path
	case top == "internal":
		return 3, "internal"
	case path == "adapters" || path == "mqtt" || path == "mqtt/packet" || path == "adapters/decode" || path == "adapters/hint" || path == "adapters/port":
		// The leaves that a room shares within itself.
		return 0, top
	case top == "config" || top == "buffer" || top == "systemd":
		return 2, top
	case top == "adapters" || top == "mqtt":
		sub, _, _ := strings.Cut(rest, "/")
		return 1, top + "/" + sub
	}
	return 7, path
}

// mayImport tells whether the import from one package of the module to another keeps the rule.
func mayImport(from, to string) bool {
	fl, fr := layer(from)
	tl, tr := layer(to)
	if fr == tr {
		return true
	}
	// Only the wiring, and the commands above it, read the configuration.
	if tr == "config" {
		return fl >= 4
	}
	// buffer and systemd know nobody: plain bytes, plain files. config is plain data and may ask the
	// leaves what a type or a topic filter looks like.
	if fl == 2 {
		return fr == "config" && tl == 0
	}
	// The simulated devices may be built from the adapters' own codecs; the conformance suite too.
	if fr == "adapters/sim" || fr == "adapters/adapterstest" {
		return strings.HasPrefix(to, "gateway/adapters")
	}
	// Below the rooms only their own leaves: adapters do not know mqtt, nor the reverse.
	if fl <= 1 {
		return tl < fl && strings.SplitN(fr, "/", 2)[0] == tr
	}
	return tl < fl
}

type pkg struct {
	ImportPath string
	Imports    []string
}

func TestImportsRunOneWay(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "gateway/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	seen := 0
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, "gateway/") && !mayImport(p.ImportPath, imp) {
				t.Errorf("%s must not import %s", p.ImportPath, imp)
			}
		}
	}
	if seen < 2 {
		t.Fatalf("go list saw only %d packages", seen)
	}
}

func TestTheRuleItself(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"gateway/cmd/gateway", "gateway/internal/gateway", true},
		{"gateway/internal/gateway", "gateway/internal/delivery", true},
		{"gateway/internal/delivery", "gateway/buffer", true},
		{"gateway/internal/delivery", "gateway/internal/gateway", false},
		{"gateway/internal/delivery", "gateway/internal/format", true},
		{"gateway/internal/delivery", "gateway/config", false},
		{"gateway/internal/gateway", "gateway/config", true},
		{"gateway/mqtt/client", "gateway/mqtt/packet", true},
		{"gateway/mqtt/packet", "gateway/mqtt", true},
		{"gateway/mqtt/client", "gateway/mqtt/broker", false},
		{"gateway/mqtt/broker", "gateway/buffer", false},
		{"gateway/mqtt/broker", "gateway/config", false},
		{"gateway/adapters/modbus", "gateway/adapters", true},
		{"gateway/adapters/modbus", "gateway/adapters/decode", true},
		{"gateway/adapters/modbus", "gateway/adapters/serial", false},
		{"gateway/adapters/modbus", "gateway/config", false},
		{"gateway/adapters/sim", "gateway/adapters/modbus", true},
		{"gateway/adapters", "gateway/mqtt", false},
		{"gateway/config", "gateway/adapters/decode", true},
		{"gateway/config", "gateway/adapters/i2c", false},
		{"gateway/buffer", "gateway/adapters", false},
	} {
		if got := mayImport(c.from, c.to); got != c.want {
			t.Errorf("mayImport(%s, %s) = %t", c.from, c.to, got)
		}
	}
}
