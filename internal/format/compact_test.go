package format

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gateway/adapters"
	"gateway/internal/cbor"
	"gateway/internal/clock"
	"gateway/mqtt"
)

// explained is a hex dump with an explanation behind two spaces on each line.
func explained(t *testing.T, dump string) string {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(dump) {
		code, _, _ := strings.Cut(strings.TrimSpace(line), "  ")
		digits.WriteString(strings.ReplaceAll(code, " ", ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const goldenSchema = `
	a6                                          six pairs, by the length of the keys
	63 627573                                   "bus":
	66 6d6574657273                             "meters"
	66 646576696365                             "device":
	66 626f696c6572                             "boiler"
	66 6c6162656c73                             "labels":
	a1 64 73697465 67 6e6f7274682f32            {"site": "north/2"}
	66 706f696e7473                             "points":
	85                                          five
	a3 64 6e616d65                              0: {"name":
	   72 737570706c795f74656d7065726174757265  "supply_temperature",
	   64 756e6974 63 c2b043                    "unit": "°C",
	   68 646563696d616c73 01                   "decimals": 1}: numbers are tenths
	a1 64 6e616d65 64 70756d70                  1: {"name": "pump"}
	a2 64 6e616d65                              2: {"name":
	   72 72657475726e5f74656d7065726174757265  "return_temperature",
	   64 756e6974 63 c2b043                    "unit": "°C"}
	a3 64 6e616d65 66 656e65726779              3: {"name": "energy",
	   64 756e6974 63 6b5768                    "unit": "kWh",
	   66 6c6162656c73                          "labels":
	   a1 65 636c617373 67 62696c6c696e67       {"class": "billing"}}
	a1 64 6e616d65 68 6e6f7465 20 223122        4: {"name": "note \"1\""}
	67 67617465776179                           "gateway":
	6b 626f696c65722d726f6f6d                   "boiler-room"
	67 76657273696f6e                           "version":
	01                                          1
`

func TestTheBytesOfASchemaAndItsSamples(t *testing.T) {
	f, err := New(Options{Gateway: "boiler-room", Kind: CBOR, QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	want := explained(t, goldenSchema)
	sum := sha256.Sum256([]byte(want))
	id := hex.EncodeToString(sum[:8])
	m := f.Schema(boiler)
	if string(m.Payload) != want {
		t.Errorf("the schema is\n%x, want\n%x", m.Payload, want)
	}
	if wantTopic := "boiler-room/boiler/schema/" + id; m.Topic != wantTopic || m.QoS != 1 || !m.Retain || m.ContentType != "application/cbor" {
		t.Errorf("%+v, want the topic %s", m, wantTopic)
	}
	for name, c := range map[string]struct {
		it   Item
		dump string
	}{
		"a sample": {item(), `
			87                      an array: six and what is doubted
			48 9f3c2a1b7d5e4f60     epoch
			19 0732                 seq 1842
			19 072f                 prev 1839
			1b 000001a20922b87b     2026-11-23T16:00:00.123Z
			48 ` + id + `     schema
			82                      values of the points 0 and 1:
			19 02c8                 71.2: 712, as there is one decimal
			f5                      true
			a1 63 626164            {"bad":
			a1 02 67 74696d656f7574  {2: "timeout"}}`},
		"everything": {doubtful(), `
			87
			48 9f3c2a1b7d5e4f60
			19 0732
			f6                      no prev
			1b 000001a20922b87b
			48 ` + id + `
			85
			19 02c8
			f5
			f6                      null: it is bad
			1b ffffffffffffffff     2^64-1
			69 61 20226222 0a 5c c3bc  the text "a \"b\"\n\\ü"
			a5
			63 626164               "bad":
			a1 02 67 74696d656f7574  {2: "timeout"}
			65 636c6f636b           "clock":
			68 756e73796e636564     "unsynced"
			65 7374616c65           "stale":
			a1 03 6b 657863657074696f6e2032  {3: "exception 2"}
			67 64757261626c65       "durable":
			f4                      false
			6a 686973746f726963616c  "historical":
			f5                      true`},
	} {
		want := explained(t, strings.ReplaceAll(c.dump, "\t", " "))
		if got := payload(t, Options{Kind: CBOR}, c.it); got != want {
			t.Errorf("%s is\n%x, want\n%x", name, got, want)
		}
	}
}

func TestASchemaIsOfWhatIsPublished(t *testing.T) {
	of := func(o Options, s *adapters.Schema) *mqtt.Message {
		o.Gateway, o.Kind = "boiler-room", CBOR
		f, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		return f.Schema(s)
	}
	all := of(Options{}, boiler)
	renamed := *boiler
	renamed.Points = append([]adapters.Point{}, boiler.Points...)
	renamed.Points[4].Name = "note"
	for name, other := range map[string]*mqtt.Message{
		"some points only": of(Options{Select: Selector{Points: []string{"pump", "energy"}}}, boiler),
		"another name":     of(Options{}, &renamed),
		"another topic":    of(Options{Topic: "x/{device}"}, boiler),
	} {
		if other.Topic == all.Topic {
			t.Errorf("%s: the topic is the same", name)
		}
	}
	if again := of(Options{Batch: true, Compression: Zstd}, boiler); again.Topic != all.Topic || string(again.Payload) != string(all.Payload) {
		t.Error("how samples are packed makes another schema")
	}
	if m := of(Options{PassingSchemas: true, NoProperties: true}, boiler); m.Retain || m.ContentType != "" {
		t.Errorf("%+v", m)
	}
	for name, m := range map[string]*mqtt.Message{
		"a device that is not for here": of(Options{Select: Selector{Devices: []string{"x"}}}, boiler),
		"points that are not for here":  of(Options{Select: Selector{Points: []string{"x"}}}, boiler),
	} {
		if m != nil {
			t.Errorf("%s: %s", name, m.Topic)
		}
	}
	f, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if m := f.Schema(boiler); m != nil {
		t.Errorf("JSON has the schema %s", m.Topic)
	}
}

// decoded is what a subscriber makes of messages: the samples as the JSON format has them.
func decoded(t *testing.T, schema *mqtt.Message, payload []byte) []map[string]any {
	t.Helper()
	whole := func(b []byte) any {
		v, rest, err := cbor.Decode(b)
		if err != nil || len(rest) > 0 {
			t.Fatalf("%x: %v, %x", b, err, rest)
		}
		return v
	}
	points := whole(schema.Payload).(map[any]any)["points"].([]any)
	name := func(i uint64) string { return points[i].(map[any]any)["name"].(string) }
	list := whole(payload).([]any)
	if _, single := list[0].([]byte); single {
		list = []any{list}
	}
	var samples []map[string]any
	for _, x := range list {
		x := x.([]any)
		out := map[string]any{"epoch": hex.EncodeToString(x[0].([]byte)), "seq": x[1], "values": map[string]any{}}
		if x[2] != nil {
			out["prev"] = x[2]
		}
		switch ms := x[3].(type) {
		case uint64:
			out["time"] = time.UnixMilli(int64(ms)).UTC().Format("2006-01-02T15:04:05.000Z")
		case int64:
			out["time"] = time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
		}
		if want := "/schema/" + hex.EncodeToString(x[4].([]byte)); !strings.HasSuffix(schema.Topic, want) {
			t.Errorf("%s and %s", schema.Topic, want)
		}
		doubts := map[any]any{}
		if len(x) > 6 {
			doubts = x[6].(map[any]any)
		}
		value := func(i uint64, v any) {
			if v == nil {
				return
			}
			if d, ok := points[i].(map[any]any)["decimals"].(uint64); ok {
				switch n := v.(type) {
				case uint64:
					v = float64(n) / math.Pow10(int(d))
				case int64:
					v = float64(n) / math.Pow10(int(d))
				}
			}
			out["values"].(map[string]any)[name(i)] = v
		}
		switch values := x[5].(type) {
		case []any:
			for i, v := range values {
				value(uint64(i), v)
			}
		case map[any]any:
			for i, v := range values {
				value(i.(uint64), v)
			}
		}
		for what, v := range doubts {
			if reasons, ok := v.(map[any]any); ok {
				named := map[string]any{}
				for i, why := range reasons {
					named[name(i.(uint64))] = why
				}
				v = named
			}
			out[what.(string)] = v
		}
		samples = append(samples, out)
	}
	return samples
}

// alike makes numbers of both formats comparable: as JSON would be read.
func alike(v any) any {
	switch n := v.(type) {
	case json.Number:
		f, err := strconv.ParseFloat(string(n), 64)
		if err != nil {
			panic(err)
		}
		return f
	case uint64:
		return float64(n)
	case int64:
		return float64(n)
	case string: // a number too large for the one format or the other, or both
		if f, err := strconv.ParseFloat(n, 64); err == nil && math.Abs(f) > exact/1e9 {
			return f
		}
	case map[string]any:
		for k := range n {
			n[k] = alike(n[k])
		}
	}
	return v
}

// checkAlike fails where CBOR and JSON do not say the same.
func checkAlike(t *testing.T, o Options, items ...Item) {
	t.Helper()
	o.Gateway = "g"
	read := func(k Kind) (payload []byte, schema *mqtt.Message) {
		o.Kind = k
		f, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		var out Out
		if err := f.Append(&out, items...); err != nil || len(out.Messages) != 1 {
			t.Fatalf("%d messages, %v", len(out.Messages), err)
		}
		return out.Messages[0].Payload, f.Schema(items[0].Sample.Schema)
	}
	text, _ := read(JSON)
	if !o.Batch {
		text = []byte("[" + string(text) + "]")
	}
	var want []map[string]any
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	if err := d.Decode(&want); err != nil {
		t.Fatal(err)
	}
	got, schema := read(CBOR)
	samples := decoded(t, schema, got)
	if len(samples) != len(want) {
		t.Fatalf("%d samples, want %d", len(samples), len(want))
	}
	for i := range want {
		if diff := cmp.Diff(alike(want[i]), alike(samples[i])); diff != "" {
			t.Errorf("sample %d: %s\n%s\n%x", i, diff, text, got)
		}
	}
}

func TestCBORSaysWhatJSONSays(t *testing.T) {
	unknown, early := doubtful(), item()
	unknown.Clock = clock.Unknown
	early.Wall = -1 // a clock that stands before 1970
	for name, it := range map[string]Item{"plain": item(), "doubtful": doubtful(), "no time": unknown, "before 1970": early, "twenty": twenty()} {
		t.Run(name, func(t *testing.T) {
			checkAlike(t, Options{}, it)
			checkAlike(t, Options{Batch: true}, it, it)
			if name != "twenty" {
				checkAlike(t, Options{Select: Selector{Points: []string{"*pump*", "*return*", "*energy*"}}}, it)
			}
		})
	}
}

func TestNumbersOfPointsWithDecimals(t *testing.T) {
	for _, c := range []struct {
		v        adapters.Value
		decimals int8
		want     string // in hexadecimal
	}{
		{adapters.FloatValue(71.2), 1, "1902c8"}, {adapters.FloatValue(-0.05), 2, "24"}, {adapters.FloatValue(-0.001), 2, "00"},
		{adapters.FloatValue(100), 2, "192710"}, {adapters.FloatValue(0.285), 2, "181c"}, // the double is below 0.285: 0.28
		{adapters.IntValue(-3), 1, "381d"}, {adapters.UintValue(3), 1, "181e"},
		{adapters.FloatValue(71.2), -1, "fb4051cccccccccccd"}, {adapters.FloatValue(71.2), 0, "1847"}, {adapters.FloatValue(2.5), 0, "02"}, {adapters.FloatValue(71.5), -1, "f95478"},
		{adapters.FloatValue(71.2), 10, "fb4051cccccccccccd"}, {adapters.FloatValue(71.2), 16, "fb4051cccccccccccd"}, {adapters.UintValue(math.MaxUint64), 0, "1bffffffffffffffff"},
		// What in these units is beyond 2^53 is a text, so that a number always is in them.
		{adapters.UintValue(math.MaxUint64), 1, "74" + hex.EncodeToString([]byte("18446744073709551615"))},
		{adapters.IntValue(math.MinInt64), 9, "74" + hex.EncodeToString([]byte("-9223372036854775808"))},
		{adapters.FloatValue(1e21), 1, "65" + hex.EncodeToString([]byte("1e+21"))},
	} {
		if got := hex.EncodeToString(appendCompactValue(nil, c.v, c.decimals)); got != c.want {
			t.Errorf("%v with %d decimals: %s, want %s", c.v, c.decimals, got, c.want)
		}
	}
}

// Also of sixteen digits and more, of which not all are a double's own.
func TestNumbersAreThoseOfTheTexts(t *testing.T) {
	for decimals := int8(0); decimals < 20; decimals++ {
		for i := range 200 {
			v := adapters.FloatValue(math.Pow(9.001+float64(i)*0.0049999, float64(1+i%16)) / 7)
			want, err := strconv.ParseFloat(string(appendValue(nil, v, decimals)), 64)
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := cbor.Decode(appendNumber(nil, v, decimals))
			if err != nil || alike(got) != want {
				t.Errorf("%v with %d decimals: %v, %v; want %v", v, decimals, got, err, want)
			}
		}
	}
}

// Of a device with a hundred points a sample that holds two that changed does not pay for the others.
func TestASparseSampleIsAMap(t *testing.T) {
	s := &adapters.Schema{Device: "d"}
	for i := range 100 {
		s.Points = append(s.Points, adapters.Point{Name: fmt.Sprint(i)})
	}
	it := Item{Sample: &adapters.Sample{Schema: s, Readings: []adapters.Reading{{Point: 3, Value: adapters.IntValue(1)}, {Point: 99, Value: adapters.IntValue(2)}}}}
	checkAlike(t, Options{}, it)
	p := payload(t, Options{Kind: CBOR}, it)
	if want := explained(t, "a2 03 01 18 63 02"); !strings.HasSuffix(p, want) {
		t.Errorf("%x does not end with %x", p, want)
	}
	it.Sample.Readings = []adapters.Reading{{Point: 0, Value: adapters.IntValue(1)}, {Point: 2, Value: adapters.IntValue(2)}}
	checkAlike(t, Options{}, it)
	if p := payload(t, Options{Kind: CBOR}, it); !strings.HasSuffix(p, "\x83\x01\xf6\x02") {
		t.Errorf("%x", p)
	}
}

// The target is 6 bytes a reading on the link, for 20 registers of one device: with registers that use all
// of their 16 bits, and a sequence of an old queue. A PUBLISH of MQTT 5.0 with a topic alias takes 10 bytes
// beside the payload.
func TestTwentyRegistersTakeSixBytesEach(t *testing.T) {
	it := twenty()
	for i := range it.Sample.Readings {
		it.Sample.Readings[i].Value = adapters.UintValue(uint64(65535 - i))
	}
	it.Seq, it.Prev = 1<<32-1, 1<<32-11
	if n := len(payload(t, Options{Kind: CBOR}, it)) + 10; n > 20*6-4 {
		t.Errorf("%d bytes", n)
	}
}

func FuzzCBORSaysWhatJSONSays(f *testing.F) {
	f.Add("name", "text", 1.5, int64(1<<60), uint64(1<<63), uint8(3), int8(1), true)
	f.Add("a\"b\\\x00\xff", "\u2028\n", -0.285, int64(-1<<63), uint64(7), uint8(0xff), int8(2), false)
	f.Fuzz(func(t *testing.T, name, text string, number float64, integer int64, positive uint64, which uint8, decimals int8, flag bool) {
		if adapters.FloatValue(number).Kind() == adapters.None {
			number = 0
		}
		name, text = strings.ToValidUTF8(name, "?"), strings.ToValidUTF8(text, "?")
		point := func(k int) adapters.Point {
			return adapters.Point{Name: fmt.Sprint(k, name), Unit: text, Decimals: min(decimals, 15), Labels: []adapters.Label{{Name: name, Value: text}, {Name: text, Value: name}}}
		}
		s := &adapters.Schema{Device: "d", Labels: []adapters.Label{{Name: name, Value: text}, {Name: name, Value: name}}}
		it := Item{Historical: flag, Volatile: !flag, Seq: positive >> 11, HasPrev: flag, Prev: uint64(integer) >> 11, Wall: integer, Sample: &adapters.Sample{Schema: s}}
		for k, v := range []adapters.Value{adapters.StringValue(text), adapters.FloatValue(number), adapters.IntValue(integer), adapters.UintValue(positive),
			adapters.BoolValue(flag), {}, adapters.FloatValue(float64(float32(number))), adapters.FloatValue(float64(integer))} {
			for range 1 + 30*int(which>>7) { // points that are not in the sample
				s.Points = append(s.Points, point(len(s.Points)))
			}
			r := adapters.Reading{Point: len(s.Points) - 1, Value: v}
			switch {
			case v.Kind() == adapters.None:
				r.Quality, r.Reason = adapters.Bad, adapters.Reason(text)
			case which>>k&1 == 0:
				continue
			case k%2 == 0:
				r.Quality, r.Reason = adapters.Stale, adapters.Reason(text)
			}
			it.Sample.Readings = append(it.Sample.Readings, r)
		}
		if year := time.Unix(0, it.Wall).Year(); year < 1900 || year > 2200 {
			it.Clock = clock.Unknown
		}
		checkAlike(t, Options{Batch: flag}, it)
	})
}
