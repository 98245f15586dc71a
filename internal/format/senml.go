package format

import (
	"strconv"
	"strings"

	"gateway/adapters"
	"gateway/internal/cbor"
	"gateway/internal/clock"
)

// SenML packs (RFC 8428): the base name of a sample is "gateway/device/", its base time the
// sample's, and each reading is a record. A bad reading, which the RFC gives no place, is a string
// record "<point>:bad" with the reason, a stale one has "<point>:stale" beside it.

// senmlName keeps to the characters that section 4.5.1 allows.
func senmlName(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("-:./_", r):
			return r
		}
		return '_'
	}, s)
}

// senmlBase is the base name; a name must not begin with punctuation.
func senmlBase(gateway, device string) string {
	base := senmlName(gateway + "/" + device + "/")
	if c := base[0]; strings.IndexByte("-:./_", c) >= 0 {
		base = "g" + base
	}
	return base
}

// senmlUnit maps a unit to the registries of RFC 8428 (12.1) and RFC 8798; others are left out,
// for a pack may carry registered units only.
func senmlUnit(u string) string {
	switch u {
	case "°C", "C", "degC", "Cel":
		return "Cel"
	case "%RH", "%rH":
		return "%RH"
	case "Ω", "ohm", "Ohm":
		return "Ohm"
	case "°":
		return "deg"
	case "m³":
		return "m3"
	case "m³/s":
		return "m3/s"
	case "m²":
		return "m2"
	case "VAr":
		return "var"
	case "VArs":
		return "vars"
	case "VArh":
		return "varh"
	case "m", "kg", "g", "s", "A", "K", "cd", "mol", "Hz", "rad", "sr", "N", "Pa", "J", "W", "C/m2", "V", "F",
		"S", "Wb", "T", "H", "lm", "lx", "Bq", "Gy", "Sv", "kat", "m2", "m3", "l", "m/s", "m/s2", "m3/s", "l/s",
		"W/m2", "cd/m2", "bit", "bit/s", "lat", "lon", "pH", "dB", "dBW", "count", "/", "%", "%EL", "EL", "1/s",
		"beat/min", "beats", "S/m", "B", "VA", "VAs", "var", "vars", "J/m", "kg/m3", "deg", "NTU",
		"ms", "min", "h", "MHz", "kW", "kVA", "kvar", "Ah", "Wh", "kWh", "varh", "kVAh", "Wh/km", "KiB", "GB",
		"Mbit/s", "B/s", "MB/s", "mV", "mA", "dBm", "ug/m3", "mm/h", "m/h", "ppm", "/100", "/1000", "hPa", "mm",
		"cm", "km", "km/h":
		return u
	}
	return ""
}

func senmlPrepare(gateway string, s *adapters.Schema, i *schema) {
	i.prefix = senmlBase(gateway, s.Device)
	i.units = make([]string, len(i.points))
	for n := range i.points {
		i.points[n].text = senmlName(i.points[n].text)
		i.units[n] = senmlUnit(s.Points[n].Unit)
	}
}

type senmlJSON struct{}

func (senmlJSON) contentType() string          { return "application/senml+json" }
func (senmlJSON) text() bool                   { return true }
func (senmlJSON) begin(b []byte, _ int) []byte { return append(b, '[') }
func (senmlJSON) end(b []byte) []byte          { return append(b, ']') }
func (senmlJSON) prepare(gateway string, s *adapters.Schema, i *schema) {
	senmlPrepare(gateway, s, i)
}

func (senmlJSON) add(b []byte, first bool, it *Item, s *schema) ([]byte, error) {
	base := true // the next record is the sample's first
	record := func(suffix string, p *point) {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, '{')
		if base {
			b = append(b, `"bn":`...)
			b = appendString(b, s.prefix)
			b = append(b, `,"bt":`...)
			b = appendSeconds(b, it)
			b = append(b, ',')
			base = false
		}
		b = append(b, `"n":"`...)
		b = append(b, p.text...)
		b = append(b, suffix...)
		b = append(b, '"')
	}
	for i := range it.Sample.Readings {
		r := &it.Sample.Readings[i]
		p := &s.points[r.Point]
		if p.skip {
			continue
		}
		if r.Quality != adapters.Bad {
			record("", p)
			if u := s.units[r.Point]; u != "" {
				b = appendString(append(b, `,"u":`...), u)
			}
			switch r.Value.Kind() {
			case adapters.Bool:
				b = r.Value.AppendText(append(b, `,"vb":`...))
			case adapters.String:
				b = appendString(append(b, `,"vs":`...), r.Value.Str())
			default:
				b = appendValue(append(b, `,"v":`...), r.Value, p.decimals)
			}
			b = append(b, '}')
		}
		if r.Quality != adapters.Good {
			record(":"+r.Quality.String(), p)
			b = appendString(append(b, `,"vs":`...), string(r.Reason))
			b = append(b, '}')
		}
	}
	return b, nil
}

// appendSeconds appends the time in seconds since 1970; 0, which the RFC reads as "now", where it is
// unknown (section 4.5.3).
func appendSeconds(b []byte, it *Item) []byte {
	if it.Clock == clock.Unknown {
		return append(b, '0')
	}
	ms := it.Wall / 1e6
	b = strconv.AppendInt(b, ms/1000, 10)
	if frac := ms % 1000; frac != 0 {
		b = append(b, '.', byte('0'+frac/100), byte('0'+frac/10%10), byte('0'+frac%10))
	}
	return b
}

// senmlCBOR writes the same pack in CBOR (RFC 8428, 6), as arrays and maps of indefinite length
// (RFC 8949, 3.2.2).
type senmlCBOR struct{}

func (senmlCBOR) contentType() string          { return "application/senml+cbor" }
func (senmlCBOR) text() bool                   { return false }
func (senmlCBOR) begin(b []byte, _ int) []byte { return append(b, cbor.OpenArray) }
func (senmlCBOR) end(b []byte) []byte          { return append(b, cbor.Break) }
func (senmlCBOR) prepare(gateway string, s *adapters.Schema, i *schema) {
	senmlPrepare(gateway, s, i)
}

// Labels of section 6, as CBOR has them.
const (
	senmlBaseName  = 0x21 // -2
	senmlBaseTime  = 0x22 // -3
	senmlRecord    = 0x00 // the name
	senmlUnits     = 0x01
	senmlValue     = 0x02
	senmlStringVal = 0x03
	senmlBoolVal   = 0x04
)

func (senmlCBOR) add(b []byte, _ bool, it *Item, s *schema) ([]byte, error) {
	base := true
	record := func(suffix string, p *point) {
		b = append(b, cbor.OpenMap)
		if base {
			b = cbor.AppendText(append(b, senmlBaseName), s.prefix)
			b = append(b, senmlBaseTime)
			if it.Clock == clock.Unknown {
				b = cbor.AppendUint(b, 0)
			} else {
				b = cbor.AppendNumber(b, float64(it.Wall/1e6)/1e3)
			}
			base = false
		}
		b = cbor.AppendText(append(b, senmlRecord), p.text, suffix)
	}
	for i := range it.Sample.Readings {
		r := &it.Sample.Readings[i]
		p := &s.points[r.Point]
		if p.skip {
			continue
		}
		if r.Quality != adapters.Bad {
			record("", p)
			if u := s.units[r.Point]; u != "" {
				b = cbor.AppendText(append(b, senmlUnits), u)
			}
			switch v := r.Value; v.Kind() {
			case adapters.Bool:
				b = cbor.AppendBool(append(b, senmlBoolVal), v.Bool())
			case adapters.String:
				b = cbor.AppendText(append(b, senmlStringVal), v.Str())
			default:
				b = appendNumber(append(b, senmlValue), v, p.decimals)
			}
			b = append(b, cbor.Break)
		}
		if r.Quality != adapters.Good {
			record(":"+r.Quality.String(), p)
			b = cbor.AppendText(append(b, senmlStringVal), string(r.Reason))
			b = append(b, cbor.Break)
		}
	}
	return b, nil
}
