package verify

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"gateway/adapters"
	"gateway/internal/format"
	"gateway/mqtt"
)

// compact makes messages of the format "cbor": a device's schema, and a sample of it.
func compact(t *testing.T, s *adapters.Schema, it format.Item, readings ...adapters.Reading) (schema, sample *mqtt.Message) {
	t.Helper()
	f, err := format.New(format.Options{Gateway: "g", Kind: format.CBOR})
	if err != nil {
		t.Fatal(err)
	}
	it.Epoch, it.Sample = 7, &adapters.Sample{Schema: s, Readings: readings}
	var out format.Out
	if err := f.Append(&out, it); err != nil {
		t.Fatal(err)
	}
	return f.Schema(s), &out.Messages[0]
}

func TestACompactSampleHasTheNamesOfItsSchema(t *testing.T) {
	s := &adapters.Schema{Device: "a", Points: []adapters.Point{{Name: "t", Decimals: 1}, {Name: "on"}, {Name: "energy"}, {Name: "text"}, {Name: "gone"}, {Name: "absent"}}}
	schema, m := compact(t, s, format.Item{Seq: 9, Prev: 4, HasPrev: true, Historical: true},
		adapters.Reading{Point: 0, Value: adapters.FloatValue(-71.2)}, adapters.Reading{Point: 1, Value: adapters.BoolValue(true)},
		adapters.Reading{Point: 2, Value: adapters.UintValue(1<<63 + 1)}, adapters.Reading{Point: 3, Value: adapters.StringValue("x")},
		adapters.Reading{Point: 4, Quality: adapters.Bad, Reason: adapters.ReasonTimeout})
	var r Reader
	list, err := r.Read(m)
	if err != nil || len(list) != 1 || list[0].Unnamed != schema.Topic || list[0].Values != nil || list[0].Readings != 5 {
		t.Fatalf("before its schema: %+v, %v", list, err)
	}
	if list, err := r.Read(schema); err != nil || len(list) != 0 {
		t.Fatalf("the schema: %+v, %v", list, err)
	}
	list, err = r.Read(m)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	want := Sample{Epoch: "0000000000000007", Seq: 9, Prev: 4, HasPrev: true, Historical: true, Readings: 5,
		Values: map[string]any{"t": -71.2, "on": true, "energy": "9223372036854775809", "text": "x"}}
	if diff := cmp.Diff(want, list[0], cmp.AllowUnexported(Sample{})); diff != "" {
		t.Error(diff)
	}
}

func TestACompactStreamIsFollowed(t *testing.T) {
	s := &adapters.Schema{Device: "a", Points: []adapters.Point{{Name: "x"}}}
	record := &adapters.Schema{Device: "gateway", Points: []adapters.Point{{Name: "event"}, {Name: "destination"}, {Name: "first"}, {Name: "last"}, {Name: "reason"}}}
	value := adapters.Reading{Value: adapters.IntValue(1)}
	schema, first := compact(t, s, format.Item{Seq: 1}, value)
	_, second := compact(t, s, format.Item{Seq: 9, Prev: 5, HasPrev: true}, value)
	_, third := compact(t, s, format.Item{Seq: 20, Prev: 19, HasPrev: true}, value)
	named, loss := compact(t, record, format.Item{Seq: 10}, adapters.Reading{Point: 0, Value: adapters.StringValue("loss")},
		adapters.Reading{Point: 1, Value: adapters.StringValue("cloud")}, adapters.Reading{Point: 2, Value: adapters.UintValue(3)},
		adapters.Reading{Point: 3, Value: adapters.UintValue(8)}, adapters.Reading{Point: 4, Value: adapters.StringValue("queue full")})

	c := NewChecker()
	r := check(t, c, schema, first, second, second, loss, third)
	if r.Samples != 4 || r.Duplicates != 1 || len(r.Gaps) != 2 || r.Unexplained() != 2 || r.Unnamed != 1 || r.Foreign != 0 || r.Topics != 2 {
		t.Errorf("while nobody can read the loss record: %+v", r)
	}
	r = check(t, c, named)
	if len(r.Gaps) != 2 || r.Unexplained() != 1 || !r.Gaps[0].Explained || r.Gaps[0].Reason != "queue full" || r.Unnamed != 0 {
		t.Errorf("when its schema came: %+v", r)
	}
}

func TestWhatOnlyLooksLikeACompactSampleIsForeign(t *testing.T) {
	for _, bad := range []string{
		"\x80", "\x81\x80", "\x82\x81\x00\x00", "\x86\x00\x00\x00\x00\x00\x00", // no samples
		"\x86\x48epoch678\x01\xf6\xf6\x48schema78\x01",          // values are no list
		"\x86\x48epoch678\x01\x61x\xf6\x48schema78\x80",         // prev is a text
		"\x86\x48epoch678\x01\xf6\xf6\x48schema78\xa1\x61x\x01", // a value without a number
		"\x86\x48epoch678\x01\xf6\xf6\x48schema78\x80\x00",      // more behind it
		"\x9f\xff", "\xbf\xff", "\x85\x48epoch678\x01\xf6\xf6\x40",
	} {
		if list, err := new(Reader).Read(&mqtt.Message{Topic: "g/a", Payload: []byte(bad)}); err == nil {
			t.Errorf("%x was taken for %+v", bad, list)
		}
	}
	schema, _ := compact(t, &adapters.Schema{Device: "a", Points: []adapters.Point{{Name: "x"}}}, format.Item{}, adapters.Reading{Value: adapters.IntValue(1)})
	for name, m := range map[string]mqtt.Message{
		"on another topic": {Topic: "g/a/schema/0011223344556677", Payload: schema.Payload},
		"changed":          {Topic: schema.Topic, Payload: append([]byte{schema.Payload[0]}, schema.Payload...)},
		"removed":          {Topic: schema.Topic},
	} {
		if list, err := new(Reader).Read(&m); err == nil {
			t.Errorf("a schema that is %s was taken: %+v", name, list)
		}
	}
}

// Whatever a broker sends is read without harm.
func FuzzRead(f *testing.F) {
	s := &adapters.Schema{Device: "a", Points: []adapters.Point{{Name: "x", Decimals: 1}, {Name: "y"}}}
	for _, it := range []format.Item{{Seq: 1}, {Seq: 1 << 40, Prev: 1, HasPrev: true, Historical: true}} {
		ff, err := format.New(format.Options{Gateway: "g", Kind: format.CBOR})
		if err != nil {
			f.Fatal(err)
		}
		it.Sample = &adapters.Sample{Schema: s, Readings: []adapters.Reading{{Point: 0, Value: adapters.FloatValue(1.5)}, {Point: 1, Quality: adapters.Bad, Reason: "r"}}}
		var out format.Out
		if err := ff.Append(&out, it); err != nil {
			f.Fatal(err)
		}
		f.Add(out.Messages[0].Payload)
		f.Add(ff.Schema(s).Payload)
	}
	f.Add([]byte(`{"epoch":"e","seq":1,"values":{"event":"loss","first":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := NewChecker()
		err := c.Add(&mqtt.Message{Topic: "g/a", Payload: b})
		if r := c.Report(); (err == nil) != (r.Samples > 0) {
			t.Errorf("%x: %v, and %+v", b, err, r)
		}
	})
}
