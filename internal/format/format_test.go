package format

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"gateway/adapters"
	"gateway/internal/clock"
	"gateway/mqtt"
)

var boiler = &adapters.Schema{
	Bus: "meters", Device: "boiler", Labels: []adapters.Label{{Name: "site", Value: "north/2"}},
	Points: []adapters.Point{
		{Name: "supply_temperature", Unit: "°C", Decimals: 1},
		{Name: "pump"},
		{Name: "return_temperature", Unit: "°C"},
		{Name: "energy", Unit: "kWh", Labels: []adapters.Label{{Name: "class", Value: "billing"}}},
		{Name: "note \"1\""},
	},
}

var wall = time.Date(2026, 11, 23, 16, 0, 0, 123_999_999, time.UTC).UnixNano()

// item is the sample of the design's example.
func item() Item {
	return Item{
		Sample: &adapters.Sample{Schema: boiler, Readings: []adapters.Reading{
			{Point: 0, Value: adapters.FloatValue(71.2)},
			{Point: 1, Value: adapters.BoolValue(true)},
			{Point: 2, Quality: adapters.Bad, Reason: adapters.ReasonTimeout},
		}},
		Epoch: 0x9f3c2a1b7d5e4f60, Seq: 1842, Prev: 1839, HasPrev: true, Wall: wall,
	}
}

// doubtful says everything that a sample can say.
func doubtful() Item {
	it := item()
	it.HasPrev, it.Clock, it.Volatile, it.Historical = false, clock.Unsynced, true, true
	it.Sample.Readings = append(it.Sample.Readings,
		adapters.Reading{Point: 3, Quality: adapters.Stale, Reason: "exception 2", Value: adapters.UintValue(math.MaxUint64)},
		adapters.Reading{Point: 4, Value: adapters.StringValue("a \"b\"\n\\ü")})
	return it
}

func messages(t *testing.T, o Options, items ...Item) []mqtt.Message {
	t.Helper()
	o.Gateway = "boiler-room"
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	var out Out
	if err := f.Append(&out, items...); err != nil {
		t.Fatal(err)
	}
	return out.Messages
}

func payload(t *testing.T, o Options, items ...Item) string {
	t.Helper()
	m := messages(t, o, items...)
	if len(m) != 1 {
		t.Fatalf("%d messages", len(m))
	}
	return string(m[0].Payload)
}

func TestPayloads(t *testing.T) {
	unknown := item()
	unknown.Clock = clock.Unknown
	cases := []struct {
		name  string
		o     Options
		items []Item
		want  string
	}{
		{"json", Options{}, []Item{item()},
			`{"epoch":"9f3c2a1b7d5e4f60","seq":1842,"prev":1839,"time":"2026-11-23T16:00:00.123Z","values":{"supply_temperature":71.2,"pump":true},"bad":{"return_temperature":"timeout"}}`},
		{"json, everything", Options{}, []Item{doubtful()},
			`{"epoch":"9f3c2a1b7d5e4f60","seq":1842,"time":"2026-11-23T16:00:00.123Z","values":{"supply_temperature":71.2,"pump":true,"energy":"18446744073709551615","note \"1\"":"a \"b\"\n\\ü"},"stale":{"energy":"exception 2"},"bad":{"return_temperature":"timeout"},"clock":"unsynced","durable":false,"historical":true}`},
		{"json, no time", Options{}, []Item{unknown},
			`{"epoch":"9f3c2a1b7d5e4f60","seq":1842,"prev":1839,"values":{"supply_temperature":71.2,"pump":true},"bad":{"return_temperature":"timeout"},"clock":"unknown"}`},
		{"json, batch of one", Options{Batch: true, Select: Selector{Points: []string{"pump"}}}, []Item{item()},
			`[{"epoch":"9f3c2a1b7d5e4f60","seq":1842,"prev":1839,"time":"2026-11-23T16:00:00.123Z","values":{"pump":true}}]`},
		{"json, batch of two", Options{Batch: true, Select: Selector{Points: []string{"ret*"}}}, []Item{item(), item()},
			`[{"epoch":"9f3c2a1b7d5e4f60","seq":1842,"prev":1839,"time":"2026-11-23T16:00:00.123Z","values":{},"bad":{"return_temperature":"timeout"}},{"epoch":"9f3c2a1b7d5e4f60","seq":1842,"prev":1839,"time":"2026-11-23T16:00:00.123Z","values":{},"bad":{"return_temperature":"timeout"}}]`},
		{"line", Options{Kind: Line}, []Item{item()},
			`boiler,gateway=boiler-room,bus=meters,site=north/2 supply_temperature=71.2,pump=true,return_temperature_bad="timeout" 1795449600123999999`},
		{"line, everything, twice", Options{Kind: Line, Batch: true}, []Item{doubtful(), unknown},
			`boiler,gateway=boiler-room,bus=meters,site=north/2 supply_temperature=71.2,pump=true,return_temperature_bad="timeout",energy=18446744073709551615u,energy_stale="exception 2",note\ "1"="a \"b\"` + "\n" + `\\ü",clock="unsynced" 1795449600123999999` + "\n" +
				`boiler,gateway=boiler-room,bus=meters,site=north/2 supply_temperature=71.2,pump=true,return_temperature_bad="timeout",clock="unknown"`},
		{"senml", Options{Kind: SenML}, []Item{item()},
			`[{"bn":"boiler-room/boiler/","bt":1795449600.123,"n":"supply_temperature","u":"Cel","v":71.2},{"n":"pump","vb":true},{"n":"return_temperature:bad","vs":"timeout"}]`},
		{"senml, everything", Options{Kind: SenML, Batch: true}, []Item{doubtful(), unknown},
			`[{"bn":"boiler-room/boiler/","bt":1795449600.123,"n":"supply_temperature","u":"Cel","v":71.2},{"n":"pump","vb":true},{"n":"return_temperature:bad","vs":"timeout"},{"n":"energy","u":"kWh","v":18446744073709551615},{"n":"energy:stale","vs":"exception 2"},{"n":"note__1_","vs":"a \"b\"\n\\ü"},{"bn":"boiler-room/boiler/","bt":0,"n":"supply_temperature","u":"Cel","v":71.2},{"n":"pump","vb":true},{"n":"return_temperature:bad","vs":"timeout"}]`},
		{"senml in cbor", Options{Kind: SenMLCBOR, Select: Selector{Points: []string{"supply*", "pump"}}}, []Item{item()},
			"\x9f\xbf\x21\x73boiler-room/boiler/\x22\xfb\x41\xda\xc1\x18\xc0\x07\xdf\x3b\x00\x72supply_temperature\x01\x63Cel\x02\xfb\x40\x51\xcc\xcc\xcc\xcc\xcc\xcd\xff\xbf\x00\x64pump\x04\xf5\xff\xff"},
		{"template", Options{Kind: Template, Template: `{{.Seq}} {{.Values.pump}}{{range .Readings}} {{.Point}}={{json .Value}}{{end}} {{.Time.Unix}}`}, []Item{item()},
			`1842 true supply_temperature=71.2 pump=true return_temperature=null 1795449600`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := payload(t, c.o, c.items...); got != c.want {
				t.Errorf("\n got %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestAValueHasATopicOfItsOwnAndItsIdentityInProperties(t *testing.T) {
	it := doubtful()
	got := messages(t, Options{Kind: Value, QoS: 1, Retain: true, Expiry: 90 * time.Second}, it)
	id := []mqtt.UserProperty{{Name: "epoch", Value: "9f3c2a1b7d5e4f60"}, {Name: "seq", Value: "1842"}, {Name: "time", Value: "2026-11-23T16:00:00.123Z"},
		{Name: "clock", Value: "unsynced"}, {Name: "durable", Value: "false"}, {Name: "historical", Value: "true"}}
	m := func(point, payload string, more ...mqtt.UserProperty) mqtt.Message {
		return mqtt.Message{Topic: "boiler-room/boiler/" + point, Payload: []byte(payload), QoS: 1, HasExpiry: true, Expiry: 90, PayloadUTF8: true,
			User: append(append([]mqtt.UserProperty{}, id...), more...)}
	}
	want := []mqtt.Message{
		m("supply_temperature", "71.2"), m("pump", "true"),
		m("return_temperature", "", mqtt.UserProperty{Name: "bad", Value: "timeout"}),
		m("energy", "18446744073709551615", mqtt.UserProperty{Name: "stale", Value: "exception 2"}),
		m(`note "1"`, "a \"b\"\n\\ü"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if m := messages(t, Options{Kind: Value, Retain: true, NoProperties: true}, item()); !m[0].Retain || m[0].User != nil {
		t.Errorf("%+v", m[0])
	}
}

func TestBackfillIsNeverRetained(t *testing.T) {
	late := item()
	late.Historical = true
	if m := messages(t, Options{Retain: true}, item()); !m[0].Retain {
		t.Error("a live sample is not retained")
	}
	if m := messages(t, Options{Retain: true}, late); m[0].Retain {
		t.Error("a historical sample is retained")
	}
}

func TestRulesDecideByDevicePointAndLabel(t *testing.T) {
	qos0, yes, hour := mqtt.AtMostOnce, true, time.Hour
	o := Options{Kind: Value, QoS: 1, Rules: []Rule{
		{Match: Selector{Points: []string{"*_temperature"}}, QoS: &qos0},
		{Match: Selector{Labels: []adapters.Label{{Name: "class", Value: "bill*"}}}, Topic: "bills/{label.site}/{label.class}/{point}", Retain: &yes, Expiry: &hour},
		{Match: Selector{Devices: []string{"boil*"}, Points: []string{"pump"}}, Skip: true},
		{Match: Selector{Devices: []string{"other"}}, Skip: true},
	}}
	var got []string
	for _, m := range messages(t, o, doubtful()) {
		got = append(got, fmt.Sprintf("%s %d %d", m.Topic, m.QoS, m.Expiry))
	}
	want := []string{"boiler-room/boiler/supply_temperature 0 0", "boiler-room/boiler/return_temperature 0 0",
		"bills/north_2/billing/energy 1 3600", `boiler-room/boiler/note "1" 1 0`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestASampleWithoutSelectedPointsIsNoMessage(t *testing.T) {
	for _, k := range []Kind{JSON, CBOR, Value, Line, SenML, SenMLCBOR} {
		for _, s := range []Selector{{Points: []string{"energy"}}, {Devices: []string{"x*"}}, {Labels: []adapters.Label{{Name: "site", Value: "south"}}}} {
			if m := messages(t, Options{Kind: k, Select: s}, item()); len(m) != 0 {
				t.Errorf("%s, %v: %q", k, s, m[0].Payload)
			}
		}
	}
	f, err := New(Options{Select: Selector{Devices: []string{"x*"}}})
	if err != nil {
		t.Fatal(err)
	}
	if !f.Skips(boiler) {
		t.Error("the device is not skipped")
	}
}

func TestTopics(t *testing.T) {
	point := &adapters.Point{Name: "a+b", Labels: []adapters.Label{{Name: "room", Value: "#3"}}}
	for text, want := range map[string]string{
		"{gateway}/{bus}/{device}":   "g/meters/boiler",
		"x/{label.site}/{label.no}":  "x/north_2/-",
		"p/{point}/{label.room}/end": "p/a_b/_3/end",
	} {
		tt, err := ParseTopic(text, strings.Contains(text, "{point}"))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := tt.Expand("g", boiler, point); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestBadTopicsSayWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                "empty",
		"a/+/b":           "wildcards",
		"a/#":             "wildcards",
		"$SYS/{device}":   "broker",
		"{gatway}/x":      "no field {gatway}",
		"{label.}":        "no field {label.}",
		"{device":         "brace",
		"device}":         "brace",
		"a\x00b":          "NUL",
		"\xff":            "UTF-8",
		"{device}/{point": "brace",
		"{point}":         `format = "value"`,
	} {
		if _, err := ParseTopic(text, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want something of %q", text, err, want)
		}
	}
	if _, err := ParseTopic("{device}", true); err == nil || !strings.Contains(err.Error(), "{point}") {
		t.Errorf("values without a {point}: %v", err)
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	for name, o := range map[string]Options{
		"kind":              {Kind: "xml"},
		"compression":       {Compression: "lzma"},
		"topic":             {Topic: "+"},
		"rule's topic":      {Rules: []Rule{{Topic: "#"}}},
		"no template":       {Kind: Template},
		"broken template":   {Kind: Template, Template: "{{"},
		"template's field":  {Kind: Template, Template: "{{.Nothing}}"},
		"batch of values":   {Kind: Value, Batch: true},
		"point in a sample": {Topic: "{point}"},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true}, {"*", "x", true}, {"a*", "a", true}, {"a*b", "ab", true}, {"a*b", "axxb", true}, {"a*b", "axxbc", false},
		{"a*a", "a", false}, {"*a*", "bab", true}, {"*ab*b", "aab", false}, {"*ab*b", "aabb", true}, {"", "", true}, {"", "x", false}, {"x", "xy", false}, {"**", "q", true},
	} {
		if got := Match(c.pattern, c.name); got != c.want {
			t.Errorf("Match(%q, %q) = %t", c.pattern, c.name, got)
		}
	}
}

func TestCompressedPayloadsReadBack(t *testing.T) {
	want := payload(t, Options{}, item())
	for c, open := range map[Compression]func(io.Reader) (io.Reader, error){
		Gzip: func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		Zstd: func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r, zstd.WithDecoderConcurrency(1)) },
	} {
		m := messages(t, Options{Compression: c}, item())[0]
		if m.ContentType != "application/json+"+string(c) || m.PayloadUTF8 {
			t.Errorf("%s: content type %q, utf-8 %t", c, m.ContentType, m.PayloadUTF8)
		}
		r, err := open(bytes.NewReader(m.Payload))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", c, got, err)
		}
	}
}

func TestFloatsAreRoundedOnlyWhereThePointSaysSo(t *testing.T) {
	for _, c := range []struct {
		f        float64
		decimals int8
		want     string
	}{
		{0.30000000000000004, 1, "0.3"}, {0.30000000000000004, -1, "0.30000000000000004"}, {21.98, 1, "22"}, {-0.01, 1, "0"},
		{100, 2, "100"}, {1e20, 2, "100000000000000000000"}, {0.125, -1, "0.125"},
		{48.00194811391755, 0, "48"}, {1700.4, 0, "1700"}, {-0.3, 0, "0"},
	} {
		if got := string(appendValue(nil, adapters.FloatValue(c.f), c.decimals)); got != c.want {
			t.Errorf("%v with %d decimals: %s, want %s", c.f, c.decimals, got, c.want)
		}
	}
}

func FuzzJSON(f *testing.F) {
	f.Add("name", "text", 1.5, int64(1<<60), true)
	f.Add("a\"b\\\x00\xff", "\u2028\n", math.Inf(1), int64(-1<<63), false)
	f.Fuzz(func(t *testing.T, name, text string, number float64, integer int64, historical bool) {
		if adapters.FloatValue(number).Kind() == adapters.None {
			number = 0
		}
		s := &adapters.Schema{Device: "d", Points: []adapters.Point{{Name: name}, {Name: name + "2"}, {Name: name + "3"}, {Name: name + "4"}}}
		it := Item{Historical: historical, Sample: &adapters.Sample{Schema: s, Readings: []adapters.Reading{
			{Point: 0, Value: adapters.StringValue(text)}, {Point: 1, Value: adapters.FloatValue(number)},
			{Point: 2, Value: adapters.IntValue(integer)}, {Point: 3, Quality: adapters.Bad, Reason: adapters.Reason(text)},
		}}}
		for _, k := range []Kind{JSON, SenML} {
			p := payload(t, Options{Kind: k}, it)
			if !json.Valid([]byte(p)) {
				t.Errorf("%s: %q", k, p)
			}
		}
		// A line ends where a newline stands outside of a quoted string.
		quoted, escaped := false, false
		line := payload(t, Options{Kind: Line}, it)
		for _, c := range line {
			switch {
			case escaped:
				escaped = false
			case c == '\\' && quoted:
				escaped = true
			case c == '"' && !strings.ContainsRune(name, '"'):
				quoted = !quoted
			case c == '\n' && !quoted && !strings.ContainsRune(name, '"'):
				t.Fatalf("line: %q", line)
			}
		}
	})
}

func FuzzTopic(f *testing.F) {
	f.Add("{gateway}/{device}/{label.site}", "g", "d/+#")
	f.Fuzz(func(t *testing.T, text, gateway, device string) {
		tt, err := ParseTopic(text, false)
		if err != nil {
			return
		}
		topic := tt.Expand(gateway, &adapters.Schema{Device: device}, nil)
		if strings.ContainsAny(topic, "+#\x00") || topic == "" {
			t.Errorf("%q with %q, %q gave %q", text, gateway, device, topic)
		}
	})
}

func twenty() Item {
	s := &adapters.Schema{Device: "meter"}
	it := Item{Sample: &adapters.Sample{Schema: s}, Epoch: 1 << 63, Seq: 1 << 20, Prev: 1<<20 - 10, HasPrev: true, Wall: wall}
	for i := range 20 {
		s.Points = append(s.Points, adapters.Point{Name: fmt.Sprintf("r%d", i)})
		it.Sample.Readings = append(it.Sample.Readings, adapters.Reading{Point: i, Value: adapters.FloatValue(float64(2301+i*317) / 10)})
	}
	return it
}

func TestASampleAllocatesNothing(t *testing.T) {
	for _, k := range []Kind{JSON, CBOR} {
		f, err := New(Options{Gateway: "g", Kind: k})
		if err != nil {
			t.Fatal(err)
		}
		it := twenty()
		var out Out
		if n := testing.AllocsPerRun(100, func() {
			out.Reset()
			err = errors.Join(err, f.Append(&out, it))
		}); n > 1 || err != nil {
			t.Errorf("%s: %v allocations, %v", k, n, err)
		}
	}
}

func BenchmarkFormat20(b *testing.B) {
	for _, k := range []Kind{JSON, CBOR, Value, Line, SenML, SenMLCBOR} {
		b.Run(string(k), func(b *testing.B) {
			f, err := New(Options{Gateway: "g", Kind: k})
			if err != nil {
				b.Fatal(err)
			}
			it := twenty()
			var out Out
			b.ReportAllocs()
			for b.Loop() {
				out.Reset()
				if err := f.Append(&out, it); err != nil {
					b.Fatal(err)
				}
			}
			n := 0
			for _, m := range out.Messages {
				n += len(m.Payload)
			}
			b.ReportMetric(float64(n)/20, "B/reading")
		})
	}
}
