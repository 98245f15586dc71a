package gateway

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gateway/config"
)

// checked returns all that `gateway check` would print of a file.
func checked(t *testing.T, toml string) string {
	t.Helper()
	cfg, problems := config.Parse("gateway.toml", toml)
	if cfg != nil {
		Check(cfg, "gateway.toml")
	}
	return problems.String()
}

func TestAPatternThatFitsNoDeviceIsAWarning(t *testing.T) {
	toml := modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1 }`) + `
[[destination]]
name = "cloud"
url = "mqtt://127.0.0.1:1884"
devices = ["d*", "gateway", "boilr"]
  [[destination.rule]]
  devices = ["e"]
  qos = 2
[[report]]
devices = ["f"]
heartbeat = "1h"
`
	got := checked(t, toml)
	for _, want := range []string{
		`warning: destination "cloud": devices: no device is called "boilr"`,
		`warning: destination "cloud", rule number 1: devices: no device is called "e"`,
		`warning: report number 1: devices: no device is called "f"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q has no %q", got, want)
		}
	}
	if n := strings.Count(got, "no device is called"); n != 3 {
		t.Errorf("%d warnings instead of 3: %s", n, got)
	}
}

func TestAllThatIsWrongWithADestinationIsReportedAtOnce(t *testing.T) {
	got := checked(t, `
[[destination]]
name = "cloud"
url = "mqtt://127.0.0.1:1884"
format = "jsn"
topic = "{gateway}/#"
compression = "zip"
  [[destination.rule]]
  devices = ["*"]
  topic = "{devce}"
`)
	for line, want := range map[string]string{":5:": `no such format "jsn"`, ":6:": "the wildcards + and #", ":7:": `"zip"`, ":10:": "devce"} {
		if !slices.ContainsFunc(strings.Split(got, "\n"), func(s string) bool { return strings.Contains(s, line) && strings.Contains(s, want) }) {
			t.Errorf("%s has no %q in line %s", got, want, line)
		}
	}
}

// Who checks may not be who runs the service: what cannot be read here is a warning.
func TestFilesOfTheBrokerThatCannotBeUsedAreWarnings(t *testing.T) {
	list := filepath.Join(t.TempDir(), "acl")
	if err := os.WriteFile(list, []byte("topik read a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := checked(t, `
[broker]
listen = ["mqtts://127.0.0.1:0"]
password_file = "/nonexistent/passwords"
acl_file = "`+list+`"
certificate_file = "/nonexistent/c.pem"
key_file = "/nonexistent/k.pem"
`)
	for _, want := range []string{
		"gateway.toml:4: warning: broker: password_file: guard: stat /nonexistent/passwords",
		"gateway.toml:5: warning: broker: acl_file: guard: " + list + `: line 1: "topik"`,
		"gateway.toml:6: warning: broker: certificate_file: guard: stat /nonexistent/c.pem",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q has no %q", got, want)
		}
	}
	if strings.Count(got, "\n") != 3 {
		t.Error(got)
	}
}

// What is only a consequence of a fault that is reported is not reported beside it.
func TestOneFaultIsReportedOnce(t *testing.T) {
	for _, c := range []struct{ name, toml, want string }{
		{"unknown profile", modbusTable(`port = "/dev/null"`, `profile = "eastron-sdm63"`, ""), "there is no profile"},
		{"name given twice", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1 }, { name = "x", holding = 2 }`), "taken already"},
		{"element of an array named like a point", modbusTable(tcp, "unit = 1", `{ name = "x", holding = 1, count = 2 }, { name = "x_1", holding = 9 }`), "element of an array"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := checked(t, c.toml); !strings.Contains(got, c.want) || strings.Count(got, "\n") != 1 {
				t.Errorf("wanted %q alone: %s", c.want, got)
			}
		})
	}
}

func TestAProfileMayNameTheUnitThatItsDevicesLeaveTheFactoryWith(t *testing.T) {
	dir := t.TempDir()
	profile := "title = 'a'\nsource = 'x'\npoints = [{ name = 'p', holding = 1 }]\n[line]\nunit = 7\n"
	if err := os.WriteFile(filepath.Join(dir, "meter.toml"), []byte(profile), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, problems := config.Parse("gateway.toml", "[gateway]\nprofiles = '"+dir+"'\n"+modbusTable(`port = "/dev/null"`, `profile = "meter"`, ""))
	if problems.Failed() {
		t.Fatal(problems)
	}
	if unit := cfg.Modbus[0].Devices[0].Unit; unit != 7 {
		t.Errorf("unit %d, the profile says 7", unit)
	}
}
