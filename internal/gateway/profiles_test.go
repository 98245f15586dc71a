package gateway

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"gateway/adapters"
	"gateway/adapters/modbus"
	"gateway/config"
)

// rtuFrame reads an RTU frame in hexadecimal and checks its checksum.
func rtuFrame(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil || len(b) < 5 {
		t.Fatalf("%q is no frame: %v", text, err)
	}
	crc := uint16(0xffff)
	for _, v := range b {
		crc ^= uint16(v)
		for range 8 {
			odd := crc & 1
			crc >>= 1
			if odd != 0 {
				crc ^= 0xa001
			}
		}
	}
	if crc != 0 {
		t.Fatalf("%q: the checksum is wrong", text)
	}
	return b[:len(b)-2]
}

// Each profile carries exchanges; what the points make of them is what the profile says.
func TestProfilesDecodeTheirExchanges(t *testing.T) {
	names := config.Profiles("")
	if len(names) < 12 {
		t.Fatalf("only %d profiles", len(names))
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			p, err := config.LoadProfile("", name)
			if err != nil {
				t.Fatal(err)
			}
			points, err := ProfilePoints(p)
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Exchanges) == 0 {
				t.Error("no exchange")
			}
			for _, e := range p.Exchanges {
				checkExchange(t, points, &e)
			}
		})
	}
}

func checkExchange(t *testing.T, points []modbus.Point, e *config.ProfileExchange) {
	t.Helper()
	if e.Source == "" || len(e.Values) == 0 {
		t.Errorf("an exchange without a source or without values: %s", e.Request)
	}
	req, resp := rtuFrame(t, e.Request), rtuFrame(t, e.Response)
	function := req[1]
	from, count := int(req[2])<<8|int(req[3]), int(req[4])<<8|int(req[5])
	size := 2 * count
	if function <= 2 {
		size = (count + 7) / 8
	}
	if resp[0] != req[0] || resp[1] != function || int(resp[2]) != size || len(resp) != 3+size {
		t.Fatalf("%s does not answer %s", e.Response, e.Request)
	}
	data := resp[3:]
	kinds := map[byte]modbus.Kind{1: modbus.Coil, 2: modbus.Discrete, 3: modbus.Holding, 4: modbus.Input}
	seen := map[string]bool{}
	for i := range points {
		q := &points[i]
		at := int(q.Address) - from
		expected, wanted := e.Values[q.Name]
		if !wanted || q.Kind != kinds[function] || at < 0 || at >= count {
			continue
		}
		seen[q.Name] = true
		var raw []byte
		exp := 0
		if q.Kind.Bits() {
			raw = []byte{data[at/8] >> (at % 8) & 1}
		} else {
			raw = data[2*at:]
		}
		if q.Factor != nil {
			f := 2 * (int(q.Factor.Address) - from)
			exp = int(int16(uint16(data[f])<<8 | uint16(data[f+1])))
		}
		v, reason := q.Field.DecodeExp(raw, exp)
		if reason != "" || !same(v, expected) {
			t.Errorf("%s is %v %q, want %v", q.Name, v, reason, expected)
		}
	}
	for name := range e.Values {
		if !seen[name] {
			t.Errorf("%s is not in the answer %s", name, e.Response)
		}
	}
}

// same compares a value with what TOML has for it.
func same(v adapters.Value, want any) bool {
	x, number := v.Number()
	switch w := want.(type) {
	case bool:
		return v == adapters.BoolValue(w)
	case string:
		return v == adapters.StringValue(w)
	case int64:
		return number && x == float64(w)
	case float64:
		return number && x == w
	}
	return false
}

// Each profile gives a device that can run, in few requests.
func TestProfilesPlan(t *testing.T) {
	for _, name := range config.Profiles("") {
		cfg, problems := config.Parse("gateway.toml", `
[broker]
enabled = true
[[modbus]]
name = "bus"
address = "127.0.0.1:502"
[[modbus.device]]
name = "dev"
unit = 1
interval = "5s"
profile = "`+name+`"
`)
		if problems.Failed() {
			t.Errorf("%s: %v", name, problems)
			continue
		}
		if Check(cfg, "gateway.toml"); problems.Failed() {
			t.Errorf("%s: %v", name, problems)
			continue
		}
		f, err := PlanModbus(&cfg.Modbus[0])
		if err != nil || len(f.Requests) == 0 || len(f.Requests) > 12 {
			t.Errorf("%s: %d requests, %v", name, len(f.Requests), err)
		}
		for _, r := range f.Requests {
			if r.Interval < time.Second {
				t.Errorf("%s: a request every %v", name, r.Interval)
			}
		}
	}
}
