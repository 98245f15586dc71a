package verify

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"gateway/mqtt"
)

// A Sample is what a message says of one sample.
type Sample struct {
	Epoch      string
	Seq, Prev  uint64
	HasPrev    bool
	Historical bool
	Readings   int
	// Values are those by name that the message carries and that are not bad: as JSON has them, a number a
	// float64. Nil where the format is another than JSON or CBOR, or its schema has not come.
	Values map[string]any
	// Unnamed is the topic of the schema that has not come; empty: none is missing.
	Unnamed string
	byIndex map[uint64]any // the values where Unnamed says why they have no names
}

// ErrNoIdentity says that a message is not one of the gateway's samples.
var ErrNoIdentity = errors.New("verify: the message carries no identity: neither the JSON or CBOR format's nor user properties")

type payload struct {
	Epoch      *string        `json:"epoch"`
	Seq        *uint64        `json:"seq"`
	Prev       *uint64        `json:"prev"`
	Historical bool           `json:"historical"`
	Values     map[string]any `json:"values"`
	Bad        map[string]any `json:"bad"`
}

// A Reader reads the samples that messages carry, and keeps the schemas which name their values. The zero
// Reader has seen none.
type Reader struct{ schemas schemas }

// Read returns the samples that a message carries: those of the JSON or the CBOR format, single or in an
// array, compressed or not, or those which the user properties of MQTT 5.0 name. A schema carries none.
func (r *Reader) Read(m *mqtt.Message) ([]Sample, error) {
	if list := fromProperties(m.User); len(list) > 0 {
		return list, nil
	}
	b := Unpack(m.Payload)
	switch text := bytes.TrimSpace(b); {
	case r.schemas.add(m.Topic, b):
		return nil, nil
	case bytes.HasPrefix(text, []byte("[")):
		var list []payload
		if err := json.Unmarshal(text, &list); err != nil {
			return nil, ErrNoIdentity
		}
		return fromJSON(list)
	case bytes.HasPrefix(text, []byte("{")):
		list := make([]payload, 1)
		if err := json.Unmarshal(text, &list[0]); err != nil {
			return nil, ErrNoIdentity
		}
		return fromJSON(list)
	}
	list := fromCBOR(m.Topic, b)
	if len(list) == 0 {
		return nil, ErrNoIdentity
	}
	for i := range list {
		r.schemas.name(&list[i])
	}
	return list, nil
}

func fromJSON(list []payload) (samples []Sample, err error) {
	for _, p := range list {
		if p.Epoch == nil || p.Seq == nil {
			return nil, ErrNoIdentity
		}
		s := Sample{Epoch: *p.Epoch, Seq: *p.Seq, Historical: p.Historical, Readings: len(p.Values) + len(p.Bad), Values: p.Values}
		if p.Prev != nil {
			s.Prev, s.HasPrev = *p.Prev, true
		}
		samples = append(samples, s)
	}
	if len(samples) == 0 {
		return nil, ErrNoIdentity
	}
	return samples, nil
}

// maxUnpacked bounds what a compressed payload may become.
const maxUnpacked = 16 << 20

// Unpack undoes gzip (RFC 1952, 2.3.1) and zstd (RFC 8878, 3.1.1), which their first bytes tell.
// What cannot be undone is returned as it is.
func Unpack(b []byte) []byte {
	var r io.Reader
	switch {
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return b
		}
		r = z
	case bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxUnpacked))
		if err != nil {
			return b
		}
		defer z.Close()
		r = z
	default:
		return b
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxUnpacked))
	if err != nil {
		return b
	}
	return plain
}

// lossRange is what a loss record names as lost.
type lossRange struct {
	destination, reason string
	epoch               string // of the first
	first, last         uint64
	open                bool
	by                  *topic // of the record
}

// loss reads a loss record.
func loss(values map[string]any) *lossRange {
	if values["event"] != "loss" {
		return nil
	}
	number := func(name string) uint64 {
		switch v := values[name].(type) {
		case float64:
			return uint64(v)
		case string: // beyond 2^53
			n, _ := strconv.ParseUint(v, 10, 64) // 0 names nothing
			return n
		}
		return 0
	}
	text := func(name string) string {
		s, _ := values[name].(string)
		return s
	}
	r := &lossRange{destination: text("destination"), reason: text("reason"), epoch: text("epoch"),
		first: number("first"), last: number("last"), open: values["open"] == true}
	if r.first == 0 {
		return nil
	}
	return r
}

// fromProperties reads what the formats say that have no room for it: epoch, seq and prev of one sample, or
// epoch and seqs of several.
func fromProperties(user []mqtt.UserProperty) (list []Sample) {
	var s Sample
	historical, single := false, false
	for _, u := range user {
		var err error
		switch u.Name {
		case "epoch":
			s.Epoch = u.Value
		case "seq":
			s.Seq, err = strconv.ParseUint(u.Value, 10, 64)
			single = err == nil
		case "prev":
			s.Prev, err = strconv.ParseUint(u.Value, 10, 64)
			s.HasPrev = err == nil
		case "seqs":
			list = append(list, several(s.Epoch, u.Value)...)
		case "historical":
			historical = u.Value == "true"
		}
	}
	if single && len(list) == 0 {
		list = []Sample{s}
	}
	for i := range list {
		list[i].Historical, list[i].Readings = historical, 1
		if list[i].Epoch == "" {
			return nil
		}
	}
	return list
}

// several reads "1842<1839 1845 1848": sequences with the predecessor where that is not the one
// before, and nothing after the sign where there is none.
func several(epoch, text string) (list []Sample) {
	for field := range strings.FieldsSeq(text) {
		seq, prev, named := strings.Cut(field, "<")
		s := Sample{Epoch: epoch}
		var err error
		if s.Seq, err = strconv.ParseUint(seq, 10, 64); err != nil {
			return nil
		}
		switch {
		case !named && len(list) == 0:
			return nil
		case !named:
			s.Prev, s.HasPrev = list[len(list)-1].Seq, true
		case prev != "":
			if s.Prev, err = strconv.ParseUint(prev, 10, 64); err != nil {
				return nil
			}
			s.HasPrev = true
		}
		list = append(list, s)
	}
	return list
}
