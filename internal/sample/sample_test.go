package sample

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gateway/adapters"
)

var compare = cmp.Comparer(func(a, b adapters.Value) bool { return a == b })

func schema(points int) *adapters.Schema {
	s := &adapters.Schema{Bus: "meters", Device: "feed-in", Labels: []adapters.Label{{Name: "site", Value: "Köln"}}}
	for i := range points {
		s.Points = append(s.Points, adapters.Point{Name: fmt.Sprintf("p%d", i), Unit: "V", Decimals: 1})
	}
	return s
}

func everything() *Record {
	values := []adapters.Value{
		adapters.BoolValue(true), adapters.BoolValue(false),
		adapters.IntValue(0), adapters.IntValue(-1), adapters.IntValue(math.MinInt64), adapters.IntValue(math.MaxInt64),
		adapters.UintValue(0), adapters.UintValue(math.MaxUint64),
		adapters.FloatValue(0), adapters.FloatValue(math.Copysign(0, -1)), adapters.FloatValue(71.2),
		adapters.FloatValue(-0.0000001), adapters.FloatValue(1.0 / 3), adapters.FloatValue(float64(float32(230.1234))),
		adapters.FloatValue(math.MaxFloat64), adapters.FloatValue(math.SmallestNonzeroFloat64), adapters.FloatValue(1 << 34), adapters.FloatValue(-(1 << 34)),
		adapters.StringValue(""), adapters.StringValue("a\x00ü"),
	}
	r := &Record{Boot: 7, Prev: 1839, HasPrev: true}
	r.Sample.Time = 123_456_789_012
	for i, v := range values {
		r.Sample.Readings = append(r.Sample.Readings, adapters.Reading{Point: 2 * i, Value: v})
	}
	last := 2 * len(values)
	r.Sample.Readings = append(r.Sample.Readings,
		adapters.Reading{Point: last, Quality: adapters.Stale, Reason: adapters.ReasonTimeout, Value: adapters.FloatValue(3)},
		adapters.Reading{Point: last + 1, Quality: adapters.Bad, Reason: adapters.ReasonUnsupported},
		adapters.Reading{Point: last + 2, Quality: adapters.Bad, Reason: "exception 2"})
	r.Sample.Schema = schema(last + 3)
	return r
}

func TestARecordReadsBackAsItWasWritten(t *testing.T) {
	for name, r := range map[string]*Record{
		"everything":     everything(),
		"first, empty":   {Sample: adapters.Sample{Schema: schema(0)}},
		"largest":        {Boot: math.MaxUint32, Prev: math.MaxUint64, HasPrev: true, Sample: adapters.Sample{Schema: schema(1), Time: math.MaxInt64, Readings: []adapters.Reading{{Value: adapters.IntValue(1)}}}},
		"prev is zero":   {HasPrev: true, Sample: adapters.Sample{Schema: schema(1), Readings: []adapters.Reading{{Value: adapters.IntValue(1)}}}},
		"without a half": {Sample: adapters.Sample{Schema: schema(4), Readings: []adapters.Reading{{Point: 2, Value: adapters.BoolValue(true)}, {Point: 3, Value: adapters.BoolValue(true)}}}},
	} {
		t.Run(name, func(t *testing.T) {
			var d Decoder
			var got Record
			if err := d.Decode(Append(nil, r), EncodeSchema(r.Sample.Schema).Data, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(r, &got, compare); diff != "" {
				t.Error(diff)
			}
			for i := range got.Sample.Readings {
				w, _ := r.Sample.Readings[i].Value.Number()
				g, _ := got.Sample.Readings[i].Value.Number()
				if math.Float64bits(w) != math.Float64bits(g) {
					t.Errorf("reading %d: %x became %x", i, math.Float64bits(w), math.Float64bits(g))
				}
			}
		})
	}
}

// The bytes stand here so that a later version is held to reading them.
func TestTheFormatOfVersion1(t *testing.T) {
	r := &Record{Boot: 3, Prev: 300, HasPrev: true, Sample: adapters.Sample{
		Time: 1_000_000,
		Schema: &adapters.Schema{Bus: "b", Device: "d", Labels: []adapters.Label{{Name: "k", Value: "v"}},
			Points: []adapters.Point{{Name: "t", Unit: "°C", Decimals: -1}, {Name: "n", Labels: []adapters.Label{{Name: "x", Value: "y"}}}, {Name: "s"}}},
		Readings: []adapters.Reading{
			{Point: 0, Value: adapters.FloatValue(71.2)},
			{Point: 2, Quality: adapters.Stale, Reason: adapters.ReasonTimeout, Value: adapters.StringValue("hi")},
		},
	}}
	const record = "11" + "03" + "c0843d" + "ac02" + "02" + "00" + "09" + "900b" + "01" + "17" + "01" + "02" + "6869"
	if got := hex.EncodeToString(Append(nil, r)); got != record {
		t.Errorf("record\n got %s\nwant %s", got, record)
	}
	const blob = "01" + "0162" + "0164" + "01" + "016b" + "0176" + "03" + "0174" + "03c2b043" + "01" + "00" + "016e" + "00" + "00" + "01" + "0178" + "0179" + "0173" + "00" + "00" + "00"
	if got := hex.EncodeToString(EncodeSchema(r.Sample.Schema).Data); got != blob {
		t.Errorf("schema\n got %s\nwant %s", got, blob)
	}
}

func TestAReadingWithoutAValueIsBad(t *testing.T) {
	r := &Record{Sample: adapters.Sample{Schema: schema(2), Readings: []adapters.Reading{
		{Point: 0, Value: adapters.FloatValue(math.NaN())},
		{Point: 1, Quality: adapters.Bad, Reason: adapters.ReasonRange, Value: adapters.IntValue(5)},
	}}}
	var got Record
	if err := Decode(Append(nil, r), r.Sample.Schema, &got); err != nil {
		t.Fatal(err)
	}
	want := []adapters.Reading{{Point: 0, Quality: adapters.Bad, Reason: adapters.ReasonNotFinite}, {Point: 1, Quality: adapters.Bad, Reason: adapters.ReasonRange}}
	if diff := cmp.Diff(want, got.Sample.Readings, compare); diff != "" {
		t.Error(diff)
	}
}

func TestALaterVersionIsNamedNotGuessed(t *testing.T) {
	var d Decoder
	var r Record
	sch := EncodeSchema(schema(1)).Data
	if err := d.Decode([]byte{0x20, 0, 0, 0}, sch, &r); !errors.Is(err, ErrVersion) {
		t.Errorf("record: %v", err)
	}
	if err := d.Decode([]byte{0x10, 0, 0, 0}, []byte{2}, &r); !errors.Is(err, ErrVersion) {
		t.Errorf("schema: %v", err)
	}
}

func TestEveryTruncationIsRefused(t *testing.T) {
	r := everything()
	data, dict := Append(nil, r), EncodeSchema(r.Sample.Schema).Data
	var got Record
	for i := range data {
		if Decode(data[:i], r.Sample.Schema, &got) == nil {
			t.Errorf("record cut at %d of %d was taken", i, len(data))
		}
	}
	if Decode(append(data, 0), r.Sample.Schema, &got) == nil {
		t.Error("a byte too many was taken")
	}
	for i := range dict {
		if _, err := DecodeSchema(dict[:i]); err == nil {
			t.Errorf("schema cut at %d of %d was taken", i, len(dict))
		}
	}
}

// twenty is the sample that the size and speed of a reading are measured with: a meter's twenty
// registers, scaled as meters do.
func twenty() *Record {
	r := &Record{Boot: 12, Prev: 1_000_000, HasPrev: true}
	r.Sample.Schema = schema(20)
	r.Sample.Time = adapters.Instant(30 * 24 * 3600 * 1e9)
	for i := range 20 {
		r.Sample.Readings = append(r.Sample.Readings, adapters.Reading{Point: i, Value: adapters.FloatValue(float64(2301+i*317) / 10)})
	}
	return r
}

func TestAReadingTakesAtMostTwelveBytesWithFraming(t *testing.T) {
	const frame = 32 + 8 // the queue's frame header, and record length with reference to the schema
	worst := twenty()
	for i := range worst.Sample.Readings {
		worst.Sample.Readings[i].Value = adapters.FloatValue(math.Pi * float64(i+1))
	}
	for name, r := range map[string]*Record{"scaled": twenty(), "doubles of full length": worst} {
		n := len(Append(nil, r))
		t.Logf("%s: %d bytes, %.2f a reading with framing", name, n, float64(n+frame)/20)
		if n+frame > 12*20 {
			t.Errorf("%s: %d bytes for 20 readings and %d of framing", name, n, frame)
		}
	}
}

func TestEncodingAndDecodingNumbersAllocatesNothing(t *testing.T) {
	r := twenty()
	dict := EncodeSchema(r.Sample.Schema).Data
	var d Decoder
	var got Record
	buf := Append(nil, r)
	if n := testing.AllocsPerRun(100, func() {
		buf = Append(buf[:0], r)
		if err := d.Decode(buf, dict, &got); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDecode(f *testing.F) {
	r := everything()
	f.Add(Append(nil, r), EncodeSchema(r.Sample.Schema).Data)
	f.Add(Append(nil, twenty()), EncodeSchema(schema(20)).Data)
	f.Fuzz(func(t *testing.T, data, dict []byte) {
		var d Decoder
		var r, again Record
		if d.Decode(data, dict, &r) != nil {
			return
		}
		last := -1
		for _, rd := range r.Sample.Readings {
			if rd.Point <= last || rd.Point >= len(r.Sample.Schema.Points) {
				t.Fatalf("point %d after %d of %d", rd.Point, last, len(r.Sample.Schema.Points))
			}
			last = rd.Point
		}
		if err := Decode(Append(nil, &r), r.Sample.Schema, &again); err != nil {
			t.Fatalf("what was read cannot be written and read again: %v", err)
		}
		if diff := cmp.Diff(r, again, compare); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzFloat(f *testing.F) {
	for _, v := range []float64{0, 71.2, -0.1, 1e7, 1e-7, math.Pi, 1 << 33} {
		f.Add(math.Float64bits(v))
	}
	f.Fuzz(func(t *testing.T, bits uint64) {
		v := adapters.FloatValue(math.Float64frombits(bits))
		if v.Kind() == adapters.None {
			return
		}
		var tag [binary.MaxVarintLen64]byte
		b := appendReading(tag[:0], &adapters.Reading{Value: v})
		var got adapters.Reading
		d := decoder{b: b}
		d.reading(&got)
		if d.bad || got.Value != v {
			t.Fatalf("%v became %v", v, got.Value)
		}
	})
}

func BenchmarkAppend20(b *testing.B) {
	r := twenty()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = Append(buf[:0], r)
	}
	b.ReportMetric(float64(len(buf))/20, "B/reading")
}

func BenchmarkDecode20(b *testing.B) {
	r := twenty()
	data, dict := Append(nil, r), EncodeSchema(r.Sample.Schema).Data
	var d Decoder
	var got Record
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(data, dict, &got); err != nil {
			b.Fatal(err)
		}
	}
}
