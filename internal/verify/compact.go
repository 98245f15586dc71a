package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"strconv"
	"strings"

	"gateway/internal/cbor"
)

// The layout of the format "cbor" is described in docs/messages.md: a sample is an array, and what names its
// values is in a schema, on a topic that the sample's own and the schema's hash make.

const schemaLevel = "/schema/"

// schemas are those that have come, by topic.
type schemas map[string][]point

type point struct {
	name     string
	decimals int
}

// add keeps the schema that b is, and tells whether it is one: its topic ends with its hash.
func (s *schemas) add(topic string, b []byte) bool {
	at := strings.LastIndex(topic, schemaLevel)
	if at < 0 {
		return false
	}
	if sum := sha256.Sum256(b); topic[at+len(schemaLevel):] != hex.EncodeToString(sum[:8]) {
		return false
	}
	v, rest, err := cbor.Decode(b)
	m, _ := v.(map[any]any)
	list, ok := m["points"].([]any)
	if err != nil || len(rest) > 0 || !ok || m["version"] != uint64(1) {
		return false
	}
	points := make([]point, len(list))
	for i, x := range list {
		p, _ := x.(map[any]any)
		points[i].name, _ = p["name"].(string)
		if d, ok := p["decimals"].(uint64); ok && d < 16 {
			points[i].decimals = int(d)
		}
	}
	if *s == nil {
		*s = schemas{}
	}
	(*s)[topic] = points
	return true
}

// name gives the values of a sample their names, where its schema has come.
func (s schemas) name(x *Sample) {
	points, ok := s[x.Unnamed]
	if !ok {
		return
	}
	x.Values = make(map[string]any, len(x.byIndex))
	for i, v := range x.byIndex {
		if i < uint64(len(points)) {
			x.Values[points[i].name] = points[i].value(v)
		}
	}
	x.Unnamed, x.byIndex = "", nil
}

// value returns what JSON has for it.
func (p *point) value(v any) any {
	const exact = 1 << 53
	var f float64
	switch n := v.(type) {
	case uint64:
		if n > exact {
			return strconv.FormatUint(n, 10)
		}
		f = float64(n)
	case int64:
		if n < -exact {
			return strconv.FormatInt(n, 10)
		}
		f = float64(n)
	default:
		return v
	}
	return f / math.Pow10(p.decimals)
}

// fromCBOR reads samples of the format "cbor". What is none of them gives none.
func fromCBOR(topic string, b []byte) []Sample {
	v, rest, err := cbor.Decode(b)
	list, ok := v.([]any)
	if err != nil || len(rest) > 0 || !ok || len(list) == 0 {
		return nil
	}
	if _, several := list[0].([]any); !several {
		list = []any{list}
	}
	samples := make([]Sample, len(list))
	for i := range list {
		fields, _ := list[i].([]any)
		if !samples[i].parse(topic, fields) {
			return nil
		}
	}
	return samples
}

// parse reads [epoch, seq, prev, time, schema, values, doubts], the last only where there are any.
func (x *Sample) parse(topic string, fields []any) bool {
	if len(fields) < 6 {
		return false
	}
	epoch, ok1 := fields[0].([]byte)
	seq, ok2 := fields[1].(uint64)
	prev, has := fields[2].(uint64)
	schema, ok3 := fields[4].([]byte)
	if !ok1 || !ok2 || !has && fields[2] != nil || !ok3 {
		return false
	}
	*x = Sample{Epoch: hex.EncodeToString(epoch), Seq: seq, Prev: prev, HasPrev: has, Unnamed: topic + schemaLevel + hex.EncodeToString(schema), byIndex: map[uint64]any{}}
	switch values := fields[5].(type) {
	case []any:
		for i, v := range values {
			if v != nil {
				x.byIndex[uint64(i)] = v
			}
		}
	case map[any]any:
		for i, v := range values {
			n, ok := i.(uint64)
			if !ok {
				return false
			}
			x.byIndex[n] = v
		}
	default:
		return false
	}
	x.Readings = len(x.byIndex)
	if len(fields) > 6 {
		doubts, _ := fields[6].(map[any]any)
		bad, _ := doubts["bad"].(map[any]any)
		x.Historical = doubts["historical"] == true
		x.Readings += len(bad)
	}
	return true
}
