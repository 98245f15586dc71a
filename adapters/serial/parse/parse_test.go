package parse_test

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gateway/adapters"
	"gateway/adapters/decode"
	"gateway/adapters/serial/frame"
	"gateway/adapters/serial/parse"
)

// say writes what a frame says about each field: its value, (reason), or - where it says nothing.
func say(t testing.TB, s parse.Spec, data string) string {
	t.Helper()
	p, err := parse.New(s)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]parse.Result, len(s.Fields))
	if !p.Parse([]byte(data), out) {
		return "other"
	}
	var words []string
	for _, r := range out {
		switch {
		case r.Reason != "":
			words = append(words, "("+string(r.Reason)+")")
		case !r.Said():
			words = append(words, "-")
		default:
			words = append(words, r.Value.String())
		}
	}
	return strings.Join(words, " | ")
}

// fields are named fields of numbers; a name "x:text" has that type.
func fields(names ...string) (list []parse.Field) {
	for _, n := range names {
		name, kind, _ := cutLast(n, "::")
		list = append(list, parse.Field{Name: name, Text: parse.Text{Type: parse.Type(kind)}})
	}
	return list
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func binary(t testing.TB, at int, name string, order decode.Order, scale float64) parse.Field {
	t.Helper()
	kind, err := decode.ParseType(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := decode.New(decode.Spec{Type: kind, Order: order, Scale: scale})
	if err != nil {
		t.Fatal(err)
	}
	return parse.Field{At: at, Binary: f}
}

func TestFormats(t *testing.T) {
	number := func(is string, f parse.Field) []parse.Where { return []parse.Where{{Field: f, Is: is}} }
	for _, c := range []struct {
		name string
		spec parse.Spec
		data string
		want string
	}{
		{"a scale, by expression", parse.Spec{Format: parse.Regex, Match: `^ST,GS,\s*(?P<weight>[-+0-9. ]+)kg`, Fields: fields("weight")}, "ST,GS,+  12.340kg", "12.34"},
		{"a frame of another form", parse.Spec{Format: parse.Regex, Match: `^ST,GS,\s*(?P<weight>[-+0-9.]+)kg`, Fields: fields("weight")}, "US,GS,   12.340kg", "other"},
		{"a group that took no part", parse.Spec{Format: parse.Regex, Match: `^(?:T(?P<t>\d+)|H(?P<h>\d+))$`, Fields: fields("t", "h")}, "H45", "- | 45"},

		{"CSV by number", parse.Spec{Format: parse.CSV, Fields: fields("3", "1::text")}, "a1,22.5,-7", "-7 | a1"},
		{"CSV by name", parse.Spec{Format: parse.CSV, Separator: ";", Columns: []string{"time", "t", "h"}, Fields: fields("h", "t")}, "12:00;22,5;40", "40 | (parse)"},
		{"CSV with too few columns", parse.Spec{Format: parse.CSV, Columns: []string{"time", "t", "h"}, Fields: fields("h")}, "12:00,22.5", "other"},
		{"CSV with quotes", parse.Spec{Format: parse.CSV, Fields: fields("1::text", "2")}, `"a,b",5`, "a,b | 5"},
		{"CSV with a quote in quotes", parse.Spec{Format: parse.CSV, Fields: fields("1::text", "2", "3::text")}, `"5"" pipe, ""A""",5,""`, `5" pipe, "A" | 5 | `},
		{"CSV with a quote that does not end", parse.Spec{Format: parse.CSV, Fields: fields("1::text", "2")}, `"a"",5`, `"a"" | 5`},
		{"CSV: an empty column is no value", parse.Spec{Format: parse.CSV, Fields: fields("1", "2", "9")}, "1,", "1 | (sentinel) | -"},
		{"blanks", parse.Spec{Format: parse.CSV, Separator: " ", Fields: fields("1", "2", "3")}, "  1   2\t3 ", "1 | 2 | 3"},
		{"CSV of one of several devices", parse.Spec{Format: parse.CSV, Fields: fields("2"), Where: number("17", parse.Field{Name: "1", Text: parse.Text{Type: parse.Integer}})}, "0017,22", "22"},
		{"CSV of another device", parse.Spec{Format: parse.CSV, Fields: fields("2"), Where: number("17", parse.Field{Name: "1", Text: parse.Text{Type: parse.Integer}})}, "18,22", "other"},

		{"key=value", parse.Spec{Format: parse.KeyValue, Fields: fields("T", "H", "P")}, "T=22.5 H: 40, X=1", "22.5 | 40 | -"},
		{"key=value with separators of its own", parse.Spec{Format: parse.KeyValue, Separator: "&", Assign: "=", Fields: fields("a:b::text", "c")[1:]}, "a:b=x y&c=2", "2"},
		{"no pairs", parse.Spec{Format: parse.KeyValue, Fields: fields("T")}, "booting", "other"},

		{"JSON", parse.Spec{Format: parse.JSON, Fields: fields("a.b[1].c", "$.ok::bool", "id::text", "none", "absent", `["odd name"]`, "a")},
			`{"a":{"b":[0,{"c":2.5e1}]},"ok":true,"id":"x","none":null,"odd name":3}`, "25 | true | x | (sentinel) | - | 3 | (parse)"},
		{"half a JSON", parse.Spec{Format: parse.JSON, Fields: fields("a")}, `{"a":1`, "other"},
		{"two JSONs", parse.Spec{Format: parse.JSON, Fields: fields("a")}, `{"a":1}{"a":2}`, "other"},
		{"a long integer keeps its digits", parse.Spec{Format: parse.JSON, Fields: fields("n::int")}, `{"n":18446744073709551615}`, "18446744073709551615"},

		{"fixed columns", parse.Spec{Format: parse.Columns, Fields: []parse.Field{{At: 2, Length: 6}, {At: 8, Text: parse.Text{Type: parse.String}}, {At: 20}}}, "N  -12.5 kg", "-12.5 | kg | (parse)"},
		{"columns beyond all", parse.Spec{Format: parse.Columns, Fields: []parse.Field{{At: 1, Length: math.MaxInt}, {At: math.MaxInt, Length: 1}}}, "1234", "(parse) | (parse)"},

		{"binary", parse.Spec{Format: parse.Binary, Fields: []parse.Field{binary(t, 1, "int16", decode.BigEndian, 0.1), binary(t, 3, "uint16", decode.LittleEndian, 0), binary(t, 4, "uint32", 0, 0)}},
			"\xAA\xFF\x9C\x39\x05", "-10 | 1337 | (parse)"},
		{"binary of one of several devices", parse.Spec{Format: parse.Binary, Fields: []parse.Field{binary(t, 1, "uint8", 0, 0)}, Where: number("7", binary(t, 0, "uint8", 0, 0))}, "\x07\x2A", "42"},
		{"binary of another device", parse.Spec{Format: parse.Binary, Fields: []parse.Field{binary(t, 1, "uint8", 0, 0)}, Where: number("7", binary(t, 0, "uint8", 0, 0))}, "\x08\x2A", "other"},
		{"binary in hexadecimal digits", parse.Spec{Format: parse.Binary, HexText: true, Fields: []parse.Field{binary(t, 1, "uint16", 0, 0)}}, "aa 05 39", "1337"},
		{"binary in no hexadecimal digits", parse.Spec{Format: parse.Binary, HexText: true, Fields: []parse.Field{binary(t, 0, "uint8", 0, 0)}}, "zz", "other"},

		{"numbers wherever they stand", parse.Spec{Format: parse.Numbers, Fields: fields("1", "2", "3")}, "Temp: 23.4C, Hum:-5%", "23.4 | -5 | -"},
		{"numbers of SDI-12, after the address", parse.Spec{Format: parse.Regex, Match: `^0(?P<a>[+-][0-9.]+)(?P<b>[+-][0-9.]+)$`, Fields: fields("a", "b")}, "0+3.14-2.7", "3.14 | -2.7"},

		{"a pattern before another format", parse.Spec{Format: parse.CSV, Match: "^D", Fields: fields("2")}, "X,1", "other"},
	} {
		if got := say(t, c.spec, c.data); got != c.want {
			t.Errorf("%s: %q says %s, want %s", c.name, c.data, got, c.want)
		}
	}
}

func TestTexts(t *testing.T) {
	low, high := -40.0, 85.0
	for _, c := range []struct {
		name string
		text parse.Text
		data string
		want string
	}{
		{"a number", parse.Text{}, " +0022.50 ", "22.5"},
		{"a sign apart from its number", parse.Text{}, "-   1.5", "-1.5"},
		{"an exponent", parse.Text{}, "1.5E+03", "1500"},
		{"garbage", parse.Text{}, "12x", "(parse)"},
		{"two numbers", parse.Text{}, "1 2", "(parse)"},
		{"what Go would take for a number", parse.Text{}, "0x10", "(parse)"},
		{"underscores", parse.Text{}, "1_0", "(parse)"},
		{"not a number", parse.Text{}, "NaN", "(not finite)"},
		{"infinity", parse.Text{}, "-inf", "(not finite)"},
		{"beyond a double", parse.Text{}, "1e999", "(not finite)"},
		{"longer than any number", parse.Text{}, strings.Repeat("1", 60), "(parse)"},
		{"nothing", parse.Text{}, "", "(sentinel)"},
		{"a comma where none is announced", parse.Text{}, "22,5", "(parse)"},
		{"a decimal comma", parse.Text{DecimalComma: true}, "22,5", "22.5"},
		{"scaled as a decimal", parse.Text{Scale: 0.1}, "712", "71.2"},
		{"scaled, with digits", parse.Text{Scale: 0.1, Offset: -3}, "71.2", "4.12"},
		{"scaled by a long fraction", parse.Text{Scale: 1.0 / 3}, "1", "0.3333333333333333"},
		{"the unit", parse.Text{Unit: "kg"}, "12.5 kg", "12.5"},
		{"in range", parse.Text{Min: &low, Max: &high}, "85", "85"},
		{"out of range", parse.Text{Min: &low, Max: &high}, "85.1", "(out of range)"},
		{"the range is that of the scaled value", parse.Text{Min: &low, Max: &high, Scale: 0.1}, "850", "85"},
		{"the device's word for no value", parse.Text{Sentinels: []string{"---", "9999"}}, "9999", "(sentinel)"},
		{"the device's word for too much", parse.Text{Overrange: []string{"OL"}}, "OL", "(overrange)"},
		{"a whole number", parse.Text{Type: parse.Integer}, "+0042", "42"},
		{"a fraction is no whole number", parse.Text{Type: parse.Integer}, "4.2", "(parse)"},
		{"hexadecimal", parse.Text{Type: parse.HexInt}, "0x1F", "31"},
		{"64 bits", parse.Text{Type: parse.HexInt}, "FFFFFFFFFFFFFFFF", "18446744073709551615"},
		{"a scaled whole number", parse.Text{Type: parse.Integer, Scale: 0.01}, "1234", "12.34"},
		{"on", parse.Text{Type: parse.Bool}, "ON", "true"},
		{"off", parse.Text{Type: parse.Bool}, "0", "false"},
		{"its own words", parse.Text{Type: parse.Bool, True: []string{"A"}, False: []string{"V"}}, "V", "false"},
		{"neither", parse.Text{Type: parse.Bool}, "maybe", "(parse)"},
		{"text", parse.Text{Type: parse.String}, " ok\x00 ", "ok"},
		{"text that is not UTF-8", parse.Text{Type: parse.String}, "22\xB0C", "22°C"},
		{"text in hexadecimal digits", parse.Text{Type: parse.HexText}, "4B384547", "K8EG"},
		{"half a digit", parse.Text{Type: parse.HexText}, "4B3", "(parse)"},
		{"a label", parse.Text{Labels: map[string]string{"1": "running"}}, "1", "running"},
		{"no label", parse.Text{Labels: map[string]string{"1": "running"}}, "2", "2"},
	} {
		s := parse.Spec{Format: parse.Columns, Fields: []parse.Field{{Text: c.text}}}
		got := say(t, s, c.data)
		if c.data == "" { // Columns has no place in an empty frame
			s = parse.Spec{Format: parse.CSV, Fields: []parse.Field{{Name: "1", Text: c.text}}}
			got = say(t, s, c.data)
		}
		if got != c.want {
			t.Errorf("%s: %q is %s, want %s", c.name, c.data, got, c.want)
		}
	}
}

// stream returns the frames of a captured stream.
func stream(t testing.TB, s frame.Spec, name string) (frames []string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	c, err := frame.New(s)
	if err != nil {
		t.Fatal(err)
	}
	c.Feed(data)
	for {
		f, ok := c.Next()
		if !ok {
			break
		}
		if f.Fault != frame.None {
			t.Fatalf("%s: %v: %q", name, f.Fault, f.Raw)
		}
		frames = append(frames, string(f.Data))
	}
	return frames
}

func TestAGPSReceiver(t *testing.T) {
	s := parse.Spec{Format: parse.NMEA, Fields: fields("GGA.latitude", "GGA.longitude", "GGA.altitude", "GGA.satellites::int", "RMC.speed", "GPRMC.8", "RMC.time::text", "GSA.pdop", "GNRMC.speed")}
	var got []string
	for _, f := range stream(t, frame.NMEASpec(), "gps-bu353s4.nmea")[:4] {
		got = append(got, say(t, s, f))
	}
	want := []string{
		"-37.784788333333 | 175.314896666667 | 59.9 | 8 | - | - | - | - | -",
		"- | - | - | - | - | - | - | 1.8 | -",
		"- | - | - | - | 0.69 | 181.39 | 030719.000 | - | -",
		"-37.784791666667 | 175.314896666667 | 59.8 | 8 | - | - | - | - | -",
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("sentence %d: %s, want %s", i+1, got[i], want[i])
		}
	}
}

func TestNMEASentences(t *testing.T) {
	for _, c := range []struct{ name, field, data, want string }{
		{"no fix: the position is not ready", "RMC.latitude", "$GPRMC,225446,V,4916.45,N,12311.12,W,000.5,054.7,191194,020.3,E", "(not ready)"},
		{"no fix: the time is good all the same", "RMC.time::text", "$GPRMC,225446,V,4916.45,N,12311.12,W,000.5,054.7,191194,020.3,E", "225446"},
		{"no fix in GGA", "GGA.altitude", "$GPGGA,092725.00,,,,,0,00,99.99,,,,,,", "(not ready)"},
		{"no fix in GGA: satellites", "GGA.satellites", "$GPGGA,092725.00,,,,,0,00,99.99,,,,,,", "0"},
		{"an empty field", "RMC.course", "$GPRMC,225446,A,4916.45,N,12311.12,W,0,,191194,020.3,E", "(not ready)"},
		{"west is negative", "GLL.longitude", "$GPGLL,4916.45,N,12311.12,W,225444,A,", "-123.185333333333"},
		{"a blank before a number is no zero", "GLL.latitude", "$GPGLL, 4916.45,N,12311.12,W,225444,A,", "49.274166666667"},
		{"a lone blank is as nothing", "GLL.latitude", "$GPGLL, ,N,12311.12,W,225444,A,", "(not ready)"},
		{"any talker", "GLL.latitude", "$GNGLL,4916.45,N,12311.12,W,225444,A,A", "49.274166666667"},
		{"one talker of several", "GLGSV.satellites", "$GLGSV,3,1,09,65,12,014,22", "9"},
		{"another talker", "GLGSV.satellites", "$GPGSV,3,1,11,02,12,014,22", "other"},
		{"variation", "RMC.variation", "$GPRMC,225446,A,4916.45,N,12311.12,W,000.5,054.7,191194,020.3,E", "20.3"},
		{"sixty minutes", "GLL.latitude", "$GPGLL,4960.00,N,12311.12,W,225444,A,", "(parse)"},
		{"wind", "MWV.speed", "$WIMWV,214.8,R,0.1,K,A", "0.1"},
		{"wind, invalid", "MWV.speed", "$WIMWV,214.8,R,0.1,K,V", "(not ready)"},
		{"a transducer by its name", "XDR.AIRTEMP", "$WIXDR,C,19.52,C,TempAir,P,1.02481,B,Barometer,C,7.5,C,AIRTEMP", "7.5"},
		{"a transducer that is not there", "XDR.OTHER", "$WIXDR,C,19.52,C,TempAir", "-"},
		{"a proprietary sentence", "PGRME.1", "$PGRME,15.0,M,45.0,M,25.0,M", "15"},
		{"another sentence", "RMC.speed", "$GPGLL,4916.45,N,12311.12,W,225444,A,", "other"},
		{"a short sentence", "RMC.speed", "$GPRMC,225446,A", "(parse)"},
		{"a checksum that nobody checked", "HDT.heading", "$HEHDT,123.4,T*2B", "123.4"},
		{"no sentence", "RMC.speed", "hello", "other"},
	} {
		if got := say(t, parse.Spec{Format: parse.NMEA, Fields: fields(c.field)}, c.data); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestSmartMeters(t *testing.T) {
	for _, c := range []struct {
		file    string
		checked bool
		fields  []parse.Field
		want    string
	}{
		{"p1-dsmr22.txt", false, fields("1-0:1.8.1", "1-0:1.7.0", "0-1:24.3.0", "0-1:24.3.0#1::text"), "1.001 | 1.01 | 1.001 | 161107190000"},
		{"p1-dsmr42.txt", true, fields("1-0:1.8.1", "1-0:1.8.2", "1-0:1.7.0", "0-1:24.2.1", "0-1:24.2.1#1::text", "1-0:99.97.0#4::text", "0-0:96.13.1::text", "9-9:9.9.9"),
			"1581.123 | 1435.706 | 2.027 | 981.443 | 161129200000W | 0000237126 |  | -"},
		{"p1-dsmr5.txt", true, fields("0-0:96.1.1::hextext", "1-0:32.7.0", "1-0:31.7.0", "0-2:96.1.0"), "K8EG004046395507 | 230 | 0.48 | (sentinel)"},
		{"d0-easymeter.txt", false, fields("1-0:1.8.0*255", "1-0:1.7.0*255"), "52185.7825309 | 2124.86"},
	} {
		frames := stream(t, frame.DSMRSpec(c.checked), c.file)
		if len(frames) != 1 {
			t.Fatalf("%s: %d telegrams", c.file, len(frames))
		}
		if got := say(t, parse.Spec{Format: parse.OBIS, Fields: c.fields}, frames[0]); got != c.want {
			t.Errorf("%s: %s, want %s", c.file, got, c.want)
		}
	}
	// Constructed after the e-MUCS-P1 specification 1.7.1 of the Belgian grid operators: the month's peak, a
	// history that names its code among its values, gas that is not corrected for temperature.
	fluvius := "FLU5\\253769484_A\r\n\r\n0-0:96.1.4(50217)\r\n1-0:1.4.0(02.351*kW)\r\n1-0:1.6.0(200509134558S)(02.589*kW)\r\n" +
		"0-0:98.1.0(2)(1-0:1.6.0)(1-0:1.6.0)(200501000000S)(200423192538S)(03.695*kW)(200401000000S)(200305122139S)(05.980*kW)\r\n" +
		"0-1:24.1.0(003)\r\n0-1:24.2.3(200512134558S)(00112.384*m3)\r\n"
	if got := say(t, parse.Spec{Format: parse.OBIS, Fields: fields("1-0:1.6.0", "1-0:1.6.0#1::text", "0-0:98.1.0", "0-1:24.2.3")}, fluvius); got != "2.589 | 200509134558S | 5.98 | 112.384" {
		t.Error(got)
	}
	// IEC 62056-21, 6.5: data sets one after the other in one line, codes without medium and channel.
	if got := say(t, parse.Spec{Format: parse.OBIS, Fields: fields("F.F::text", "1.8.0", "0.9.1::text", "1.8.0*01", "1.8.0&02")}, "F.F(00)\r\n1.8.0(001234.5*kWh)0.9.1(101500)\r\n1.8.0*01(1200.0*kWh)\r\n1.8.0&02(1100.0*kWh)\r\n!\r\n"); got != "00 | 1234.5 | 101500 | 1200 | 1100" {
		t.Error(got)
	}
}

func TestImpossibleSpecsAreNamed(t *testing.T) {
	for want, s := range map[string]parse.Spec{
		"missing closing )":            {Format: parse.Regex, Match: "(", Fields: fields("a")},
		"no group (?P<b>...)":          {Format: parse.Regex, Match: "(?P<a>.)", Fields: fields("b")},
		`no point takes the group "b"`: {Format: parse.Regex, Match: "(?P<a>.)(?P<b>.)", Fields: fields("a")},
		"no regular expression":        {Format: parse.Regex, Fields: fields("a")},
		"no fields":                    {Format: parse.CSV},
		`column "x"`:                   {Format: parse.CSV, Fields: fields("x")},
		"cannot be a key":              {Format: parse.KeyValue, Fields: fields("a=")},
		"separates pairs and keys":     {Format: parse.KeyValue, Separator: "=", Fields: fields("a")},
		"a [ without ]":                {Format: parse.JSON, Fields: fields("a[")},
		"neither an index":             {Format: parse.JSON, Fields: fields("a[b]")},
		"a name is empty":              {Format: parse.JSON, Fields: fields("a..b")},
		"both count from 0":            {Format: parse.Columns, Fields: []parse.Field{{At: -1}}},
		"has no binary type":           {Format: parse.Binary, Fields: []parse.Field{{}}},
		"counts from 1":                {Format: parse.Numbers, Fields: fields("0")},
		"write the sentence":           {Format: parse.NMEA, Fields: fields("speed")},
		"did you mean RMC.speed?":      {Format: parse.NMEA, Fields: fields("RMC.sped")},
		"did you mean RMC?":            {Format: parse.NMEA, Fields: fields("RMX.speed")},
		"no OBIS code":                 {Format: parse.OBIS, Fields: fields("power")},
		"from 1":                       {Format: parse.OBIS, Fields: fields("1.8.0#0")},
		"format \"xml\" is unknown":    {Format: "xml", Fields: fields("a")},
		`did you mean "number"?`:       {Format: parse.CSV, Fields: fields("1::nummber")},
		"the valid range is empty":     {Format: parse.CSV, Fields: []parse.Field{{Name: "1", Text: parse.Text{Min: ptr(2.0), Max: ptr(1.0)}}}},
		"is no number":                 {Format: parse.CSV, Fields: []parse.Field{{Name: "1", Text: parse.Text{Type: parse.String, Scale: 2}}}},
	} {
		if _, err := parse.New(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", s, err, want)
		}
	}
}

func ptr[T any](x T) *T { return &x }

// everyFormat is a parser of each format, for the fuzzer.
func everyFormat(t testing.TB) []parse.Spec {
	return []parse.Spec{
		{Format: parse.Regex, Match: `(?P<a>[-+0-9.,]+)\s*(?P<b>\w*)`, Fields: fields("a", "b::text")},
		{Format: parse.CSV, Fields: fields("1", "2::text", "3::int")},
		{Format: parse.CSV, Separator: " ", Fields: fields("1::hex", "2::bool", "3::hextext")},
		{Format: parse.KeyValue, Fields: fields("T", "H::text")},
		{Format: parse.JSON, Fields: fields("a", "b[0].c::text", "d::int")},
		{Format: parse.Columns, Fields: []parse.Field{{At: 1, Length: 3}, {At: 2}}},
		{Format: parse.Binary, Fields: []parse.Field{binary(t, 0, "float32", 0, 0), binary(t, 1, "bcd16", 0, 0.1), binary(t, 2, "int24", decode.LittleEndian, 0)}},
		{Format: parse.Binary, HexText: true, Fields: []parse.Field{binary(t, 0, "uint16", 0, 0)}},
		{Format: parse.Numbers, Fields: fields("1", "2")},
		{Format: parse.NMEA, Fields: fields("GGA.latitude", "RMC.longitude", "RMC.time::text", "XDR.a", "MWV.speed")},
		{Format: parse.OBIS, Fields: fields("1-0:1.8.1", "0-1:24.2.1#1::text", "F.F::hextext")},
	}
}

// Whatever a frame holds, a field is a finite number, a text, nothing, or bad for a reason.
func FuzzParser(f *testing.F) {
	for _, name := range []string{"gps-bu353s4.nmea", "p1-dsmr42.txt", "d0-easymeter.txt"} {
		data, err := os.ReadFile(filepath.Join("../testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(9), data[:min(len(data), 78)])
		f.Add(byte(10), data)
	}
	for i, s := range []string{"-12,5 kg", "1,a,3", "ff 1 4b", "T=1;H: x", `{"a":1.5,"b":[{"c":"x"}],"d":null}`, "abcdef", "\x00\xff\x7f\x80", "00ff", "-1.5/+2"} {
		f.Add(byte(i), []byte(s))
	}
	specs := everyFormat(f)
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		s := specs[int(which)%len(specs)]
		p, err := parse.New(s)
		if err != nil {
			t.Fatal(err)
		}
		before := string(data)
		out := make([]parse.Result, len(s.Fields))
		p.Parse(data, out)
		if string(data) != before {
			t.Fatal("the frame was changed")
		}
		for i, r := range out {
			if (r.Value.Kind() != adapters.None) && r.Reason != "" {
				t.Errorf("field %d has a value and a reason: %+v", i, r)
			}
		}
	})
}

func BenchmarkNMEA(b *testing.B) {
	line := "$GPGGA,030719.000,3747.0873,S,17518.8938,E,1,08,1.1,59.9,M,23.7,M,,0000*7D\r\n"
	s := parse.Spec{Format: parse.NMEA, Fields: fields("GGA.latitude", "GGA.longitude", "GGA.altitude", "GGA.satellites::int")}
	p, err := parse.New(s)
	if err != nil {
		b.Fatal(err)
	}
	c, err := frame.New(frame.NMEASpec())
	if err != nil {
		b.Fatal(err)
	}
	out := make([]parse.Result, len(s.Fields))
	stream := []byte(line)
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	for b.Loop() {
		c.Feed(stream)
		f, ok := c.Next()
		if !ok || !p.Parse(f.Data, out) || out[0].Reason != "" {
			b.Fatalf("%+v %+v", f, out)
		}
	}
}
