package frame_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gateway/adapters/serial/frame"
)

// wire writes a frame of s that carries body.
func wire(t testing.TB, s frame.Spec, body string) string {
	t.Helper()
	sum := func(check frame.Check, b string) string {
		check.From = 0
		got, err := check.Append([]byte(b))
		if err != nil {
			t.Fatal(err)
		}
		return string(got[len(b):])
	}
	switch s.Kind {
	case frame.Line:
		return body + sum(s.Check, body) + string(s.Delimiter)
	case frame.Fixed:
		b := string(s.Start) + body
		return b + sum(s.Check, b)
	case frame.Length:
		b := []byte(string(s.Start) + "\x00" + body)
		b[s.LengthOffset] = byte(len(b) + len(sum(s.Check, "")) - s.LengthAdjust)
		return string(b) + sum(s.Check, string(b))
	}
	covered := body
	if s.Check.WithStart {
		covered = string(s.Start) + covered
	}
	if s.Check.AfterEnd && s.Check.WithEnd {
		covered += string(s.End)
	}
	check := sum(s.Check, covered)
	if s.Check.AfterEnd {
		return string(s.Start) + escaped(s, body) + string(s.End) + check
	}
	return string(s.Start) + escaped(s, body+check) + string(s.End)
}

// escaped writes b so that no marker stands in it.
func escaped(s frame.Spec, b string) string {
	var out strings.Builder
	for i := range len(b) {
		x := b[i]
		special := x == s.Escape.Byte || strings.IndexByte(string(s.Start)+string(s.End), x) >= 0
		switch {
		case s.Escape.Kind == frame.NoEscape, !special, s.Escape.Kind == frame.Doubled && x != s.Escape.Byte:
			out.WriteByte(x)
		case s.Escape.Kind == frame.SLIP && x == 0xC0:
			out.WriteString("\xDB\xDC")
		case s.Escape.Kind == frame.SLIP:
			out.WriteString("\xDB\xDD")
		case s.Escape.Kind == frame.Masked:
			out.Write([]byte{s.Escape.Byte, x ^ s.Escape.XOR})
		default:
			out.Write([]byte{s.Escape.Byte, x})
		}
	}
	return out.String()
}

// recovering are framings that find their way back, each with bodies that are hard on it.
var recovering = []struct {
	name   string
	spec   frame.Spec
	bodies []string // told apart; the damage hits the third
	prefix string   // what Data has before the body
	lost   int      // how many frames after the damaged one may go with it
}{
	{"lines with a checksum", check(line("\r\n"), frame.Check{Sum: frame.CRC16CCIT, Coding: frame.Hex}), []string{"one", "two", "three", "four", "five", "six"}, "", 1},
	{"NMEA 0183", frame.NMEASpec(), []string{"$GPONE,1", "!AITWO,2", "$GPTHR,3", "$GNFOU,4", "$GPFIV,5", "$GPSIX,6"}, "", 0},
	{"fixed, start and checksum", check(frame.Spec{Kind: frame.Fixed, Size: 8, Start: []byte("\xAA\x55")}, frame.Check{Sum: frame.CRC16MB}),
		[]string{"one1", "\xAA\x55\xAA\x55", "thr3", "\x55\xAA\x55\xAA", "fiv5", "six6"}, "\xAA\x55", 1},
	{"fixed, checksum alone", check(frame.Spec{Kind: frame.Fixed, Size: 8}, frame.Check{Sum: frame.CRC32}), []string{"one1", "two2", "thr3", "fou4", "fiv5", "six6"}, "", 1},
	{"length and checksum", check(frame.Spec{Kind: frame.Length, Start: []byte("S"), LengthOffset: 1, LengthSize: 1, Max: 24}, frame.Check{Sum: frame.CRC16XM}),
		[]string{"one", "SS\x05", "three", "S\x17", "five", "six", "seven", "eight", "nine"}, "", 3},
	{"markers and checksum", check(stxEtx, frame.Check{Sum: frame.LRC, AfterEnd: true, WithEnd: true}), []string{"one", "two", "three", "four", "five", "six"}, "", 1},
	{"DLE stuffing and checksum", check(frame.Spec{Kind: frame.Markers, Start: []byte("\x10\x02"), End: []byte("\x10\x03"), Escape: frame.Escape{Kind: frame.Doubled, Byte: 0x10}}, frame.Check{Sum: frame.CRC16ARC}),
		[]string{"one", "\x10\x02\x10", "\x10three\x03", "\x10", "\x03\x10\x02", "six"}, "", 1},
	{"SLIP and checksum", check(frame.SLIPSpec(), frame.Check{Sum: frame.CRC16X25}), []string{"one", "\xC0\xDB\xC0", "th\xDBree", "\xDB\xDC", "five", "six"}, "", 1},
	{"HDLC and checksum", check(frame.Spec{Kind: frame.Markers, End: []byte{0x7E}, Escape: frame.Escape{Kind: frame.Masked, Byte: 0x7D, XOR: 0x20}}, frame.Check{Sum: frame.CRC16X25}),
		[]string{"one", "\x7E\x7D\x7E", "th\x7Dree", "\x7D^", "five", "six"}, "", 1},
	{"P1", frame.DSMRSpec(true), []string{"A\r\n\r\n1.8.0(1)\r", "B\r\n\r\n1.8.0(2)\r", "C\r\n\r\n1.8.0(3)\r", "D\r\n\r\n1.8.0(4)\r", "E\r\n\r\n1.8.0(5)\r", "F\r\n\r\n"}, "", 0},
}

// Noise at any place, a byte lost or changed at any place: no frame is made up, all before the damage
// come, and all after it but for the few that it may take along.
func TestDamageAtEveryPlaceCostsOnlyWhatItHits(t *testing.T) {
	const hit = 2
	noises := []string{"\x00\x80", "\xFF\xFF\xFF", "S\x20", "\r\n", "\n!0", "/", "$", "\x02", "\x03", "\x10", "\x10\x02", "\x10\x03", "\xDB", "\xC0", "\x7D", "\x7E", "\xAA\x55", "\xAA", "noise noise"}
	for _, c := range recovering {
		var all, want []string
		start, end := 0, 0
		for i, body := range c.bodies {
			w := wire(t, c.spec, body)
			if i == hit {
				start = len(strings.Join(all, ""))
				end = start + len(w)
			}
			all = append(all, w)
		}
		stream := strings.Join(all, "")
		want = cut(t, c.spec, stream, len(stream))
		if len(want) != len(c.bodies) {
			t.Fatalf("%s: %q is cut into %q", c.name, stream, want)
		}
		broken := map[string]string{}
		for at := start; at < end; at++ {
			broken[fmt.Sprintf("byte %d lost", at)] = stream[:at] + stream[at+1:]
			broken[fmt.Sprintf("byte %d changed", at)] = stream[:at] + string([]byte{stream[at] ^ 0x04}) + stream[at+1:]
			broken[fmt.Sprintf("all from byte %d lost", at)] = stream[:at] + stream[end:]
			for _, n := range noises {
				broken[fmt.Sprintf("%q before byte %d", n, at)] = stream[:at] + n + stream[at:]
			}
		}
		for what, s := range broken {
			for _, size := range []int{1, 7, len(s)} {
				var got []string
				for _, g := range cut(t, c.spec, s, size) {
					if g[0] != '<' || slices.Contains(want, g) {
						got = append(got, g)
					}
				}
				least := slices.Concat(want[:hit], want[hit+1+c.lost:])
				if !within(least, got) || !within(got, want) {
					t.Fatalf("%s, %s, %d bytes at a time: got %q of %q", c.name, what, size, got, want)
				}
			}
		}
	}
}

// within tells whether all of a are in b, in their order.
func within(a, b []string) bool {
	for _, x := range b {
		if len(a) > 0 && a[0] == x {
			a = a[1:]
		}
	}
	return len(a) == 0
}
