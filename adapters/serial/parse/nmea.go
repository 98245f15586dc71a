package parse

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"gateway/adapters"
	"gateway/adapters/hint"
)

// nmea takes fields from sentences of NMEA 0183: an address of a talker (two letters) and a sentence
// (three), and fields between commas. The checksum is the framing's affair.
type nmea struct {
	fields []nmeaField
	table  map[string]sentence
	parts  [nmeaFields][]byte // of the sentence at hand
}

// A sentence is what the standard says of one: the numbers of its named fields, from 1, and which
// field says whether the rest is valid.
type sentence struct {
	names map[string]nmeaPlace
	valid int    // 0: none
	void  string // the values of it that mean: not valid
}

// A nmeaPlace is the number of a field, and that of the letter beside it (N or S, E or W), which makes
// an angle of degrees and minutes signed degrees.
type nmeaPlace struct {
	at     int
	letter int // 0: none
	angle  bool
}

type nmeaField struct {
	talker, id string // talker "" is any
	nmeaPlace
	transducer string // XDR: the transducer's name
	valid      int    // the sentence's field that says whether this one holds; 0: it always does
	void       string
}

// sentences holds the sentences of NMEA 0183 (version 4.11, as the receivers' manuals reproduce them)
// that sensors send.
func sentences() map[string]sentence {
	plain := func(names ...string) map[string]nmeaPlace {
		m := map[string]nmeaPlace{}
		for i, n := range names {
			if n != "" {
				m[n] = nmeaPlace{at: i + 1}
			}
		}
		return m
	}
	at := func(m map[string]nmeaPlace, lat int) map[string]nmeaPlace {
		m["latitude"] = nmeaPlace{lat, lat + 1, true}
		m["longitude"] = nmeaPlace{lat + 2, lat + 3, true}
		return m
	}
	rmc := at(plain("time", "status", "", "", "", "", "speed", "course", "date", "", "", "mode"), 3)
	rmc["variation"] = nmeaPlace{at: 10, letter: 11}
	hdg := plain("heading")
	hdg["deviation"] = nmeaPlace{at: 2, letter: 3}
	hdg["variation"] = nmeaPlace{at: 4, letter: 5}
	return map[string]sentence{
		"GGA": {at(plain("time", "", "", "", "", "quality", "satellites", "hdop", "altitude", "", "geoid", "", "age", "station"), 2), 6, "0"},
		"RMC": {rmc, 2, "V"},
		"GLL": {at(plain("", "", "", "", "time", "status", "mode"), 1), 6, "V"},
		"GNS": {at(plain("time", "", "", "", "", "mode", "satellites", "hdop", "altitude", "geoid", "age", "station"), 2), 0, ""},
		"VTG": {plain("course", "", "magnetic", "", "knots", "", "kmh", "", "mode"), 9, "N"},
		"GSA": {plain("selection", "fix", "", "", "", "", "", "", "", "", "", "", "", "", "pdop", "hdop", "vdop"), 2, "1"},
		"GSV": {plain("messages", "message", "satellites"), 0, ""},
		"ZDA": {plain("time", "day", "month", "year", "zone", "zone_minutes"), 0, ""},
		"HDT": {plain("heading"), 0, ""},
		"HDM": {plain("heading"), 0, ""},
		"HDG": {hdg, 0, ""},
		"THS": {plain("heading", "mode"), 2, "V"},
		"ROT": {plain("rate", "status"), 2, "V"},
		"MWV": {plain("angle", "reference", "speed", "unit", "status"), 5, "V"},
		"MWD": {plain("direction", "", "magnetic", "", "knots", "", "speed"), 0, ""},
		"VWR": {plain("angle", "side", "knots", "", "speed", "", "kmh"), 0, ""},
		"MTW": {plain("temperature"), 0, ""},
		"MTA": {plain("temperature"), 0, ""},
		"MDA": {plain("pressure_inhg", "", "pressure", "", "air_temperature", "", "water_temperature", "", "humidity", "absolute_humidity",
			"dew_point", "", "wind_direction", "", "wind_magnetic", "", "wind_knots", "", "wind_speed"), 0, ""},
		"MMB": {plain("pressure_inhg", "", "pressure"), 0, ""},
		"DPT": {plain("depth", "offset", "range"), 0, ""},
		"DBT": {plain("feet", "", "depth", "", "fathoms"), 0, ""},
		"VHW": {plain("heading", "", "magnetic", "", "knots", "", "kmh"), 0, ""},
		"VLW": {plain("total", "", "trip"), 0, ""},
		"RPM": {plain("source", "number", "rpm", "pitch", "status"), 5, "V"},
		"RSA": {plain("starboard", "status"), 2, "V"},
		"XDR": {nil, 0, ""},
	}
}

func newNMEA(fields []Field) (*nmea, error) {
	n := &nmea{table: sentences()}
	var wrong fieldErrors
	for i := range fields {
		f, err := n.field(fields[i].Name)
		if err != nil {
			wrong.add(i, err)
		}
		if s := n.table[f.id]; f.at != s.valid && f.at != s.names["time"].at && f.at != s.names["date"].at && f.at != s.names["satellites"].at {
			f.valid, f.void = s.valid, s.void
		}
		n.fields = append(n.fields, f)
	}
	return n, wrong.join()
}

func (n *nmea) field(name string) (nmeaField, error) {
	address, field, ok := strings.Cut(name, ".")
	if !ok || len(address) < 3 || field == "" {
		return nmeaField{}, fmt.Errorf("%q: write the sentence and its field: RMC.speed, or its number: RMC.7", name)
	}
	f := nmeaField{id: address}
	if len(address) == 5 && address[0] != 'P' {
		f.talker, f.id = address[:2], address[2:]
	}
	s, known := n.table[f.id]
	if f.id == "XDR" {
		if _, err := strconv.Atoi(field); err != nil {
			f.transducer = field
			return f, nil
		}
	}
	if place, ok := s.names[field]; ok {
		f.nmeaPlace = place
		return f, nil
	}
	k, err := strconv.Atoi(field)
	if err == nil && k >= 1 {
		f.at = k
		return f, nil
	}
	if !known {
		ids := slices.Collect(maps.Keys(n.table))
		if near, ok := hint.Nearest(f.id, ids); ok {
			return f, fmt.Errorf("%q: the sentence %s is not known by field names; did you mean %s?", name, f.id, near)
		}
		return f, fmt.Errorf("%q: the sentence %s is not known by field names; give the field's number", name, f.id)
	}
	names := slices.Sorted(maps.Keys(s.names))
	if near, ok := hint.Nearest(field, names); ok {
		return f, fmt.Errorf("%q: did you mean %s.%s?", name, f.id, near)
	}
	return f, fmt.Errorf("%q: %s has %s, or give the field's number", name, f.id, strings.Join(names, ", "))
}

// nmeaFields is how many fields a sentence can have: one of 82 characters has fewer, but receivers
// send longer ones.
const nmeaFields = 64

func (n *nmea) extract(frame []byte, tokens []token) bool {
	if len(frame) < 4 || frame[0] != '$' && frame[0] != '!' {
		return false
	}
	if i := len(frame) - 3; i > 0 && frame[i] == '*' {
		frame = frame[:i] // a checksum that the framing was not told about
	}
	id, rest, more := bytes.Cut(frame[1:], comma)
	talker := id
	if len(id) == 5 && id[0] != 'P' {
		talker, id = id[:2], id[2:]
	}
	count := 0 // of the parts; 0: no field has wanted them yet
	for i := range n.fields {
		f := &n.fields[i]
		if f.id != string(id) || f.talker != "" && f.talker != string(talker) {
			continue
		}
		if count == 0 {
			n.parts[0] = id
			for count = 1; more && count < nmeaFields; count++ {
				n.parts[count], rest, more = bytes.Cut(rest, comma)
			}
		}
		tokens[i] = f.token(n.parts[:count])
	}
	return count > 0
}

var comma = []byte(",")

// token takes the field from the parts of its sentence; parts[0] is the address.
func (f *nmeaField) token(parts [][]byte) token {
	if f.transducer != "" {
		// Quadruples of type, value, unit and name.
		for i := 1; i+3 < len(parts); i += 4 {
			if string(parts[i+3]) == f.transducer {
				return nmeaText(parts[i+1])
			}
		}
		return token{}
	}
	if f.at >= len(parts) {
		return token{kind: faulty, reason: adapters.ReasonParse}
	}
	if f.valid > 0 && f.valid < len(parts) && len(parts[f.valid]) > 0 && string(parts[f.valid]) == f.void {
		return token{kind: faulty, reason: adapters.ReasonNotReady} // no fix yet
	}
	b := bytes.TrimSpace(parts[f.at])
	if f.letter == 0 || len(b) == 0 {
		return nmeaText(b)
	}
	if f.letter >= len(parts) {
		return token{kind: faulty, reason: adapters.ReasonParse}
	}
	return signedAngle(b, parts[f.letter], f.angle)
}

func nmeaText(b []byte) token {
	if len(b) == 0 {
		return token{kind: faulty, reason: adapters.ReasonNotReady}
	}
	return token{kind: text, text: b}
}

// signedAngle reads (d)ddmm.mmmm, or plain degrees, with the letter that gives the sign.
func signedAngle(b, letter []byte, minutes bool) token {
	bad := token{kind: faulty, reason: adapters.ReasonParse}
	x, ok := (&Text{}).number(b)
	if !ok || x < 0 || x > 18000 || len(letter) != 1 {
		return bad
	}
	if minutes {
		degrees := float64(int(x / 100))
		m := x - degrees*100
		if m >= 60 || degrees > 180 {
			return bad
		}
		x = math.Round((degrees+m/60)*1e12) / 1e12 // without the noise of the division
	}
	switch letter[0] {
	case 'N', 'E':
	case 'S', 'W':
		x = -x
	default:
		return bad
	}
	return token{kind: number, number: x}
}
