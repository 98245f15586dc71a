package format

import (
	"strconv"
	"strings"

	"gateway/adapters"
	"gateway/internal/clock"
)

// lineEncoder writes InfluxDB line protocol (docs.influxdata.com, "Line protocol reference"): one
// line per sample. The measurement is the device; gateway, bus and the device's labels are tags;
// points are fields. A bad point is the string field "<point>_bad" with its reason, a stale one has
// "<point>_stale" beside its value. The time is in nanoseconds.
type lineEncoder struct{}

func (lineEncoder) contentType() string { return "text/plain" }
func (lineEncoder) text() bool          { return true }

var (
	lineMeasurement = strings.NewReplacer(",", `\,`, " ", `\ `, "\n", " ", "\r", " ", "\t", " ")
	lineKey         = strings.NewReplacer(",", `\,`, "=", `\=`, " ", `\ `, "\n", " ", "\r", " ", "\t", " ")
	lineText        = strings.NewReplacer(`\`, `\\`, `"`, `\"`)
)

// lineToken escapes a key or tag value. A backslash at its end would escape what follows it.
func lineToken(s string) string {
	s = lineKey.Replace(s)
	if strings.HasSuffix(s, `\`) {
		s += "_"
	}
	return s
}

func (lineEncoder) prepare(gateway string, s *adapters.Schema, i *schema) {
	var b strings.Builder
	name := lineMeasurement.Replace(s.Device)
	if strings.HasPrefix(name, "#") || strings.HasSuffix(name, `\`) { // a comment; an escape
		name = "_" + name + "_"
	}
	b.WriteString(name)
	tag := func(name, value string) {
		if name != "" && value != "" { // an empty tag value is an error
			b.WriteString("," + lineToken(name) + "=" + lineToken(value))
		}
	}
	tag("gateway", gateway)
	tag("bus", s.Bus)
	for _, l := range s.Labels {
		tag(l.Name, l.Value)
	}
	i.prefix = b.String()
	i.rename(func(b []byte, name string) []byte { return append(b, lineToken(name)...) })
}

func (lineEncoder) begin(b []byte, _ int) []byte { return b }
func (lineEncoder) end(b []byte) []byte          { return b }

func (lineEncoder) add(b []byte, first bool, it *Item, s *schema) ([]byte, error) {
	if !first {
		b = append(b, '\n')
	}
	b = append(b, s.prefix...)
	sep := byte(' ')
	for i := range it.Sample.Readings {
		r := &it.Sample.Readings[i]
		p := &s.points[r.Point]
		if p.skip {
			continue
		}
		if r.Quality != adapters.Bad {
			b = append(append(append(b, sep), p.text...), '=')
			b = appendLineValue(b, r.Value, p.decimals)
			sep = ','
		}
		if r.Quality != adapters.Good {
			b = append(append(append(append(b, sep), p.text...), '_'), r.Quality.String()...)
			b = appendLineText(append(b, '='), string(r.Reason))
			sep = ','
		}
	}
	if it.Clock != clock.Synced {
		b = appendLineText(append(b, ",clock="...), clockText(it.Clock))
	}
	if it.Clock != clock.Unknown {
		b = strconv.AppendInt(append(b, ' '), it.Wall, 10)
	}
	return b, nil
}

func appendLineValue(b []byte, v adapters.Value, decimals int8) []byte {
	switch v.Kind() {
	case adapters.Int:
		return append(v.AppendText(b), 'i')
	case adapters.Uint:
		if v.Uint() < 1<<63 { // unsigned fields are not known to every version
			return append(v.AppendText(b), 'i')
		}
		return append(v.AppendText(b), 'u')
	case adapters.String:
		return appendLineText(b, v.Str())
	}
	return appendValue(b, v, decimals)
}

func appendLineText(b []byte, s string) []byte {
	return append(append(append(b, '"'), lineText.Replace(s)...), '"')
}
