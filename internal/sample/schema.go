package sample

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"gateway/adapters"
)

// A Blob is a schema as the queue keeps it.
type Blob struct {
	Hash uint64 // of Data: the first 8 bytes of its SHA-256, big endian
	Data []byte
}

// EncodeSchema returns the encoding of s. It is made once for each device, not for each sample.
func EncodeSchema(s *adapters.Schema) Blob {
	b := []byte{version}
	b = appendString(b, s.Bus)
	b = appendString(b, s.Device)
	b = appendLabels(b, s.Labels)
	b = binary.AppendUvarint(b, uint64(len(s.Points)))
	for i := range s.Points {
		p := &s.Points[i]
		b = appendString(b, p.Name)
		b = appendString(b, p.Unit)
		b = binary.AppendVarint(b, int64(p.Decimals))
		b = appendLabels(b, p.Labels)
	}
	sum := sha256.Sum256(b)
	return Blob{Hash: binary.BigEndian.Uint64(sum[:]), Data: b}
}

func appendLabels(b []byte, ls []adapters.Label) []byte {
	b = binary.AppendUvarint(b, uint64(len(ls)))
	for _, l := range ls {
		b = appendString(b, l.Name)
		b = appendString(b, l.Value)
	}
	return b
}

var errSchema = errors.New("sample: malformed schema")

// DecodeSchema reads what EncodeSchema wrote.
func DecodeSchema(data []byte) (*adapters.Schema, error) {
	d := decoder{b: data}
	if v := d.byte(); d.bad {
		return nil, errSchema
	} else if v != version {
		return nil, fmt.Errorf("%w: schema version %d, this one reads %d", ErrVersion, v, version)
	}
	s := &adapters.Schema{Bus: string(d.bytes()), Device: string(d.bytes()), Labels: d.labels()}
	n := d.uvarint()
	if n > uint64(len(d.b)) { // a point takes four bytes at least: no count can make us allocate more than it brought
		return nil, errSchema
	}
	if n > 0 {
		s.Points = make([]adapters.Point, n)
	}
	for i := range s.Points {
		p := &s.Points[i]
		p.Name, p.Unit = string(d.bytes()), string(d.bytes())
		dec := d.varint()
		if dec < math.MinInt8 || dec > math.MaxInt8 {
			d.fail()
		}
		p.Decimals, p.Labels = int8(dec), d.labels()
		if d.bad {
			return nil, errSchema
		}
	}
	if d.bad || len(d.b) != 0 {
		return nil, errSchema
	}
	return s, nil
}

func (d *decoder) labels() []adapters.Label {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	var ls []adapters.Label
	for range n {
		ls = append(ls, adapters.Label{Name: string(d.bytes()), Value: string(d.bytes())})
		if d.bad {
			return nil
		}
	}
	return ls
}

// A Decoder decodes the records of many devices and keeps their schemas, so that all samples of a
// device share one, whoever reads them. It is safe for concurrent use. The zero Decoder is ready.
type Decoder struct {
	mu    sync.RWMutex
	known map[string]known // by content: two schemas under one hash would do no harm
}

// known is a schema and its content.
type known struct {
	schema *adapters.Schema
	dict   []byte
}

// maxSchemas bounds what a Decoder keeps. A gateway has as many schemas as devices, times the
// number of configurations that the backlog spans.
const maxSchemas = 4096

// Schema returns the schema that dict encodes, the same one each time.
func (d *Decoder) Schema(dict []byte) (*adapters.Schema, error) {
	s, _, err := d.Intern(dict)
	return s, err
}

// Intern is Schema, and returns a copy of dict as well: one that lasts, and that nobody may change. Where
// dict encodes no schema there is a copy, too.
func (d *Decoder) Intern(dict []byte) (*adapters.Schema, []byte, error) {
	d.mu.RLock()
	k, ok := d.known[string(dict)]
	d.mu.RUnlock()
	if ok {
		return k.schema, k.dict, nil
	}
	s, err := DecodeSchema(dict)
	if err != nil {
		return nil, slices.Clone(dict), err
	}
	k = d.keep(known{s, slices.Clone(dict)})
	return k.schema, k.dict, nil
}

// Encode is EncodeSchema, and makes s the schema of the records that are written with it: it need not be
// made anew when they are read. Nobody may change it, or the blob, from here on.
func (d *Decoder) Encode(s *adapters.Schema) Blob {
	blob := EncodeSchema(s)
	blob.Data = d.keep(known{s, blob.Data}).dict
	return blob
}

// keep returns what is known of this content: k, unless there is something already.
func (d *Decoder) keep(k known) known {
	d.mu.Lock()
	defer d.mu.Unlock()
	if was, ok := d.known[string(k.dict)]; ok {
		return was
	}
	if d.known == nil || len(d.known) >= maxSchemas {
		d.known = make(map[string]known)
	}
	d.known[string(k.dict)] = k
	return k
}

// Decode decodes a record whose schema is dict into r, reusing r's Readings.
func (d *Decoder) Decode(data, dict []byte, r *Record) error {
	schema, err := d.Schema(dict)
	if err != nil {
		return err
	}
	return Decode(data, schema, r)
}
