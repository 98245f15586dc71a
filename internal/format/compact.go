package format

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"slices"
	"strconv"

	"gateway/adapters"
	"gateway/internal/cbor"
	"gateway/internal/clock"
	"gateway/mqtt"
)

// compactEncoder writes what jsonEncoder writes, in few bytes: a sample is an array in CBOR (RFC 8949), and
// what is the same in all samples of a device, such as the names, stands in a message of its own, the schema.
// That is published before the first sample that refers to it, and retained, on a topic below theirs. All of
// it is deterministically encoded (RFC 8949, 4.2.1): of the same schema each gateway makes the same bytes.
//
// In CDDL (RFC 8610):
//
//	sample = [epoch, seq, prev, time, schema-id, values, ? doubts]
//	batch  = [* sample]                                ; where several may share a message
//
//	epoch     = bytes .size 8                          ; the opening of the queue that gave seq
//	seq       = uint                                   ; (epoch, seq) names the sample and is never used twice
//	prev      = uint / null                            ; seq of the same device's sample before; null for its first
//	time      = int / null                             ; milliseconds since 1970 UTC; null where clock is "unknown"
//	schema-id = bytes .size 8                          ; the schema is on TOPIC/schema/ID, ID in hexadecimal
//	values    = [* value] / {* index => value}         ; by point, the first is 0: whichever is shorter
//	index     = uint
//	value     = number / bool / text / null            ; null: bad, or not in this sample
//	doubts    = {                                      ; only what there is to say
//	  ? "bad": {+ index => reason},                    ; points that have no value now
//	  ? "clock": "unsynced" / "unknown",
//	  ? "stale": {+ index => reason},                  ; the value is an older one
//	  ? "durable": false,                              ; it never reached the disk
//	  ? "historical": true,                            ; delivered late, behind newer ones
//	}
//	reason    = text
//
//	schema = {"bus": text, "device": text, ? "labels": labels, "points": [* point], "gateway": text, "version": 1}
//	labels = {+ text => text}
//	point  = {"name": text, ? "unit": text, ? "labels": labels, ? "decimals": 1..9}
//
// A number of a point with decimals is to be divided by 10^decimals: 712 is 71.2, in three bytes. It is an
// integer of at most 2^53; what would be beyond is a text, as in JSON. Of other points integers have all of
// their 64 bits. The schema's id is the beginning of the SHA-256 of its bytes, which are
// never compressed.
type compactEncoder struct{ array bool }

const (
	compactVersion = 1
	schemaID       = 8
)

// contentType of samples is none: it would be a sixth of them. Their schema has it.
func (compactEncoder) contentType() string { return "" }
func (compactEncoder) text() bool          { return false }

func (e compactEncoder) begin(b []byte, samples int) []byte {
	if e.array {
		b = cbor.AppendArray(b, samples)
	}
	return b
}

func (compactEncoder) end(b []byte) []byte { return b }

// prepare makes the schema's message. Its keys are in the order of section 4.2.1: by length first.
func (compactEncoder) prepare(gateway string, s *adapters.Schema, i *schema) {
	n := 0
	for k := range i.points {
		p := &i.points[k]
		p.text = "" // it is in the schema
		if !p.skip {
			p.index = int32(n)
			n++
		}
	}
	b := cbor.AppendMap(nil, 5+min(1, len(s.Labels)))
	b = cbor.AppendText(cbor.AppendText(b, "bus"), s.Bus)
	b = cbor.AppendText(cbor.AppendText(b, "device"), s.Device)
	b = appendLabels(b, s.Labels)
	b = cbor.AppendArray(cbor.AppendText(b, "points"), n)
	for k := range s.Points {
		if !i.points[k].skip {
			b = appendPoint(b, &s.Points[k])
		}
	}
	b = cbor.AppendText(cbor.AppendText(b, "gateway"), gateway)
	b = cbor.AppendUint(cbor.AppendText(b, "version"), compactVersion)
	sum := sha256.Sum256(b)
	i.prefix = string(cbor.AppendBytes(nil, sum[:schemaID]))
	i.message = &mqtt.Message{Topic: i.topic + "/schema/" + hex.EncodeToString(sum[:schemaID]), Payload: b,
		QoS: mqtt.AtLeastOnce, ContentType: "application/cbor"}
}

func appendPoint(b []byte, p *adapters.Point) []byte {
	keys := 1 + min(1, len(p.Labels))
	if p.Unit != "" {
		keys++
	}
	if scaled(p.Decimals) {
		keys++
	}
	b = cbor.AppendMap(b, keys)
	b = cbor.AppendText(cbor.AppendText(b, "name"), p.Name)
	if p.Unit != "" {
		b = cbor.AppendText(cbor.AppendText(b, "unit"), p.Unit)
	}
	b = appendLabels(b, p.Labels)
	if scaled(p.Decimals) {
		b = cbor.AppendUint(cbor.AppendText(b, "decimals"), uint64(p.Decimals))
	}
	return b
}

// appendLabels appends the key and its map where there are labels: each name once, the last one counts.
func appendLabels(b []byte, labels []adapters.Label) []byte {
	if len(labels) == 0 {
		return b
	}
	byName := make(map[string]string, len(labels))
	var keys [][]byte
	for _, l := range labels {
		key := cbor.AppendText(nil, l.Name)
		if _, twice := byName[string(key)]; !twice {
			keys = append(keys, key)
		}
		byName[string(key)] = l.Value
	}
	slices.SortFunc(keys, bytes.Compare)
	b = cbor.AppendMap(cbor.AppendText(b, "labels"), len(keys))
	for _, key := range keys {
		b = cbor.AppendText(append(b, key...), byName[string(key)])
	}
	return b
}

func (compactEncoder) add(b []byte, _ bool, it *Item, s *schema) ([]byte, error) {
	bad, stale, said := 0, 0, 0
	for i := range it.Sample.Readings {
		switch r := &it.Sample.Readings[i]; {
		case s.points[r.Point].skip:
		case r.Quality == adapters.Bad:
			bad++
		case r.Quality == adapters.Stale:
			stale++
		}
	}
	for _, is := range []bool{bad > 0, it.Clock != clock.Synced, stale > 0, it.Volatile, it.Historical} {
		if is {
			said++
		}
	}
	b = cbor.AppendArray(b, 6+min(1, said))
	var epoch [8]byte
	binary.BigEndian.PutUint64(epoch[:], it.Epoch)
	b = cbor.AppendBytes(b, epoch[:])
	b = cbor.AppendUint(b, it.Seq)
	if it.HasPrev {
		b = cbor.AppendUint(b, it.Prev)
	} else {
		b = append(b, cbor.Null)
	}
	if it.Clock != clock.Unknown {
		b = cbor.AppendInt(b, floorDiv(it.Wall, 1e6))
	} else {
		b = append(b, cbor.Null)
	}
	b = append(b, s.prefix...)
	b = appendCompactValues(b, it.Sample, s)
	if said == 0 {
		return b, nil
	}
	b = cbor.AppendMap(b, said)
	if bad > 0 {
		b = appendCompactReasons(cbor.AppendText(b, "bad"), adapters.Bad, bad, it.Sample, s)
	}
	if it.Clock != clock.Synced {
		b = cbor.AppendText(cbor.AppendText(b, "clock"), clockText(it.Clock))
	}
	if stale > 0 {
		b = appendCompactReasons(cbor.AppendText(b, "stale"), adapters.Stale, stale, it.Sample, s)
	}
	if it.Volatile {
		b = cbor.AppendBool(cbor.AppendText(b, "durable"), false)
	}
	if it.Historical {
		b = cbor.AppendBool(cbor.AppendText(b, "historical"), true)
	}
	return b, nil
}

// appendCompactValues appends the values as an array, in which null stands for those that are not there, or
// as a map where that is shorter: of a sample that holds only what changed.
func appendCompactValues(b []byte, sample *adapters.Sample, s *schema) []byte {
	n, end, keys := 0, 0, 0
	for i := range sample.Readings {
		r := &sample.Readings[i]
		if p := &s.points[r.Point]; !p.skip && r.Quality != adapters.Bad {
			n, end = n+1, int(p.index)+1
			keys += cbor.UintLen(uint64(p.index))
		}
	}
	asMap := keys < end-n
	if asMap {
		b = cbor.AppendMap(b, n)
	} else {
		b = cbor.AppendArray(b, end)
	}
	next := 0
	for i := range sample.Readings {
		r := &sample.Readings[i]
		p := &s.points[r.Point]
		if p.skip || r.Quality == adapters.Bad {
			continue
		}
		if asMap {
			b = cbor.AppendUint(b, uint64(p.index))
		}
		for ; !asMap && next < int(p.index); next++ {
			b = append(b, cbor.Null)
		}
		next++
		b = appendCompactValue(b, r.Value, p.decimals)
	}
	return b
}

func appendCompactReasons(b []byte, q adapters.Quality, n int, sample *adapters.Sample, s *schema) []byte {
	b = cbor.AppendMap(b, n)
	for i := range sample.Readings {
		r := &sample.Readings[i]
		if p := &s.points[r.Point]; r.Quality == q && !p.skip {
			b = cbor.AppendText(cbor.AppendUint(b, uint64(p.index)), string(r.Reason))
		}
	}
	return b
}

func appendCompactValue(b []byte, v adapters.Value, decimals int8) []byte {
	switch v.Kind() {
	case adapters.None:
		return append(b, cbor.Null)
	case adapters.Bool:
		return cbor.AppendBool(b, v.Bool())
	case adapters.String:
		return cbor.AppendText(b, v.Str())
	}
	if !scaled(decimals) {
		return appendNumber(b, v, decimals)
	}
	if m, ok := inUnits(v, decimals); ok {
		return cbor.AppendInt(b, m)
	}
	return cbor.AppendText(b, string(appendValue(nil, v, decimals)))
}

// appendNumber appends a number in CBOR, rounded as the texts are.
func appendNumber(b []byte, v adapters.Value, decimals int8) []byte {
	switch v.Kind() {
	case adapters.Int:
		return cbor.AppendInt(b, v.Int())
	case adapters.Uint:
		return cbor.AppendUint(b, v.Uint())
	}
	f, _ := v.Number()
	switch {
	case decimals < 0:
	case decimals < int8(len(pow10)):
		if m, ok := inUnits(v, decimals); ok {
			f = float64(m) / pow10[decimals]
			break
		}
		fallthrough
	default:
		if rounded, err := strconv.ParseFloat(string(appendValue(nil, v, decimals)), 64); err == nil {
			f = rounded
		}
	}
	return cbor.AppendNumber(b, f)
}

// pow10 are powers of ten that a double holds, up to which a quotient is the double next to the decimal.
var pow10 = [16]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// scaled tells whether the numbers of a point with such decimals are written in units of the last one. Of
// more than nine they would hardly be shorter, and soon too large.
func scaled(decimals int8) bool { return decimals >= 1 && decimals <= 9 }

// inUnits returns a number in units of its last decimal, and whether it fits: to 2^53, so that every reader
// gets it, also one with doubles only. A float is rounded as appendValue rounds it.
func inUnits(v adapters.Value, decimals int8) (m int64, ok bool) {
	unit := int64(pow10[decimals])
	switch v.Kind() {
	case adapters.Int:
		m = v.Int()
		return m * unit, m <= exact/unit && m >= -exact/unit
	case adapters.Uint:
		return int64(v.Uint()) * unit, v.Uint() <= uint64(exact/unit)
	}
	f, _ := v.Number()
	x := math.Round(f * pow10[decimals])
	if !rounds(f) || x > exact || x < -exact {
		return 0, false
	}
	if x/pow10[decimals] == f {
		return int64(x), true
	}
	// Its product may be rounded to the other side of a half.
	var digits [40]byte
	text := strconv.AppendFloat(digits[:0], f, 'f', int(decimals), 64)
	if dot := len(text) - int(decimals) - 1; decimals > 0 {
		text = append(text[:dot], text[dot+1:]...)
	}
	m, err := strconv.ParseInt(string(text), 10, 64)
	return m, err == nil
}

// floorDiv rounds to the earlier moment before 1970, too.
func floorDiv(n, by int64) int64 {
	q := n / by
	if n%by < 0 {
		q--
	}
	return q
}
