package decode_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gateway/adapters"
	"gateway/adapters/decode"
)

func mustType(t testing.TB, name string) decode.Type {
	t.Helper()
	ty, err := decode.ParseType(name)
	if err != nil {
		t.Fatal(err)
	}
	return ty
}

func mustOrder(t testing.TB, name string) decode.Order {
	t.Helper()
	o, err := decode.ParseOrder(name)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func mustField(t testing.TB, s decode.Spec) *decode.Field {
	t.Helper()
	f, err := decode.New(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func ptr[T any](v T) *T { return &v }

// Each line is one example that a person can check by hand.
func TestTheTable(t *testing.T) {
	for _, c := range []struct {
		typ, order string
		wire       string
		want       adapters.Value
	}{
		{"bool", "", "\x00", adapters.BoolValue(false)},
		{"bool", "", "\x20", adapters.BoolValue(true)},
		{"int8", "", "\xff", adapters.IntValue(-1)},
		{"uint8", "", "\xff", adapters.UintValue(255)},
		{"int8_low", "", "\x01\x80", adapters.IntValue(-128)},
		{"int8_high", "", "\x80\x01", adapters.IntValue(-128)},
		{"uint8_low", "", "\x01\x80", adapters.UintValue(128)},
		{"uint8_high", "", "\x80\x01", adapters.UintValue(128)},
		{"int16", "AB", "\xff\xfe", adapters.IntValue(-2)},
		{"uint16", "AB", "\x12\x34", adapters.UintValue(0x1234)},
		{"uint16", "BA", "\x34\x12", adapters.UintValue(0x1234)},
		{"uint16", "CDAB", "\x12\x34", adapters.UintValue(0x1234)},
		{"uint16", "DCBA", "\x34\x12", adapters.UintValue(0x1234)},
		{"int24", "ABC", "\xff\xff\xfe", adapters.IntValue(-2)},
		{"uint24", "CBA", "\x56\x34\x12", adapters.UintValue(0x123456)},
		{"int32", "ABCD", "\xff\xff\xff\xfe", adapters.IntValue(-2)},
		{"uint32", "ABCD", "\x01\x02\x03\x04", adapters.UintValue(0x01020304)},
		{"uint32", "CDAB", "\x03\x04\x01\x02", adapters.UintValue(0x01020304)},
		{"uint32", "BADC", "\x02\x01\x04\x03", adapters.UintValue(0x01020304)},
		{"uint32", "DCBA", "\x04\x03\x02\x01", adapters.UintValue(0x01020304)},
		{"uint48", "ABCDEF", "\x01\x02\x03\x04\x05\x06", adapters.UintValue(0x010203040506)},
		{"uint48", "CDAB", "\x05\x06\x03\x04\x01\x02", adapters.UintValue(0x010203040506)},
		{"uint48", "FEDCBA", "\x06\x05\x04\x03\x02\x01", adapters.UintValue(0x010203040506)},
		{"uint64", "ABCDEFGH", "\x01\x02\x03\x04\x05\x06\x07\x08", adapters.UintValue(0x0102030405060708)},
		{"uint64", "GHEFCDAB", "\x07\x08\x05\x06\x03\x04\x01\x02", adapters.UintValue(0x0102030405060708)},
		{"uint64", "BADCFEHG", "\x02\x01\x04\x03\x06\x05\x08\x07", adapters.UintValue(0x0102030405060708)},
		{"uint64", "HGFEDCBA", "\x08\x07\x06\x05\x04\x03\x02\x01", adapters.UintValue(0x0102030405060708)},
		{"uint64", "CDABGHEF", "\x03\x04\x01\x02\x07\x08\x05\x06", adapters.UintValue(0x0102030405060708)},
		{"uint64", "EFGHABCD", "\x05\x06\x07\x08\x01\x02\x03\x04", adapters.UintValue(0x0102030405060708)},
		{"uint64", "DCBAHGFE", "\x04\x03\x02\x01\x08\x07\x06\x05", adapters.UintValue(0x0102030405060708)},
		{"uint64", "FEHGBADC", "\x06\x05\x08\x07\x02\x01\x04\x03", adapters.UintValue(0x0102030405060708)},
		{"int64", "", "\xff\xff\xff\xff\xff\xff\xff\xfe", adapters.IntValue(-2)},
		{"float16", "", "\x3c\x00", adapters.FloatValue(1)},
		{"float16", "", "\xc5\x00", adapters.FloatValue(-5)},
		{"float16", "", "\x00\x01", adapters.FloatValue(0x1p-24)},
		{"float32", "ABCD", "\x43\x66\x19\x9a", adapters.FloatValue(230.1)},
		{"float32", "CDAB", "\x19\x9a\x43\x66", adapters.FloatValue(230.1)},
		{"float64", "", "\x40\x6c\xc3\x33\x33\x33\x33\x33", adapters.FloatValue(230.1)},
		{"bcd16", "", "\x12\x34", adapters.UintValue(1234)},
		{"bcd32", "CDAB", "\x56\x78\x12\x34", adapters.UintValue(12345678)},
	} {
		f := mustField(t, decode.Spec{Type: mustType(t, c.typ), Order: mustOrder(t, cmpOr(c.order, "big"))})
		got, reason := f.Decode([]byte(c.wire))
		if got != c.want || reason != "" {
			t.Errorf("%s %s of % x: got %v %q, want %v", c.typ, c.order, c.wire, got, reason, c.want)
		}
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func TestTextComesInBothHalvesOrOne(t *testing.T) {
	for _, c := range []struct{ typ, order, wire, want string }{
		{"string", "big", "SDM630\x00\x00", "SDM630"},
		{"string", "big", "SDM630  ", "SDM630"},
		{"string", "BADC", "DS6M03\x00\x00", "SDM630"},
		{"string_low", "big", "\x00S\x00D\x00M\x00\x00", "SDM"},
		{"string_high", "big", "S\x00D\x00M\x00\x00\x00", "SDM"},
		{"string", "big", "21\xb0C", "21°C"}, // Latin-1 becomes UTF-8
		{"string", "big", "a\x01b\x7f", "a b"},
		{"hex", "big", "\x00\x1a\xff", "001aff"},
	} {
		ty := mustType(t, c.typ)
		ty.Bytes = len(c.wire)
		f := mustField(t, decode.Spec{Type: ty, Order: mustOrder(t, c.order)})
		if got, reason := f.Decode([]byte(c.wire)); got.Str() != c.want || reason != "" {
			t.Errorf("%s of %q: got %q %q, want %q", c.typ, c.wire, got.Str(), reason, c.want)
		}
	}
}

func TestScaleGivesTheDecimalThatWasMeant(t *testing.T) {
	u16 := mustType(t, "uint16")
	for _, c := range []struct {
		raw           uint16
		scale, offset float64
		want          float64
		decimals      int8
	}{
		{3, 0.1, 0, 0.3, 1}, // 3*0.1 is 0.30000000000000004
		{712, 0.1, 0, 71.2, 1},
		{2951, 0.1, -273.15, 21.95, 2},
		{65535, 0.001, 0, 65.535, 3},
		{5, 10, 0, 50, 0},
		{1, 1.0 / 3, 0, 1.0 / 3, -1},
	} {
		f := mustField(t, decode.Spec{Type: u16, Scale: c.scale, Offset: c.offset})
		b := binary.BigEndian.AppendUint16(nil, c.raw)
		if got, reason := f.Decode(b); got != adapters.FloatValue(c.want) || reason != "" {
			t.Errorf("%d*%v+%v: got %v %q, want %v", c.raw, c.scale, c.offset, got, reason, c.want)
		}
		if f.Decimals() != c.decimals {
			t.Errorf("scale %v, offset %v: %d decimals, want %d", c.scale, c.offset, f.Decimals(), c.decimals)
		}
	}
}

func TestScaleFactorFromAnotherRegister(t *testing.T) {
	f := mustField(t, decode.Spec{Type: mustType(t, "int16")})
	for _, c := range []struct {
		exp  int
		want adapters.Value
	}{{0, adapters.IntValue(2301)}, {-1, adapters.FloatValue(230.1)}, {-2, adapters.FloatValue(23.01)}, {2, adapters.FloatValue(230100)}} {
		if got, _ := f.DecodeExp([]byte{0x08, 0xfd}, c.exp); got != c.want {
			t.Errorf("2301 with sunssf %d: got %v, want %v", c.exp, got, c.want)
		}
		b := make([]byte, 2)
		if err := f.EncodeExp(b, c.want, c.exp); err != nil || !bytes.Equal(b, []byte{0x08, 0xfd}) {
			t.Errorf("%v with sunssf %d encodes to % x, %v", c.want, c.exp, b, err)
		}
	}
}

func TestADoubtedValueIsBadWithItsReason(t *testing.T) {
	for _, c := range []struct {
		name string
		spec decode.Spec
		wire string
		want adapters.Reason
	}{
		{"sentinel 0x8000", decode.Spec{Type: mustType(t, "int16"), Sentinels: []uint64{0x8000}}, "\x80\x00", adapters.ReasonSentinel},
		{"sentinel 0xFFFF", decode.Spec{Type: mustType(t, "uint16"), Scale: 0.1, Sentinels: []uint64{0xffff}}, "\xff\xff", adapters.ReasonSentinel},
		{"sentinel of two registers", decode.Spec{Type: mustType(t, "uint32"), Order: decode.WordsSwapped, Sentinels: []uint64{0x80000000}}, "\x00\x00\x80\x00", adapters.ReasonSentinel},
		{"NaN", decode.Spec{Type: mustType(t, "float32")}, "\x7f\xc0\x00\x00", adapters.ReasonNotFinite},
		{"infinity", decode.Spec{Type: mustType(t, "float64")}, "\xff\xf0\x00\x00\x00\x00\x00\x00", adapters.ReasonNotFinite},
		{"NaN of 16 bits", decode.Spec{Type: mustType(t, "float16")}, "\x7e\x00", adapters.ReasonNotFinite},
		{"below the range", decode.Spec{Type: mustType(t, "int16"), Min: ptr(0.0)}, "\xff\xff", adapters.ReasonRange},
		{"above the range", decode.Spec{Type: mustType(t, "int16"), Scale: 0.1, Max: ptr(100.0)}, "\x7f\xff", adapters.ReasonRange},
		{"no decimal digit", decode.Spec{Type: mustType(t, "bcd16")}, "\x12\x3a", adapters.ReasonParse},
		{"too short", decode.Spec{Type: mustType(t, "int32")}, "\x12\x3a", adapters.ReasonParse},
		{"empty text", decode.Spec{Type: decode.Type{Kind: decode.String, Bytes: 2}, Zero: true}, "\x00\x00", adapters.ReasonSentinel},
	} {
		if got, reason := mustField(t, c.spec).Decode([]byte(c.wire)); reason != c.want || got.Kind() != adapters.None {
			t.Errorf("%s: got %v %q, want no value and %q", c.name, got, reason, c.want)
		}
	}
}

func TestEnumerationsAndBitFields(t *testing.T) {
	mode := mustField(t, decode.Spec{Type: mustType(t, "uint16"), Labels: map[int64]string{0: "off", 1: "heat", 2: "cool"}})
	faults := mustField(t, decode.Spec{Type: mustType(t, "uint16"), Flags: map[int]string{0: "overvoltage", 3: "fan"}})
	for _, c := range []struct {
		f    *decode.Field
		raw  byte
		want string
	}{
		{mode, 1, "heat"}, {mode, 7, "7"}, {faults, 0, ""}, {faults, 9, "overvoltage,fan"}, {faults, 0x28, "fan,bit 5"},
	} {
		got, reason := c.f.Decode([]byte{0, c.raw})
		if got != adapters.StringValue(c.want) || reason != "" {
			t.Errorf("%#x: got %q %q, want %q", c.raw, got, reason, c.want)
		}
		b := make([]byte, 2)
		if err := c.f.Encode(b, got); err != nil || b[1] != c.raw {
			t.Errorf("%q encodes to % x, %v", got, b, err)
		}
	}
	if err := mode.Encode(make([]byte, 2), adapters.StringValue("haet")); err == nil || !strings.Contains(err.Error(), `did you mean "heat"`) {
		t.Errorf("a mistyped label: %v", err)
	}
}

func TestABitIsWrittenWithoutTouchingItsNeighbours(t *testing.T) {
	bit, err := mustType(t, "uint16").Part(4, 6)
	if err != nil {
		t.Fatal(err)
	}
	f := mustField(t, decode.Spec{Type: bit})
	b := []byte{0xff, 0xff}
	if err := f.Encode(b, adapters.UintValue(2)); err != nil || !bytes.Equal(b, []byte{0xff, 0xaf}) {
		t.Errorf("got % x, %v", b, err)
	}
	if f.Type().Whole() {
		t.Error("three bits of a register are not the whole of it")
	}
}

func TestWhatDoesNotFitIsRefusedWithTheLimits(t *testing.T) {
	for _, c := range []struct {
		spec decode.Spec
		v    adapters.Value
		want string
	}{
		{decode.Spec{Type: mustType(t, "int16")}, adapters.IntValue(40000), "-32768 to 32767"},
		{decode.Spec{Type: mustType(t, "uint16"), Scale: 0.1}, adapters.FloatValue(7000), "0 to 6553.5"},
		{decode.Spec{Type: mustType(t, "uint16")}, adapters.IntValue(-1), "0 to 65535"},
		{decode.Spec{Type: mustType(t, "uint64")}, adapters.FloatValue(1e30), "does not fit"},
		{decode.Spec{Type: mustType(t, "bcd16")}, adapters.UintValue(10000), "0 to 9999"},
		{decode.Spec{Type: mustType(t, "float16")}, adapters.FloatValue(70000), "-65504 to 65504"},
		{decode.Spec{Type: mustType(t, "uint16"), Min: ptr(10.0), Max: ptr(20.0)}, adapters.UintValue(21), "valid range 10 to 20"},
		{decode.Spec{Type: mustType(t, "uint16")}, adapters.StringValue("many"), `"many" is not a uint16`},
		{decode.Spec{Type: mustType(t, "bit")}, adapters.UintValue(2), "neither true nor false"},
		{decode.Spec{Type: decode.Type{Kind: decode.String, Bytes: 2}}, adapters.StringValue("abc"), "room for 2"},
		{decode.Spec{Type: mustType(t, "uint16")}, adapters.Value{}, "no value"},
	} {
		f := mustField(t, c.spec)
		if err := f.Encode(make([]byte, f.Size()), c.v); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v into %v: %v, want something with %q", c.v, c.spec.Type, err, c.want)
		}
	}
}

func TestAMistypedTypeIsAnsweredWithTheOneMeant(t *testing.T) {
	for typed, want := range map[string]string{"unit16": "uint16", "Float32": "float32", "flaot32": "float32", "int8_lo": "int8_low", "bolo": "bool"} {
		if _, err := decode.ParseType(typed); err == nil || !strings.Contains(err.Error(), `did you mean "`+want+`"`) {
			t.Errorf("%s: %v", typed, err)
		}
	}
	for _, none := range []string{"", "int0", "int65", "float24", "bcd6", "int08", "quaternion", "int+8"} {
		if _, err := decode.ParseType(none); err == nil {
			t.Errorf("%q is a type", none)
		}
	}
	if _, err := decode.ParseOrder("CDBA"); err == nil || !strings.Contains(err.Error(), "did you mean") {
		t.Errorf("CDBA: %v", err)
	}
}

func TestImpossibleSpecsAreRefused(t *testing.T) {
	u16 := mustType(t, "uint16")
	for name, s := range map[string]decode.Spec{
		"no type":                 {},
		"empty range":             {Type: u16, Min: ptr(2.0), Max: ptr(1.0)},
		"scale not finite":        {Type: u16, Scale: math.Inf(1)},
		"string without length":   {Type: mustType(t, "string")},
		"scale of a string":       {Type: decode.Type{Kind: decode.String, Bytes: 4}, Scale: 2},
		"labels of a float":       {Type: mustType(t, "float32"), Labels: map[int64]string{1: "a"}},
		"labels and flags":        {Type: u16, Labels: map[int64]string{1: "a"}, Flags: map[int]string{1: "a"}},
		"one label for two":       {Type: u16, Labels: map[int64]string{1: "a", 2: "a"}},
		"flag beyond the width":   {Type: u16, Flags: map[int]string{16: "a"}},
		"sentinel too wide":       {Type: u16, Sentinels: []uint64{0x10000}},
		"bits beyond the bytes":   {Type: decode.Type{Kind: decode.Uint, Bits: 12, Shift: 5, Bytes: 2}},
		"more than eight bytes":   {Type: decode.Type{Kind: decode.Uint, Bits: 64, Bytes: 9}},
		"half characters":         {Type: decode.Type{Kind: decode.StringLow, Bytes: 3}},
		"a float of twelve bits":  {Type: decode.Type{Kind: decode.Float, Bits: 12, Bytes: 2}},
		"three bits of a decimal": {Type: decode.Type{Kind: decode.BCD, Bits: 3, Bytes: 1}},
	} {
		if _, err := decode.New(s); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestInRegisters(t *testing.T) {
	if ty, err := mustType(t, "bool").InRegisters(); err != nil || ty.Bytes != 2 || ty.Bits != 16 {
		t.Errorf("bool: %+v, %v", ty, err)
	}
	if ty, err := mustType(t, "int24").InRegisters(); err != nil || ty.Bytes != 4 || ty.Bits != 24 {
		t.Errorf("int24: %+v, %v", ty, err)
	}
	if _, err := mustType(t, "uint8").InRegisters(); err == nil || !strings.Contains(err.Error(), "uint8_low") {
		t.Errorf("uint8: %v", err)
	}
}

var typeNames = []string{"bool", "bit", "int8_low", "int8_high", "uint8_low", "uint8_high", "int8", "int12", "int16", "int24", "int32", "int48", "int64",
	"uint8", "uint12", "uint16", "uint24", "uint32", "uint48", "uint64", "float16", "float32", "float64", "bcd8", "bcd16", "bcd32", "bcd64"}

// allOrders are the eight that exist.
var allOrders = []string{"ABCD", "DCBA", "CDAB", "BADC", "CDABGHEF", "DCBAHGFE", "EFGHABCD", "FEHGBADC"}

// Whatever the wire carries: what decodes to a good value encodes to the same bits.
func TestEncodeUndoesDecode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom(typeNames).Draw(t, "type")
		ty, err := decode.ParseType(name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "bit" {
			ty.Shift = rapid.IntRange(0, 15).Draw(t, "bit")
		}
		order, err := decode.ParseOrder(rapid.SampledFrom(allOrders).Draw(t, "order"))
		if err != nil {
			t.Fatal(err)
		}
		scale := rapid.SampledFrom([]float64{0, 0.1, 0.001, 10, -0.5}).Draw(t, "scale")
		if ty.Kind == decode.Bool || ty.Kind == decode.Float || ty.Bits > 32 {
			scale = 0 // beyond 2^53 and for floats a scale rounds
		}
		f, err := decode.New(decode.Spec{Type: ty, Order: order, Scale: scale})
		if err != nil {
			t.Fatal(err)
		}
		wire := rapid.SliceOfN(rapid.Byte(), ty.Bytes, ty.Bytes).Draw(t, "wire")
		v, reason := f.Decode(wire)
		if reason != "" {
			if v.Kind() != adapters.None {
				t.Fatalf("bad (%s), yet a value: %v", reason, v)
			}
			return
		}
		got := bytes.Clone(wire)
		if err := f.Encode(got, v); err != nil {
			t.Fatalf("% x decodes to %v, which does not encode: %v", wire, v, err)
		}
		back, _ := f.Decode(got)
		if back != v {
			t.Fatalf("% x → %v → % x → %v", wire, v, got, back)
		}
		if name != "bool" && !bytes.Equal(got, wire) && !negativeZero(v) {
			t.Fatalf("% x → %v → % x", wire, v, got)
		}
	})
}

func negativeZero(v adapters.Value) bool {
	x, ok := v.Number()
	return ok && x == 0
}

// Whatever the value: what encodes decodes to the same value.
func TestDecodeUndoesEncode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ty, err := decode.ParseType(rapid.SampledFrom([]string{"int8", "int16", "int24", "int32", "int64", "uint16", "uint32", "uint64", "bcd32", "int8_high"}).Draw(t, "type"))
		if err != nil {
			t.Fatal(err)
		}
		order, _ := decode.ParseOrder(rapid.SampledFrom(allOrders).Draw(t, "order"))
		f, err := decode.New(decode.Spec{Type: ty, Order: order})
		if err != nil {
			t.Fatal(err)
		}
		n := rapid.Int64().Draw(t, "n")
		b := make([]byte, f.Size())
		if err := f.Encode(b, adapters.IntValue(n)); err != nil {
			return // out of range
		}
		v, reason := f.Decode(b)
		if reason != "" || v.Int() != n {
			t.Fatalf("%d → % x → %v %q", n, b, v, reason)
		}
	})
}

func TestTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"string", "string_low", "string_high"}).Draw(t, "type")
		s := strings.TrimSpace(rapid.StringMatching(`[!-~]{0,12}`).Draw(t, "text"))
		ty, _ := decode.ParseType(name)
		ty.Bytes = 24
		order, _ := decode.ParseOrder(rapid.SampledFrom(allOrders).Draw(t, "order"))
		f, err := decode.New(decode.Spec{Type: ty, Order: order})
		if err != nil {
			t.Fatal(err)
		}
		b := bytes.Repeat([]byte{'x'}, 24)
		if err := f.Encode(b, adapters.StringValue(s)); err != nil {
			t.Fatal(err)
		}
		if v, reason := f.Decode(b); reason != "" || v.Str() != s {
			t.Fatalf("%q → %q → %v %q", s, b, v, reason)
		}
	})
}

// Every float16 there is; only the negative zero, which nobody wants to read, becomes the plain one.
func TestFloat16RoundTrip(t *testing.T) {
	f := mustField(t, decode.Spec{Type: mustType(t, "float16")})
	for n := range 1 << 16 {
		if n == 0x8000 {
			continue
		}
		b := binary.BigEndian.AppendUint16(nil, uint16(n))
		v, reason := f.Decode(b)
		if reason != "" {
			if n&0x7c00 != 0x7c00 {
				t.Fatalf("%04x is %s", n, reason)
			}
			continue
		}
		got := make([]byte, 2)
		if err := f.Encode(got, v); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%04x → %v → % x, %v", n, v, got, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(uint8(3), uint8(0), 0.1, []byte{0x08, 0xfd})
	f.Add(uint8(25), uint8(6), 1.0, []byte{0x12, 0x34, 0x56, 0x78})
	f.Fuzz(func(t *testing.T, name, order uint8, scale float64, b []byte) {
		ty, err := decode.ParseType(typeNames[int(name)%len(typeNames)])
		if err != nil {
			t.Fatal(err)
		}
		fd, err := decode.New(decode.Spec{Type: ty, Order: decode.Order(order % 8), Scale: scale})
		if err != nil {
			return
		}
		v, reason := fd.Decode(b)
		if (v.Kind() == adapters.None) != (reason != "") {
			t.Fatalf("value %v with reason %q", v, reason)
		}
		if x, ok := v.Number(); ok && (math.IsNaN(x) || math.IsInf(x, 0)) {
			t.Fatalf("published %v", x)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, c := range []struct {
		name string
		spec decode.Spec
		wire string
	}{
		{"uint16", decode.Spec{Type: mustType(b, "uint16")}, "\x08\xfd"},
		{"uint16 scaled", decode.Spec{Type: mustType(b, "uint16"), Scale: 0.1}, "\x08\xfd"},
		{"float32", decode.Spec{Type: mustType(b, "float32")}, "\x43\x66\x19\x9a"},
		{"int64 GHEFCDAB", decode.Spec{Type: mustType(b, "int64"), Order: decode.WordsSwapped}, "\x01\x02\x03\x04\x05\x06\x07\x08"},
	} {
		f := mustField(b, c.spec)
		wire := []byte(c.wire)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f.Decode(wire)
			}
		})
	}
}

// The digits that are left out are those that the device did not send, not those that its float would
// not hold after scale and offset.
func TestAScaledFloatKeepsTheDevicesPrecision(t *testing.T) {
	for _, c := range []struct {
		typ, wire     string
		scale, offset float64
		want          float64
	}{
		{"float32", "\x3f\x00\x00\x00", 1, 1e8, 100000000.5},
		{"float32", "\x43\x66\x19\x9a", 1, 0, 230.1},
		{"float32", "\x43\x66\x19\x9a", 0.1, 0, 23.01},
		{"float32", "\x43\x66\x19\x9a", 1000, -0.5, 230099.5},
		{"float16", "\x2f\xdf", 1, 1000, 1000.123},
	} {
		f := mustField(t, decode.Spec{Type: mustType(t, c.typ), Scale: c.scale, Offset: c.offset})
		v, reason := f.Decode([]byte(c.wire))
		x, _ := v.Number()
		if reason != "" || math.Abs(x-c.want) > 1e-9*math.Abs(c.want) {
			t.Errorf("%s % x scale %v offset %v: %v %q, want %v", c.typ, c.wire, c.scale, c.offset, v, reason, c.want)
		}
	}
}
