package delivery

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway/e2e/load"
	"gateway/e2e/rig"
)

// canonical checks with a CBOR library that is not ours that each message is what that library would have
// written, byte for byte (RFC 8949, 4.2.1).
const canonical = `
import cbor2

plain = cbor2.loads


def loads(payload):
    item = plain(payload)
    assert cbor2.dumps(item, canonical=True) == payload, payload.hex()
    return item


cbor2.loads = loads
`

// printed is a sample as the script of docs/messages.md prints it.
type printed struct {
	Topic, Epoch string
	Seq          uint64
	Time         int64
	Values       map[string]any
	Bad          map[string]string
}

// reader starts the script of docs/messages.md at a broker.
func reader(t *testing.T, m *rig.Mosquitto) *rig.Process {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join(rig.Root(), "docs", "messages.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, script, _ := strings.Cut(string(doc), "```python\n")
	script, _, ok := strings.Cut(script, "```")
	for placeholder, ours := range map[string]string{"boiler-room/": "plant/", `"broker.example.com"`: `"127.0.0.1"`, "port=1883": fmt.Sprintf("port=%d", m.Port)} {
		ok = ok && strings.Contains(script, placeholder)
		script = strings.ReplaceAll(script, placeholder, ours)
	}
	if !ok {
		t.Fatalf("docs/messages.md does not show how to read CBOR:\n%s", script)
	}
	path := rig.Write(t, t.TempDir(), "reader.py", canonical+script)
	return rig.Start(t, rig.Need(t, "/usr/bin/python3", "python3-cbor2 python3-paho-mqtt"), "-u", path)
}

// whole waits until a sample of each device has come, and returns what came.
func whole(t *testing.T, p *rig.Process, devices int) (samples []printed) {
	t.Helper()
	p.Await(t, time.Minute, "a sample of each device", func(lines []string) bool {
		samples = samples[:0]
		topics := map[string]bool{}
		for _, l := range lines {
			var s printed
			if json.Unmarshal([]byte(l), &s) == nil && s.Topic != "plant/gateway" { // a loss record
				samples = append(samples, s)
				topics[s.Topic] = true
			}
		}
		return len(topics) >= devices
	})
	return samples
}

// A subscriber in another language, with foreign libraries for MQTT and CBOR, comes when all schemas have been
// published; and again to a broker that has forgotten them.
func TestAForeignReaderOfCBOR(t *testing.T) {
	mosquitto := rig.NewMosquitto(t, "")
	meter, err := load.NewMeter()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(meter.Close)
	conf := fmt.Sprintf("[gateway]\nid = \"plant\"\ndata = %q\nclock = \"trust\"\n\n[broker]\nenabled = false\n\n", rig.DataDir(t)) +
		destination("cloud", mosquitto.URL(), "format = \"cbor\"") + fmt.Sprintf("\n\n[[modbus]]\nname = \"plc\"\naddress = %q\n", meter.Addr())
	for _, unit := range []int{1, 2, 3} {
		conf += fmt.Sprintf(`
  [[modbus.device]]
  name = "d%d"
  unit = %[1]d
  interval = "200ms"
  points = [
    { name = "n", holding = 0, type = "uint32" },
    { name = "temperature", holding = 2, type = "int16", scale = 0.1, offset = -300, unit = "°C" },
    { name = "never", holding = 3, max = 1 },
    { name = "odd", holding = 4, type = "bit", bit = 0 },
    { name = "half", holding = 5, scale = 0.5, decimals = 3 },
    { name = "third", holding = 6, scale = 0.3333333333333333 },
  ]
`, unit)
	}
	gateway := rig.Gateway(t, conf)
	check := func(when string) {
		p := reader(t, mosquitto)
		for _, s := range whole(t, p, 3) {
			n, _ := s.Values["n"].(float64)
			want := map[string]any{"n": n, "temperature": (n + 2 - 3000) / 10, "odd": int(n+4)%2 == 1, "half": (n + 5) / 2, "third": s.Values["third"]}
			if !maps.Equal(s.Values, want) || len(s.Epoch) != 16 || s.Seq == 0 || !maps.Equal(s.Bad, map[string]string{"never": "out of range"}) {
				t.Errorf("%s: %+v, want the values %v", when, s, want)
			}
			third, _ := s.Values["third"].(float64)
			if want := (n + 6) * 0.3333333333333333; third != want {
				t.Errorf("%s: third is %v, want %v", when, third, want)
			}
			if age := time.Since(time.UnixMilli(s.Time)); age < 0 || age > time.Hour {
				t.Errorf("%s: measured %v ago", when, age)
			}
		}
		p.Kill()
	}
	rig.Eventually(t, time.Minute, "ten polls", func() bool { return meter.Polls(3) >= 10 })
	check("at first")
	mosquitto.Kill() // what it retained is gone
	mosquitto.Start()
	polls := meter.Polls(3)
	rig.Eventually(t, time.Minute, "ten more polls", func() bool { return meter.Polls(3) >= polls+10 })
	check("to a broker that had forgotten")
	if code := gateway.Stop(t, 20*time.Second); code != 0 {
		t.Errorf("the gateway ended with %d", code)
	}
	if s := gateway.Stderr(); slices.ContainsFunc(strings.Split(s, "\n"), func(l string) bool { return strings.Contains(l, "schema") }) {
		t.Errorf("schemas are a reason to complain:\n%s", s)
	}
}

// A broker that retains nothing, and says so: who is there when the gateway connects reads all the same.
func TestCBORWhereNothingIsRetained(t *testing.T) {
	mosquitto := rig.NewMosquitto(t, "retain_available false")
	s := subscribe(t, mosquitto.URL())
	meter, conf := plant(t, mosquitto.URL(), "format = \"cbor\"\nannounce = false\n")
	gateway := rig.Gateway(t, conf)
	settle(t, meter, s, 0)
	if code := gateway.Stop(t, 20*time.Second); code != 0 {
		t.Errorf("the gateway ended with %d", code)
	}
	if r := s.Report(); len(r.Gaps) > 0 || r.Unnamed > 0 || r.Foreign > 0 {
		t.Errorf("%+v", r)
	}
}
