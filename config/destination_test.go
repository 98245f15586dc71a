package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// loadText loads a configuration with one device and more.
func loadText(t *testing.T, more string) (*Config, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gateway.toml")
	text := `
[[modbus]]
name = "plc"
address = "127.0.0.1:502"
deadband = 0.5
heartbeat = "1m"
  [[modbus.device]]
  name = "boiler"
  unit = 1
  interval = "1s"
  heartbeat = "10m"
  points = [
    { name = "t", input = 0, deadband = "2%" },
    { name = "raw", input = 1, count = 3, on_change = false },
    { name = "mean", input = 9, aggregate_over = "1m", aggregate = ["min", "mean"] },
  ]
` + more
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, problems := Load(path)
	return cfg, problems.String()
}

func TestDestinationKeysAndDefaults(t *testing.T) {
	cfg, problems := loadText(t, `
[local]
retain = true
[[local.rule]]
points = ["*"]
devices = ["x"]
skip = true

[[destination]]
name = "cloud"
urls = ["mqtts://a:8883", "mqtts://b:8883"]
devices = ["boil*"]
labels = { site = "north" }
format = "value"
topic = "x/{device}/{point}"
expiry = "1h"
batch = { samples = 5 }
max_bytes_per_second = "10 KiB"
[[destination.rule]]
points = ["t"]
qos = 2
retain = true
`)
	if problems != "" {
		t.Fatal(problems)
	}
	l := cfg.LocalDestination()
	if l.Name != "local" || len(l.Addresses()) != 0 || !l.Retain || l.Window != 4096 || l.Order != "oldest-first" || l.QoS != 1 || len(l.Rules) != 1 {
		t.Errorf("local: %+v", l)
	}
	d := cfg.Destinations[0]
	if strings.Join(d.Addresses(), " ") != "mqtts://a:8883 mqtts://b:8883" || d.Window != 64 || d.Order != "oldest-first" || d.QoS != 1 || !d.Properties || !d.RetainSchemas {
		t.Errorf("cloud: %+v", d)
	}
	if d.Batch.Samples != 5 || d.Batch.Bytes != 64<<10 || d.Batch.Wait != time.Second || d.ByteRate != 10<<10 || d.Expiry != time.Hour || *d.Rules[0].QoS != 2 || !*d.Rules[0].Retain {
		t.Errorf("cloud: %+v", d)
	}
}

func TestDestinationProblemsSayWhatToDo(t *testing.T) {
	for more, want := range map[string]string{
		`name = "c"`:                                                                        "has no url",
		"name = \"c\"\nurl = \"http://x\"":                                                  `url scheme "http" is not known`,
		"name = \"c\"\nurl = \"mqtt://u:p@x\"":                                              "credentials",
		"name = \"c\"\nurls = [\"mqtt://a\", \"mqtt://\"]":                                  "names no host",
		"name = \"local\"\nurl = \"mqtt://x\"":                                              "the gateway's own",
		"name = \"c\"\nurl = \"mqtt://x\"\nca_file = \"f\"":                                 "ca_file needs a url with mqtts",
		"name = \"c\"\nurl = \"mqtts://x\"\nkey_file = \"f\"":                               "belong together",
		"name = \"c\"\nurl = \"mqtt://x\"\nversion = \"4\"":                                 `version "4"`,
		"name = \"c\"\nurl = \"mqtt://x\"\nkeep_alive = \"1ms\"":                            "keep_alive 1ms",
		"name = \"c\"\nurl = \"mqtt://x\"\nwindow = 0":                                      "window 0",
		"name = \"c\"\nurl = \"mqtt://x\"\nqos = 3":                                         "qos 3",
		"name = \"c\"\nurl = \"mqtt://x\"\norder = \"newest\"":                              `order "newest"`,
		"name = \"c\"\nurl = \"mqtt://x\"\nstart = \"now\"":                                 `start "now"`,
		"name = \"c\"\nurl = \"mqtt://x\"\nmax_messages_per_second = -1":                    "cannot be negative",
		"name = \"c\"\nurl = \"mqtt://x\"\nbatch = { samples = 0 }":                         "must be positive",
		"name = \"c\"\nurl = \"mqtt://x\"\n[[destination.rule]]\nqos = 1":                   "for whom it is",
		"name = \"c\"\nurl = \"mqtt://x\"\n[[destination.rule]]\npoints = [\"t\"]\nqos = 1": "only skip",
		"name = \"c\"\nurl = \"mqtt://x\"\nexpiry = \"-1s\"":                                "cannot expire before",
		"name = \"c\"\nurl = \"mqtt://x\"\nretain_schemas = false":                          "has no schemas",
	} {
		_, problems := loadText(t, "\n[[destination]]\n"+more+"\n")
		if !strings.Contains(problems, want) || !strings.Contains(problems, "gateway.toml:") {
			t.Errorf("%q\n got %s\nwant %s", more, problems, want)
		}
	}
}

func TestReportIsDecidedFromBusToPointToRule(t *testing.T) {
	cfg, problems := loadText(t, `
[[report]]
devices = ["boi*"]
points = ["mean"]
heartbeat = "5s"
`)
	if problems != "" {
		t.Fatal(problems)
	}
	if cfg.Reporting() == nil {
		t.Error("it says nothing of reporting")
	}
	equal := func(pattern, name string) bool { return pattern == name || pattern == "boi*" && name == "boiler" }
	r := cfg.Reporting().Of("boiler", "t", equal)
	if r.Deadband.Percent != 2 || r.Deadband.Absolute != 0 || *r.Heartbeat != 10*time.Minute || r.OnChange != nil {
		t.Errorf("t: %+v", r)
	}
	r = cfg.Reporting().Of("boiler", "raw_2", equal)
	if r.Deadband.Absolute != 0.5 || r.OnChange == nil || *r.OnChange {
		t.Errorf("raw_2: %+v", r)
	}
	r = cfg.Reporting().Of("boiler", "mean", equal)
	if *r.Heartbeat != 5*time.Second || *r.Window != time.Minute || len(r.Aggregate) != 2 {
		t.Errorf("mean: %+v", r)
	}
	if r := cfg.Reporting().Of("other", "t", equal); r.Deadband != nil || r.Heartbeat != nil {
		t.Errorf("another device: %+v", r)
	}
}

func TestReportProblems(t *testing.T) {
	for more, want := range map[string]string{
		`deadband = "2"`:          "not a deadband",
		`deadband = -1`:           "cannot be negative",
		`deadband = true`:         "not a deadband",
		`heartbeat = "-1s"`:       "cannot be negative",
		`aggregate = ["median"]`:  `aggregate "median"`,
		`aggregate = ["min"]`:     "needs aggregate_over",
		`minimum_interval = "1s"`: "min_interval",
	} {
		if _, problems := loadText(t, "\n[[report]]\n"+more+"\n"); !strings.Contains(problems, want) {
			t.Errorf("%q\n got %s\nwant %s", more, problems, want)
		}
	}
}

func TestAnArrayGivesItsElementsAndNothingElse(t *testing.T) {
	array, point := ModbusPoint{Name: "x", Count: 3}, ModbusPoint{Name: "x", Count: 1}
	for name, want := range map[string]bool{"x_0": true, "x_2": true, "x_3": false, "x_-1": false, "x_01": false, "x_total": false, "x": false} {
		if got := array.Gives(name); got != want {
			t.Errorf("array x gives %q: %t", name, got)
		}
	}
	if !point.Gives("x") || point.Gives("x_0") {
		t.Error("a point gives its own name alone")
	}
}
