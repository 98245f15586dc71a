package config

import (
	"strings"
	"testing"
	"time"
)

// problems parses a file and returns what is wrong with it, a line each.
func problems(src string) []string {
	_, p := Parse("gateway.toml", src)
	text := strings.TrimSuffix(p.String(), "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

func TestAnEmptyFileIsAGatewayWithItsDefaults(t *testing.T) {
	cfg, p := Parse("gateway.toml", "")
	if p.String() != "" {
		t.Fatalf("problems: %s", p)
	}
	if cfg.Queue.MaxBytes != 1<<30 || cfg.Queue.Sync.Window != time.Second || !cfg.Broker.Enabled {
		t.Errorf("got %+v", cfg)
	}
}

// A Unix socket is named with or without slashes before its path.
func TestAUnixSocketIsAURL(t *testing.T) {
	for _, url := range []string{"unix:/run/mosquitto.sock", "unix:///run/mosquitto.sock"} {
		if got := problems("[[destination]]\nname = \"c\"\nurl = \"" + url + "\"\n"); len(got) > 0 {
			t.Errorf("%s: %q", url, got)
		}
	}
}

// What no socket can be called is refused before anything starts: a path that is not absolute, or longer than the
// kernel takes.
func TestAUnixSocketThatCannotBeIsRefused(t *testing.T) {
	long := "/" + strings.Repeat("x", 107)
	for path, want := range map[string]string{
		"run/mqtt.sock":   "a Unix socket is unix: and an absolute path",
		"//run/mqtt.sock": "a Unix socket is unix: and an absolute path",
		long:              "the path of a Unix socket has at most 107 bytes, and this one has 108",
	} {
		got := problems("[broker]\nlisten = [\"unix:" + path + "\"]\n[[destination]]\nname = \"c\"\nurl = \"unix:" + path + "\"\n")
		if len(got) != 2 || !strings.Contains(got[0], want) || !strings.Contains(got[1], want) {
			t.Errorf("%s: %q", path, got)
		}
	}
	if got := problems("[broker]\nlisten = [\"unix:" + long[:107] + "\"]\n"); len(got) > 0 {
		t.Errorf("107 bytes: %q", got)
	}
}

// What people try that know other programs is answered with what to write instead.
func TestWhatPeopleTryIsAnsweredWithTheMend(t *testing.T) {
	bus := "[[modbus]]\nname = \"m\"\nport = \"/dev/null\"\n[[modbus.device]]\nname = \"d\"\nunit = 1\n"
	for _, c := range []struct{ name, src, want string }{
		{"a device without its bus", "\n[[device]]\nname = \"d\"\n", `gateway.toml:2: unknown key "device"; a device stands below its bus, as [[modbus.device]]`},
		{"a password", "[[destination]]\nname = \"c\"\nurl = \"mqtt://h\"\npassword = \"p\"\n", `gateway.toml:4: destination "c": unknown key "password"; a password does not stand here but in a file, which password_file names, or in a variable of the environment, which password_env names`},
		{"a password in two places", "[[destination]]\nname = \"c\"\nurl = \"mqtt://h\"\npassword_file = \"p\"\npassword_env = \"P\"\n", `gateway.toml:5: destination "c": password_file and password_env both name the password; keep one of them`},
		{"a host for a url", "[[destination]]\nname = \"c\"\nurl = \"example.com:8883\"\n", `url "example.com:8883" does not say how to connect; write mqtt://example.com:8883, or mqtts://example.com:8883 with TLS`},
		{"another client's scheme", "[[destination]]\nname = \"c\"\nurl = \"ssl://h:8883\"\n", `url scheme "ssl" is not known; use mqtts`},
		{"a backslash in double quotes", "a = \"\\d\"\n", `gateway.toml:1: not TOML: invalid escape in string '\d'; write text that has backslashes in single quotes`},
		{"a profile without its maker", bus + "profile = \"sdm630\"\n", `there is no profile "sdm630"; did you mean "eastron-sdm630"?`},
		{"a point that no profile has", bus + "profile = \"eastron-sdm630\"\nonly = [\"temperature\"]\n", `has no point "temperature"; 'gateway modbus profiles eastron-sdm630' lists those that there are`},
	} {
		if got := strings.Join(problems(c.src), "\n"); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestEverythingWrongIsReportedAtOnceWithItsLine(t *testing.T) {
	got := problems(`[gateway]
id = 7
nane = "x"

[queue]
max_bytes = "1 GiBi"
sync = "never"

[[destination]]
nmae = "cloud"
window = -1
devices = "all"

  [[modbus]]
  name = "meters"
  address = "127.0.0.1:502"

    [[modbus.device]]
    name = "boiler"
    unit = 300
    points = [ { name = "a", input = 1 } ]

    [[modbus.device]]
    name = "pump"
    unit = 2
    points = [ { name = "a", input = 1 } ]
    names = [ "a",
       "b" ]
`)
	want := []string{
		`gateway.toml:2: gateway: id is the number 7, must be a string`,
		`gateway.toml:3: gateway: unknown key "nane"`,
		`gateway.toml:6: queue: max_bytes: the string "1 GiBi" is not a size`,
		`gateway.toml:7: queue: sync: the string "never" is neither`,
		`gateway.toml:10: destination number 1: unknown key "nmae"; did you mean "name"?`,
		`gateway.toml:11: destination number 1: window`,
		`gateway.toml:12: destination number 1: devices is the string "all", must be a list`,
		`gateway.toml:20: modbus "meters", device "boiler": unit 300`,
		`gateway.toml:27: modbus "meters", device "pump": unknown key "names"; did you mean "name"?`,
	}
	if len(got) != len(want) {
		t.Fatalf("got %d problems:\n%s", len(got), strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("got  %s\nwant %s", got[i], want[i])
		}
	}
}

func TestNamesAreUniqueAndFitForTopics(t *testing.T) {
	got := problems(`
[[modbus]]
name = "meters"
address = "127.0.0.1:502"
[[modbus.device]]
name = "boiler"
[[i2c]]
name = "meters"
[[i2c.device]]
name = "boiler"
chip = "bme280"
[[i2c.device]]
name = "gateway"
[[i2c.device]]
name = "a/b"
`)
	text := strings.Join(got, "\n")
	for _, want := range []string{
		`gateway.toml:8: i2c "meters": the bus name "meters" is taken already in line 3`,
		`gateway.toml:10: i2c "meters", device "boiler": the device name "boiler" is taken already in line 6`,
		`gateway.toml:13: i2c "meters", device "gateway": the device name "gateway" is the gateway's own`,
		`gateway.toml:15: i2c "meters", device "a/b": name "a/b" cannot be a level of a topic`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("missing: %s\nin:\n%s", want, text)
		}
	}
}

func TestAFileThatIsNotTOMLNamesTheLine(t *testing.T) {
	got := problems("[gateway]\nid = \n")
	if len(got) != 1 || !strings.HasPrefix(got[0], "gateway.toml:2: not TOML: ") {
		t.Errorf("got %q", got)
	}
}

func TestAMissingFileSaysSo(t *testing.T) {
	_, p := Load("/nonexistent/gateway.toml")
	if got := p.String(); got != "/nonexistent/gateway.toml: there is no such file; name yours with --config FILE\n" {
		t.Errorf("got %q", got)
	}
}

func TestLinesOfKeysInEveryNotation(t *testing.T) {
	lines := keyLines(`# comment with [brackets] = "x"
[a]
b.c = """
two
lines ] } """
"quoted key" = 'x # y'
[[list]]
k = [ # comment
  { x = 1, y = "}" },
  { x = [1, 2],
    y = 2 },
]
[[list]]
[[list.inner]]
z = 1979-05-27T07:32:00Z
[list.table]
w = -1.5e3
`)
	for path, want := range map[string]int{
		"a": 2, "a.b.c": 3, "a.quoted key": 6, "list.0": 7, "list.0.k": 8, "list.0.k.0.x": 9,
		"list.0.k.1.y": 11, "list.1": 13, "list.1.inner.0.z": 15, "list.1.table.w": 17,
	} {
		if lines[path] != want {
			t.Errorf("%s: line %d, want %d", path, lines[path], want)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{"1 GiB": 1 << 30, "64KiB": 64 << 10, "10 MB": 10e6, "512": 512, "1.5 MiB": 3 << 19, "7 B": 7} {
		var s Size
		if err := s.fromTOML(text); err != nil || s != want {
			t.Errorf("%q: %d, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "GiB", "-1 KiB", "1e30 TiB", "NaN"} {
		var s Size
		if err := s.fromTOML(text); err == nil {
			t.Errorf("%q was taken for %d bytes", text, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[gateway]\nid = \"x\"\n[[modbus]]\nname = \"m\"\n[[modbus.device]]\nname=\"d\"\npoints = [{name=\"p\"}]\n")
	f.Add("a.b.\"c d\" = { x = [1, {y = 2}], z = '''q''' }")
	f.Fuzz(func(t *testing.T, src string) {
		_, p := Parse("f", src) // neither panics nor hangs, whatever the text
		_ = p.String()
	})
}
