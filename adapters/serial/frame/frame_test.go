package frame_test

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway/adapters/serial/frame"
)

// cut feeds the stream in chunks of size bytes and tells frames as their data, faults as <fault>.
// A "⏸" in the stream is a silence.
func cut(t testing.TB, s frame.Spec, stream string, size int) []string {
	t.Helper()
	c, err := frame.New(s)
	if err != nil {
		t.Fatal(err)
	}
	return cutWith(c, stream, size)
}

func cutJoined(t testing.TB, s frame.Spec, stream string, size int) []string {
	t.Helper()
	c, err := frame.New(s)
	if err != nil {
		t.Fatal(err)
	}
	c.Join()
	return cutWith(c, stream, size)
}

func cutWith(c *frame.Cutter, stream string, size int) (got []string) {
	drain := func() {
		for {
			f, ok := c.Next()
			if !ok {
				return
			}
			if f.Fault != frame.None {
				got = append(got, "<"+f.Fault.String()+">")
			} else {
				got = append(got, string(f.Data))
			}
		}
	}
	for i, part := range strings.Split(stream, "⏸") {
		if i > 0 {
			c.Silence()
			drain()
		}
		for chunk := range slices.Chunk([]byte(part), size) {
			c.Feed(chunk)
			drain()
		}
	}
	return got
}

func line(delimiter string) frame.Spec {
	return frame.Spec{Kind: frame.Line, Delimiter: []byte(delimiter)}
}

var stxEtx = frame.Spec{Kind: frame.Markers, Start: []byte("\x02"), End: []byte("\x03")}

func with(s frame.Spec, change func(*frame.Spec)) frame.Spec {
	change(&s)
	return s
}

func check(s frame.Spec, c frame.Check) frame.Spec {
	s.Check = c
	return s
}

// New ones go to the end: what the fuzzer found is kept with the number of its framing.
var cuts = []struct {
	name   string
	spec   frame.Spec
	stream string
	want   []string
}{
	{"lines", line("\r\n"), "one\r\ntwo\r\nthr", []string{"one", "two"}},
	{"a newline takes a carriage return along", line("\n"), "one\r\ntwo\nthr\ree\n", []string{"one", "two", "thr\ree"}},
	{"empty lines are passed over", line("\n"), "\n\r\n\none\n\n", []string{"one"}},
	{"any delimiter", line(";;"), "a;b;;c;;;d;;", []string{"a;b", "c", ";d"}},
	{"a long line is thrown away up to its end", with(line("\n"), func(s *frame.Spec) { s.Max = 4 }), "abcd\nabcde\nabcdefghijkl\nok\n", []string{"abcd", "<too long>", "ok"}},
	{"silence drops half a line", with(line("\n"), func(s *frame.Spec) { s.Silence = time.Second }), "one\ntw⏸three\n", []string{"one", "<cut off>", "three"}},

	{"fixed length", frame.Spec{Kind: frame.Fixed, Size: 3}, "abcdefgh", []string{"abc", "def"}},
	{"fixed length finds its start", frame.Spec{Kind: frame.Fixed, Size: 4, Start: []byte("\xAA\x55")}, "xx\xAA\x55ab\xAA\xAA\x55cd\xAA", []string{"<garbage>", "\xAA\x55ab", "<garbage>", "\xAA\x55cd"}},
	{"fixed length finds its way back by the checksum", check(frame.Spec{Kind: frame.Fixed, Size: 3}, frame.Check{Sum: frame.Sum8}), "zab\xC3cd\xC7", []string{"<checksum>", "ab", "cd"}},

	{"length field", frame.Spec{Kind: frame.Length, LengthOffset: 1, LengthSize: 1, LengthAdjust: 2}, "A\x01xB\x03xyzC\x00", []string{"A\x01x", "B\x03xyz", "C\x00"}},
	{"length field of two bytes, little endian", frame.Spec{Kind: frame.Length, LengthOffset: 0, LengthSize: 2, LittleEndian: true}, "\x04\x00ab\x05\x00abc", []string{"\x04\x00ab", "\x05\x00abc"}},
	{"length field of two bytes, big endian", frame.Spec{Kind: frame.Length, LengthOffset: 0, LengthSize: 2}, "\x00\x04ab", []string{"\x00\x04ab"}},
	{"an impossible length is garbage", frame.Spec{Kind: frame.Length, Start: []byte("S"), LengthOffset: 1, LengthSize: 1, Max: 16}, "S\xffS\x03xS\x01", []string{"<too long>", "S\x03x", "<garbage>"}},

	{"markers", stxEtx, "\x02one\x03\r\n\x02two\x03", []string{"one", "two"}},
	{"what is outside of markers is garbage", stxEtx, "noise\x02one\x03more\x02two\x03", []string{"<garbage>", "one", "<garbage>", "two"}},
	{"an end without a start", frame.Spec{Kind: frame.Markers, End: []byte("\x04")}, "one\x04two\x04", []string{"one", "two"}},
	{"a frame without an end gives way at the limit", with(stxEtx, func(s *frame.Spec) { s.Max = 8 }), "\x02abcdefghij\x02ok\x03", []string{"<too long>", "ok"}},

	{"SLIP (RFC 1055)", frame.SLIPSpec(), "\xC0a\xDB\xDCb\xDB\xDDc\xC0\xC0d\xC0", []string{"a\xC0b\xDBc", "d"}},
	{"SLIP: what follows an escape that means nothing is no frame", frame.SLIPSpec(), "a\xDBbc\xC0d\xC0", []string{"<garbage>", "d"}},
	{"DLE stuffing", frame.Spec{Kind: frame.Markers, Start: []byte("\x10\x02"), End: []byte("\x10\x03"), Escape: frame.Escape{Kind: frame.Doubled, Byte: 0x10}},
		"\x10\x02a\x10\x10b\x03\x10\x03\x10\x02\x10\x10\x10\x03", []string{"a\x10b\x03", "\x10"}},
	{"DLE stuffing: a frame that starts anew", frame.Spec{Kind: frame.Markers, Start: []byte("\x10\x02"), End: []byte("\x10\x03"), Escape: frame.Escape{Kind: frame.Doubled, Byte: 0x10}},
		"\x10\x02abc\x10\x02d\x10\x03", []string{"<garbage>", "d"}},
	{"STX and ETX with an escape byte", with(stxEtx, func(s *frame.Spec) { s.Escape = frame.Escape{Kind: frame.Literal, Byte: 0x10} }), "\x02a\x10\x03b\x10\x10\x03\x02c\x03", []string{"a\x03b\x10", "c"}},

	{"gap", frame.Spec{Kind: frame.Gap, Silence: time.Second}, "one⏸two⏸⏸three⏸four", []string{"one", "two", "three"}},
	{"gap: too long, up to the next silence", frame.Spec{Kind: frame.Gap, Silence: time.Second, Max: 4}, "abcdefghij⏸ok⏸", []string{"<too long>", "ok"}},

	{"NMEA 0183", frame.NMEASpec(), "$GPGLL,4916.45,N,12311.12,W,225444,A,*1D\r\n", []string{"$GPGLL,4916.45,N,12311.12,W,225444,A,"}},
	{"NMEA 0183: the tail of a sentence before", frame.NMEASpec(), "916.45,N*$GPGLL,4916.45,N,12311.12,W,225444,A,*1D\r\n", []string{"$GPGLL,4916.45,N,12311.12,W,225444,A,"}},
	{"NMEA 0183: damaged", frame.NMEASpec(), "$GPGLL,4916.46,N,12311.12,W,225444,A,*1D\r\n$GPGLL,*7C\r\n", []string{"<checksum>", "$GPGLL,"}},
	{"IEC 62056-21 with its BCC", frame.IEC62056Spec(), "\x02F.F(00)!\r\n\x03" + string(byte('F'^'.'^'F'^'('^'0'^'0'^')'^'!'^'\r'^'\n'^3)) + "\x02F.F(00)!\r\n\x03x",
		[]string{"F.F(00)!\r\n", "<checksum>"}},
	{"P1: older than DSMR 4", frame.DSMRSpec(false), "/ISk5\\2MT382-1000\r\n\r\n1-0:1.8.1(1*kWh)\r\n!\r\n/next", []string{"ISk5\\2MT382-1000\r\n\r\n1-0:1.8.1(1*kWh)\r"}},
	{"P1: a CRC without its leading zero", frame.DSMRSpec(true), "/a10\r\n!CF3\r\n/a10\r\n!0CF3\r\n/a10\r\n!CF4\r\n/a10\r\n!0cf3", []string{"a10\r", "a10\r", "<checksum>", "a10\r"}},
	{"a frame that lost its end gives way to the next", stxEtx, "\x02 12\x02 345kg\x03\x02 346kg\x03", []string{"<cut off>", " 345kg", " 346kg"}},
	{"a start that is text may stand inside", frame.DSMRSpec(false), "/a\r\n1.0(1/2)\r\n!", []string{"a\r\n1.0(1/2)\r"}},
}

func TestStreamsAreCutHoweverTheyArrive(t *testing.T) {
	for _, c := range cuts {
		for size := 1; size <= len(c.stream); size++ {
			var got []string
			for _, g := range cut(t, c.spec, c.stream, size) {
				// A fault may be told in pieces when it arrives in pieces.
				if n := len(got); n > 0 && g[0] == '<' && got[n-1][0] == '<' {
					continue
				}
				got = append(got, g)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s, %d bytes at a time:\n got %q\nwant %q", c.name, size, got, c.want)
				break
			}
		}
	}
}

func TestJoiningAStreamNeverTakesHalfAFrame(t *testing.T) {
	gap := frame.Spec{Kind: frame.Gap, Silence: time.Second}
	nmea := frame.NMEASpec()
	for _, c := range []struct {
		spec   frame.Spec
		stream string
		want   []string
	}{
		{line("\r\n"), "3.5\r\n123.5\r\n", []string{"123.5"}},
		{frame.Spec{Kind: frame.Markers, End: []byte("\x04\x05")}, "3.5\x04\x05123.5\x04\x05", []string{"123.5"}},
		{gap, "3.5⏸123.5⏸", []string{"123.5"}},
		{stxEtx, "\x02whole\x03", []string{"whole"}},
		{nmea, "$GPGLL,*7C\r\n", []string{"$GPGLL,"}},
	} {
		for size := 1; size <= len(c.stream); size++ {
			if got := cutJoined(t, c.spec, c.stream, size); !slices.Equal(got, c.want) {
				t.Errorf("%+v, %d bytes at a time: got %q, want %q", c.spec, size, got, c.want)
			}
		}
	}
	if lost := (frame.Spec{Kind: frame.Fixed, Size: 4}); lost.Recovers() {
		t.Error("frames of a fixed length and nothing else are never found again")
	}
	if !gap.Recovers() || !stxEtx.Recovers() || !nmea.Recovers() {
		t.Error("these do recover")
	}
}

func TestHDLC(t *testing.T) {
	s := frame.Spec{
		Kind: frame.Markers, End: []byte{0x7E}, Escape: frame.Escape{Kind: frame.Masked, Byte: 0x7D, XOR: 0x20},
		Check: frame.Check{Sum: frame.CRC16X25},
	}
	c, err := frame.New(s)
	if err != nil {
		t.Fatal(err)
	}
	body, err := s.Check.Append([]byte{0x7E, 'a', 0x7D, 'b'})
	if err != nil {
		t.Fatal(err)
	}
	wire := []byte{0x7E}
	for _, x := range body {
		if x == 0x7E || x == 0x7D {
			wire = append(wire, 0x7D, x^0x20)
		} else {
			wire = append(wire, x)
		}
	}
	c.Feed(append(wire, 0x7E))
	f, ok := c.Next()
	if !ok || string(f.Data) != "~a}b" {
		t.Errorf("%q, %v, %t", f.Data, f.Fault, ok)
	}
}

func TestChecksumsHaveTheirCatalogueCheckValues(t *testing.T) {
	for sum, want := range map[frame.Sum]string{
		frame.XOR:       "31", // '1' to '9' XORed
		frame.Sum8:      "DD", // 477 mod 256
		frame.Sum16:     "01DD",
		frame.LRC:       "23",
		frame.CRC8:      "F4",
		frame.CRC8Maxim: "A1",
		frame.CRC16ARC:  "BB3D",
		frame.CRC16MB:   "4B37",
		frame.CRC16CCIT: "29B1",
		frame.CRC16XM:   "31C3",
		frame.CRC16KERM: "2189",
		frame.CRC16X25:  "906E",
		frame.CRC32:     "CBF43926",
	} {
		got, err := frame.Check{Sum: sum, Coding: frame.Hex}.Append([]byte("123456789"))
		if err != nil || string(got) != "123456789"+want {
			t.Errorf("%s: %q, %v, want %s", sum, got, err, want)
		}
	}
}

func TestEverySumInEveryCodingIsFoundAgain(t *testing.T) {
	for _, s := range frame.Sums() {
		for _, k := range []frame.Check{
			{Sum: s}, {Sum: s, Order: frame.Big}, {Sum: s, Order: frame.Little}, {Sum: s, Coding: frame.Hex}, {Sum: s, Coding: frame.SDI12}, {Sum: s, From: 2},
		} {
			body := []byte("$hello, world")
			wire, err := k.Append(bytes.Clone(body))
			if err != nil {
				continue // a combination that is refused
			}
			spec := frame.Spec{Kind: frame.Gap, Silence: 1, Check: k}
			if got := cut(t, spec, string(wire)+"⏸", 3); len(got) != 1 || got[0] != string(body) {
				t.Errorf("%+v: %q", k, got)
			}
			wire[5] ^= 1
			if got := cut(t, spec, string(wire)+"⏸", 3); len(got) != 1 || got[0] != "<checksum>" {
				t.Errorf("%+v, damaged: %q", k, got)
			}
		}
	}
}

func TestTheModbusChecksumIsLittleEndianAndTheOthersAsTheyTravel(t *testing.T) {
	for _, c := range []struct {
		check frame.Check
		want  string
	}{
		// Modbus over serial line 1.02, 6.2.2: the example 02 07 has the CRC 41 12.
		{frame.Check{Sum: frame.CRC16MB}, "\x41\x12"},
		{frame.Check{Sum: frame.CRC16MB, Order: frame.Big}, "\x12\x41"},
		{frame.Check{Sum: frame.Sum16}, "\x00\x09"},
	} {
		got, err := c.check.Append([]byte{2, 7})
		if err != nil || string(got[2:]) != c.want {
			t.Errorf("%+v: %x, %v", c.check, got, err)
		}
	}
}

func TestImpossibleSpecsAreNamed(t *testing.T) {
	for want, s := range map[string]frame.Spec{
		"need a delimiter":      {},
		"size limit -1":         {Kind: frame.Line, Delimiter: []byte("\n"), Max: -1},
		"fixed length 0":        {Kind: frame.Fixed},
		"length field of 5":     {Kind: frame.Length, LengthSize: 5},
		"the length field at":   {Kind: frame.Length, LengthSize: 1, LengthOffset: math.MaxInt},
		"outside of the frame":  {Kind: frame.Length, LengthSize: 1, LengthOffset: 5000},
		"need an end":           {Kind: frame.Markers},
		"starts a marker":       {Kind: frame.Markers, End: []byte("\x10"), Escape: frame.Escape{Kind: frame.Literal, Byte: 0x10}},
		"both markers start":    {Kind: frame.Markers, End: []byte("\x03"), Escape: frame.Escape{Kind: frame.Doubled, Byte: 0x10}},
		"mask other than 0":     {Kind: frame.Markers, End: []byte("\x03"), Escape: frame.Escape{Kind: frame.Masked, Byte: 0x10}},
		"how long a silence is": {Kind: frame.Gap},
		"is unknown":            {Kind: frame.Line, Delimiter: []byte("\n"), Check: frame.Check{Sum: "md5"}},
		"needs start and end":   {Kind: frame.Line, Delimiter: []byte("\n"), Check: frame.Check{Sum: frame.XOR, AfterEnd: true}},
		"16 bits only":          {Kind: frame.Line, Delimiter: []byte("\n"), Check: frame.Check{Sum: frame.XOR, Coding: frame.SDI12}},
		"its own form":          {Kind: frame.Line, Delimiter: []byte("\n"), Check: frame.Check{Sum: frame.NMEA, From: 1}},
	} {
		if _, err := frame.New(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", s, err, want)
		}
	}
}

// Whatever arrives, in whatever pieces, with silences between: no frame is above the limit, nothing is
// kept beyond it, and the frames are the same. The framings are all those of the other tests, each with
// a stream that it cuts into frames.
func FuzzCutter(f *testing.F) {
	framings := [2][]frame.Spec{{
		frame.SLIPSpec(), frame.NMEASpec(), frame.DSMRSpec(true), frame.IEC62056Spec(),
		check(line("\n"), frame.Check{Sum: frame.XOR, Coding: frame.Hex}),
		check(stxEtx, frame.Check{Sum: frame.CRC8, WithStart: true}),
		check(frame.Spec{Kind: frame.Length, LengthOffset: 1, LengthSize: 2, LengthAdjust: -1}, frame.Check{Sum: frame.Sum8}),
	}}
	const half = 128 // which counts the one kind from 0, the other from here
	for _, c := range cuts {
		f.Add(byte(len(framings[0])), byte(3), []byte(c.stream))
		framings[0] = append(framings[0], c.spec)
	}
	for i, c := range recovering {
		stream := ""
		for _, body := range c.bodies {
			stream += wire(f, c.spec, body)
		}
		f.Add(byte(half+i), byte(3), []byte(stream))
		framings[1] = append(framings[1], c.spec)
	}
	f.Fuzz(func(t *testing.T, which, size byte, stream []byte) {
		all := framings[which/half]
		s := all[int(which%half)%len(all)]
		s.Max = 24 // so that the fuzzer meets the limit
		whole := frames(t, s, stream, len(stream)+1)
		if pieces := frames(t, s, stream, int(size)%16+1); pieces != whole {
			t.Errorf("%+v:\nat once    %s\nin pieces %s", s, whole, pieces)
		}
	})
}

func frames(t *testing.T, s frame.Spec, stream []byte, size int) string {
	c, err := frame.New(s)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	used := 0
	drain := func() {
		for {
			f, ok := c.Next()
			if !ok {
				break
			}
			used += len(f.Raw)
			if f.Fault == frame.None {
				if len(f.Data) == 0 || len(f.Raw) > s.Max+len(s.Delimiter) {
					t.Fatalf("frame %x of %x", f.Data, f.Raw)
				}
				fmt.Fprintf(&out, " %x", f.Data)
			} else if len(f.Raw) == 0 || f.Data != nil {
				t.Fatalf("fault %v of %x", f.Fault, f.Raw)
			}
		}
		if c.Waiting() > s.Max+8 {
			t.Fatalf("%d bytes are kept", c.Waiting())
		}
	}
	for part := range strings.SplitSeq(string(stream), "⏸") {
		for chunk := range slices.Chunk([]byte(part), size) {
			c.Feed(chunk)
			drain()
		}
		c.Silence()
		drain()
	}
	if used+c.Waiting() > len(stream) {
		t.Fatalf("%d bytes told, %d came", used, len(stream))
	}
	return out.String()
}

func BenchmarkCut(b *testing.B) {
	nmea := strings.Repeat("$GPGGA,092750.000,5321.6802,N,00630.3372,W,1,8,1.03,61.7,M,55.2,M,,*76\r\n", 14)
	slip := strings.Repeat("some bytes, more than a few, of an ordinary SLIP frame \xDB\xDC\xC0", 16)
	fixed := strings.Repeat("\xAA\x55abcdefghijklmnopqrstuvwxyz", 36)
	modbus, err := frame.Check{Sum: frame.CRC16MB}.Append([]byte("\x01\x03\x20abcdefghijklmnopqrstuvwxyzabcdef"))
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		spec   frame.Spec
		stream string
	}{
		{"lines", line("\r\n"), nmea},
		{"nmea", frame.NMEASpec(), nmea},
		{"slip", frame.SLIPSpec(), slip},
		{"fixed", frame.Spec{Kind: frame.Fixed, Size: 28, Start: []byte("\xAA\x55")}, fixed},
		{"length-crc16", frame.Spec{Kind: frame.Length, LengthOffset: 2, LengthSize: 1, LengthAdjust: 5, Check: frame.Check{Sum: frame.CRC16MB}}, strings.Repeat(string(modbus), 28)},
	} {
		b.Run(c.name, func(b *testing.B) {
			cutter, err := frame.New(c.spec)
			if err != nil {
				b.Fatal(err)
			}
			stream := []byte(c.stream)
			b.SetBytes(int64(len(stream)))
			b.ReportAllocs()
			for b.Loop() {
				cutter.Feed(stream)
				for {
					f, ok := cutter.Next()
					if !ok {
						break
					}
					if f.Fault != frame.None {
						b.Fatalf("%v: %q", f.Fault, f.Raw)
					}
				}
			}
		})
	}
}

// SDI-12 1.4, 4.4.12.3: the examples of values with a CRC.
func TestSDI12WritesItsChecksumInThreeCharacters(t *testing.T) {
	for values, want := range map[string]string{"0+3.14": "OqZ", "0+3.14+2.718+1.414": "Ipz"} {
		got, err := frame.Check{Sum: frame.CRC16ARC, Coding: frame.SDI12}.Append([]byte(values))
		if err != nil || string(got) != values+want {
			t.Errorf("%s: %q, %v, want %s", values, got, err, want)
		}
	}
}
