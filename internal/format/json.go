package format

import (
	"strconv"
	"unicode/utf8"

	"gateway/adapters"
	"gateway/internal/clock"
)

// jsonEncoder writes the documented default: one object per sample, an array where several share a
// message.
//
//	epoch       16 hexadecimal digits: the opening of the queue that gave seq
//	seq         (epoch, seq) names the sample and is never used twice
//	prev        seq of the same device's sample before; absent for its first
//	time        RFC 3339, UTC, milliseconds; absent where clock is "unknown"
//	values      point: value. A number, true or false, or a string; integers beyond 2^53 are strings
//	stale       point: reason, for values that are older ones; absent when there is none
//	bad         point: reason, for points that have no value now; absent when there is none
//	clock       "unsynced": nobody had set the clock, the time is what it said; "unknown": there is no
//	            time; otherwise absent
//	durable     false: never reached the disk; otherwise absent
//	historical  true: delivered late, behind newer ones; otherwise absent
type jsonEncoder struct{ array bool }

func (jsonEncoder) contentType() string { return "application/json" }
func (jsonEncoder) text() bool          { return true }

func (jsonEncoder) prepare(_ string, _ *adapters.Schema, s *schema) {
	s.rename(func(b []byte, name string) []byte { return append(appendString(b, name), ':') })
}

func (e jsonEncoder) begin(b []byte, _ int) []byte {
	if e.array {
		b = append(b, '[')
	}
	return b
}

func (e jsonEncoder) end(b []byte) []byte {
	if e.array {
		b = append(b, ']')
	}
	return b
}

func (jsonEncoder) add(b []byte, first bool, it *Item, s *schema) ([]byte, error) {
	if !first {
		b = append(b, ',')
	}
	b = append(b, `{"epoch":"`...)
	b = appendHex(b, it.Epoch)
	b = append(b, `","seq":`...)
	b = strconv.AppendUint(b, it.Seq, 10)
	if it.HasPrev {
		b = append(b, `,"prev":`...)
		b = strconv.AppendUint(b, it.Prev, 10)
	}
	if it.Clock != clock.Unknown {
		b = append(b, `,"time":"`...)
		b = appendTime(b, it.Wall)
		b = append(b, '"')
	}
	b = append(b, `,"values":{`...)
	comma := false
	stale, bad := 0, 0
	for i := range it.Sample.Readings {
		r := &it.Sample.Readings[i]
		p := &s.points[r.Point]
		if p.skip {
			continue
		}
		switch r.Quality {
		case adapters.Stale:
			stale++
		case adapters.Bad:
			bad++
			continue
		}
		if comma {
			b = append(b, ',')
		}
		comma = true
		b = append(b, p.text...)
		b = appendJSONValue(b, r.Value, p.decimals)
	}
	b = append(b, '}')
	if stale > 0 {
		b = appendReasons(append(b, `,"stale":{`...), adapters.Stale, it.Sample, s)
	}
	if bad > 0 {
		b = appendReasons(append(b, `,"bad":{`...), adapters.Bad, it.Sample, s)
	}
	if it.Clock != clock.Synced {
		b = append(b, `,"clock":"`...)
		b = append(b, clockText(it.Clock)...)
		b = append(b, '"')
	}
	if it.Volatile {
		b = append(b, `,"durable":false`...)
	}
	if it.Historical {
		b = append(b, `,"historical":true`...)
	}
	return append(b, '}'), nil
}

func appendReasons(b []byte, q adapters.Quality, sample *adapters.Sample, s *schema) []byte {
	comma := false
	for i := range sample.Readings {
		r := &sample.Readings[i]
		if r.Quality != q || s.points[r.Point].skip {
			continue
		}
		if comma {
			b = append(b, ',')
		}
		comma = true
		b = append(b, s.points[r.Point].text...)
		b = appendString(b, string(r.Reason))
	}
	return append(b, '}')
}

// exact is the largest integer up to which every reader of JSON, also one with doubles only, gets
// what was written.
const exact = 1 << 53

func appendJSONValue(b []byte, v adapters.Value, decimals int8) []byte {
	switch v.Kind() {
	case adapters.None:
		return append(b, "null"...)
	case adapters.String:
		return appendString(b, v.Str())
	case adapters.Int:
		if i := v.Int(); i > exact || i < -exact {
			return append(v.AppendText(append(b, '"')), '"')
		}
	case adapters.Uint:
		if v.Uint() > exact {
			return append(v.AppendText(append(b, '"')), '"')
		}
	}
	return appendValue(b, v, decimals)
}

// appendString appends s as a JSON string (RFC 8259, 7). Bytes that are not UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[start:i]...), "\ufffd"...)
				start = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}
