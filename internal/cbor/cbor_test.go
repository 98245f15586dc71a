package cbor

import (
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

// The examples of RFC 8949, appendix A, that this package writes. Floats that are integers it writes as such.
func TestWhatTheRFCShowsIsWritten(t *testing.T) {
	for _, c := range []struct {
		got  []byte
		want string
	}{
		{AppendUint(nil, 0), "00"}, {AppendUint(nil, 23), "17"}, {AppendUint(nil, 24), "1818"}, {AppendUint(nil, 100), "1864"},
		{AppendUint(nil, 1000), "1903e8"}, {AppendUint(nil, 1000000), "1a000f4240"}, {AppendUint(nil, 1000000000000), "1b000000e8d4a51000"},
		{AppendUint(nil, math.MaxUint64), "1bffffffffffffffff"},
		{AppendInt(nil, 10), "0a"}, {AppendInt(nil, -1), "20"}, {AppendInt(nil, -10), "29"}, {AppendInt(nil, -100), "3863"}, {AppendInt(nil, -1000), "3903e7"},
		{AppendInt(nil, math.MinInt64), "3b7fffffffffffffff"},
		{AppendNumber(nil, math.Copysign(0, -1)), "f98000"}, {AppendNumber(nil, 1.5), "f93e00"}, {AppendNumber(nil, 1.1), "fb3ff199999999999a"},
		{AppendNumber(nil, 5.960464477539063e-8), "f90001"}, {AppendNumber(nil, 0.00006103515625), "f90400"},
		{AppendNumber(nil, -4.1), "fbc010666666666666"}, {AppendNumber(nil, 3.4028234663852886e+38), "fa7f7fffff"},
		{AppendNumber(nil, 1.0e+300), "fb7e37e43c8800759c"}, {AppendNumber(nil, -4), "23"}, {AppendNumber(nil, 100000), "1a000186a0"},
		{AppendNumber(nil, 1<<53), "1b0020000000000000"}, {AppendNumber(nil, 1<<54), "fa5a800000"},
		{AppendText(nil, ""), "60"}, {AppendText(nil, "a"), "6161"}, {AppendText(nil, "IE", "TF"), "6449455446"}, {AppendText(nil, "\"\\"), "62225c"},
		{AppendText(nil, "\u00fc"), "62c3bc"}, {AppendText(nil, "\u6c34"), "63e6b0b4"}, {AppendText(nil, "\xff"), "63efbfbd"},
		{AppendBytes(nil, nil), "40"}, {AppendBytes(nil, []byte{1, 2, 3, 4}), "4401020304"},
		{AppendArray(nil, 0), "80"}, {AppendMap(nil, 0), "a0"}, {AppendArray(nil, 25), "9819"}, {AppendMap(nil, 2), "a2"},
		{AppendBool(nil, false), "f4"}, {AppendBool(nil, true), "f5"}, {[]byte{Null}, "f6"},
		{[]byte{OpenArray, OpenMap, Break, Break}, "9fbfffff"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

func TestTheLengthOfAnInteger(t *testing.T) {
	for _, n := range []uint64{0, 23, 24, 255, 256, 65535, 65536, 1<<32 - 1, 1 << 32, math.MaxUint64} {
		if got := UintLen(n); got != len(AppendUint(nil, n)) {
			t.Errorf("%d: %d", n, got)
		}
	}
}

// The examples of appendix A that it reads.
func TestWhatTheRFCShowsIsRead(t *testing.T) {
	for text, want := range map[string]any{
		"00": uint64(0), "1818": uint64(24), "1903e8": uint64(1000), "1a000f4240": uint64(1000000), "1bffffffffffffffff": uint64(math.MaxUint64),
		"20": int64(-1), "3863": int64(-100), "3b7fffffffffffffff": int64(math.MinInt64),
		"f90000": 0.0, "f93c00": 1.0, "f93e00": 1.5, "f97bff": 65504.0, "f90001": 5.960464477539063e-8, "f90400": 0.00006103515625, "f9c400": -4.0,
		"fa47c35000": 100000.0, "fb3ff199999999999a": 1.1, "f97c00": math.Inf(1), "f9fc00": math.Inf(-1),
		"f4": false, "f5": true, "f6": nil, "f7": nil,
		"40": []byte{}, "4401020304": []byte{1, 2, 3, 4}, "60": "", "63e6b0b4": "\u6c34",
		"80": []any{}, "8301820203820405": []any{uint64(1), []any{uint64(2), uint64(3)}, []any{uint64(4), uint64(5)}},
		"a201020304":         map[any]any{uint64(1): uint64(2), uint64(3): uint64(4)},
		"a26161016162820203": map[any]any{"a": uint64(1), "b": []any{uint64(2), uint64(3)}},
	} {
		b, err := hex.DecodeString(text + "ff")
		if err != nil {
			t.Fatal(err)
		}
		got, rest, err := Decode(b)
		if err != nil || len(rest) != 1 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v, %x, %v; want %#v", text, got, rest, err, want)
		}
	}
	if v, _, err := Decode([]byte{0xf9, 0x7e, 0x00}); err != nil || !math.IsNaN(v.(float64)) {
		t.Errorf("NaN: %v, %v", v, err)
	}
	if v, _, err := Decode([]byte{0xf9, 0x80, 0x00}); err != nil || !math.Signbit(v.(float64)) {
		t.Errorf("-0: %v, %v", v, err)
	}
}

func TestWhatIsNotReadIsAnError(t *testing.T) {
	for text, want := range map[string]error{
		"": errShort, "18": errShort, "1b00000000000000": errShort, "42": errShort, "6261": errShort, "8201": errShort, "a101": errShort,
		"9bffffffffffffffff": errShort, "bbffffffffffffffff": errShort, "5bffffffffffffffff": errShort, "f97c": errShort,
		"c100": errUnsupported, "9fff": errUnsupported, "bfff": errUnsupported, "5fff": errUnsupported, "ff": errUnsupported, "1c": errUnsupported,
		"3bffffffffffffffff": errUnsupported, "f0": errUnsupported, "f820": errUnsupported,
		"61ff": errText, "a1f401": errKey, "a28001": errShort, "a201000100": errKey, "a1400000": errKey,
		strings.Repeat("81", 20) + "00": errDeep, strings.Repeat("a100", 20) + "00": errDeep,
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if v, _, err := Decode(b); !errors.Is(err, want) {
			t.Errorf("%s: %v, %v; want %v", text, v, err, want)
		}
	}
}

// Whatever half precision holds is written in it, and read as it was.
func TestAllOfHalfPrecision(t *testing.T) {
	for h := range 1 << 16 {
		f := fromHalf(uint16(h))
		if math.IsNaN(f) || math.IsInf(f, 0) {
			continue
		}
		if got, ok := toHalf(float32(f)); !ok || got != uint16(h) {
			t.Fatalf("%#04x is %v, which is written as %#04x, %t", h, f, got, ok)
		}
	}
	for _, f := range []float32{65505, 65536, 1e10, 1 + 1.0/2048, math.SmallestNonzeroFloat32, 1.0 / (1 << 25), 1.5 / (1 << 24)} {
		if h, ok := toHalf(f); ok {
			t.Errorf("%v is said to be %#04x", f, h)
		}
	}
}

func FuzzNumbersReadBack(f *testing.F) {
	f.Add(71.2, int64(-1), uint64(1<<63), "text")
	f.Fuzz(func(t *testing.T, x float64, i int64, u uint64, s string) {
		b := AppendText(AppendUint(AppendInt(AppendNumber(nil, x), i), u), s)
		var list []any
		for len(b) > 0 {
			v, rest, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			list, b = append(list, v), rest
		}
		number := func(v any) float64 {
			switch n := v.(type) {
			case uint64:
				return float64(n)
			case int64:
				return float64(n)
			}
			return v.(float64)
		}
		if got := number(list[0]); math.Float64bits(got) != math.Float64bits(x) && !(math.IsNaN(got) && math.IsNaN(x)) {
			t.Errorf("%v became %v", x, got)
		}
		if got, is := list[1].(int64); is && got != i || !is && list[1] != uint64(i) || list[2] != u || list[3] != strings.ToValidUTF8(s, "\ufffd") {
			t.Errorf("%d, %d, %q became %v", i, u, s, list[1:])
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, text := range []string{"a26161016162820203", "8301820203820405", "9f01ff", "fb3ff199999999999a", "9b00000000ffffffff"} {
		b, err := hex.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, rest, err := Decode(b); err == nil && len(rest) >= len(b) {
			t.Errorf("%v took nothing of %x", v, b)
		}
	})
}
