package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestBytesAreTextWithEscapesOrHexadecimalDigits(t *testing.T) {
	for text, want := range map[string]string{
		`abc`:          "abc",
		`\r\n\t\0\\`:   "\r\n\t\x00\\",
		`\x02A\xff`:    "\x02A\xff",
		"raw\r\n":      "raw\r\n",
		`hex:02 41 ff`: "\x02A\xff",
		`hex:0241FF`:   "\x02A\xff",
		`{address}M!`:  "{address}M!",
		`hex:0`:        "error",
		`hex:zz`:       "error",
		`\`:            "error",
		`\q`:           "error",
		`\x2`:          "error",
		`\xzz`:         "error",
	} {
		var b Bytes
		got := "error"
		if b.UnmarshalText([]byte(text)) == nil {
			got = string(b)
		}
		if got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestASerialTableHasItsDefaults(t *testing.T) {
	cfg, p := Parse("gateway.toml", `
[[serial]]
name = "a"
port = "/dev/ttyUSB0"
frame = { line = '\r\n', checksum = { type = "xor", as = "hex", from = 1 } }

  [[serial.device]]
  name = "talks"
  match = '(?P<x>.)'

  [[serial.device]]
  name = "talks-often"
  match = '(?P<x>.)'
  interval = "10s"

  [[serial.device]]
  name = "asked"
  send = '\x05'
  match = '(?P<x>.)'
  points = [{ name = "x", sentinels = ["--", 9999] }]
`)
	if p.String() != "" {
		t.Fatal(p)
	}
	s := cfg.Serial[0]
	if s.Baud != 9600 || s.DataBits != 8 || s.Parity != "none" || s.StopBits != 1 {
		t.Errorf("%+v", s)
	}
	if string(s.Frame.Line) != "\r\n" || *s.Frame.Checksum != (SerialChecksum{Type: "xor", As: "hex", From: 1}) {
		t.Errorf("%+v", s.Frame)
	}
	for i, want := range [][2]time.Duration{{0, 5 * time.Minute}, {10 * time.Second, 30 * time.Second}, {10 * time.Second, time.Second}} {
		if d := s.Devices[i]; d.Interval != want[0] || d.Timeout != want[1] {
			t.Errorf("%s: %v, %v", d.Name, d.Interval, d.Timeout)
		}
	}
	x := s.Devices[2].Points[0]
	if x.Scale != 1 || x.Field != "x" || !slices.Equal(x.Sentinels, Words{"--", "9999"}) {
		t.Errorf("%+v", x)
	}
}

func TestWhatIsWorthReportingOfASerialPoint(t *testing.T) {
	cfg, p := Parse("gateway.toml", `
[[serial]]
name = "a"
port = "/dev/ttyUSB0"
heartbeat = "1h"

  [[serial.device]]
  name = "scale"
  match = '(?P<weight>.)(?P<count>.)'
  on_change = true

    [[serial.device.message]]
    match = 'x(?P<x>.)'
    points = [{ name = "x", deadband = 0.5 }, { name = "y", field = "x", deadband = -1 }]
`)
	if s := p.String(); !strings.Contains(s, `point "y": deadband`) || strings.Count(s, "\n") != 1 {
		t.Error(s)
	}
	exact := func(pattern, name string) bool { return pattern == name }
	x := cfg.Reporting().Of("scale", "x", exact)
	if *x.Heartbeat != time.Hour || !*x.OnChange || x.Deadband.Absolute != 0.5 {
		t.Errorf("%+v", x)
	}
	if w := cfg.Reporting().Of("scale", "weight", exact); *w.Heartbeat != time.Hour || !*w.OnChange || w.Deadband != nil {
		t.Errorf("%+v", w)
	}
}

// A key in a serial table alone was checked, and then not heeded: nothing was filtered.
func TestASerialTableAloneMakesReportsByException(t *testing.T) {
	const table = `
[[serial]]
name = "a"
port = "/dev/ttyUSB0"
%s
  [[serial.device]]
  name = "scale"
  %s
    [[serial.device.message]]
    match = 'x(?P<x>.)'
    points = [{ name = "x"%s }]
`
	for _, c := range []struct {
		bus, device, point string
		want               bool
	}{
		{"", "", "", false},
		{`heartbeat = "1h"`, "", "", true},
		{"", "on_change = true", "", true},
		{"", "", ", deadband = 0.5", true},
	} {
		cfg, p := Parse("gateway.toml", fmt.Sprintf(table, c.bus, c.device, c.point))
		if s := p.String(); s != "" {
			t.Error(s)
		}
		if got := cfg.Reporting() != nil; got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestASerialTableIsCheckedWithItsLines(t *testing.T) {
	got := problems(`
[[serial]]
name = "nowhere"

[[serial]]
name = "twice"
port = "/dev/ttyUSB0"
address = "10.0.0.1"
baud = 9600
pause = "1h"

  [[serial.device]]
  name = "a"
  match = '(?P<x>.)'
  wait = "1s"
  interval = "1ms"

  [[serial.device]]
  name = "b"
  send = "x"
  timeout = "0s"
  address = "7"
  points = [{ name = "x" }, { name = "x", min = 2, max = 1 }]
`)
	for _, want := range []string{
		`2: serial "nowhere": where is it?`,
		`2: serial "nowhere": has no device`,
		`5: serial "twice": port, usb and address each say where it is`,
		`10: serial "twice": pause 1h0m0s: must be from 0s to 1m`,
		`15: serial "twice", device "a": wait is for a device that is asked`,
		`16: serial "twice", device "a": interval 1ms: must be at least 10ms`,
		`21: serial "twice", device "b": timeout 0s: must be positive`,
		`22: warning: serial "twice", device "b": nothing in this table uses the address`,
		`the point name "x" is taken already in line 23; point names are unique within a device`,
		`the valid range is empty: min 2 is above max 1`,
	} {
		if !slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, want) }) {
			t.Errorf("%q is not said in\n%s", want, strings.Join(got, "\n"))
		}
	}
}

func TestAnAddressThatCannotBeDialledIsNamed(t *testing.T) {
	for address, want := range map[string]string{
		":502":            "the host is missing",
		"10.0.0.1:":       `port "": 1 to 65535 are possible`,
		"10.0.0.1:0":      `port "0": 1 to 65535`,
		"10.0.0.1:70000":  `port "70000": 1 to 65535`,
		"10.0.0.1:modbus": `port "modbus": 1 to 65535`,
	} {
		for _, table := range []string{"modbus", "serial"} {
			got := problems("[[" + table + "]]\nname = \"a\"\naddress = \"" + address + "\"\n")
			if !slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, want) }) {
				t.Errorf("%s at %s: %q is not said in\n%s", table, address, want, strings.Join(got, "\n"))
			}
		}
	}
}
