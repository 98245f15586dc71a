// Package parse takes the values of points out of frames: by regular expression, from separated or
// fixed columns, key=value pairs, JSON, binary fields, NMEA 0183 sentences and IEC 62056-21 data
// sets (DSMR P1 telegrams among them).
package parse

import (
	"errors"
	"fmt"
	"regexp"

	"gateway/adapters"
	"gateway/adapters/decode"
	"gateway/adapters/hint"
)

// Format is the form of a frame.
type Format string

// The formats, and what a field's Name is in each.
const (
	Regex    Format = "regex"    // a named group of Match
	CSV      Format = "csv"      // a column: its number from 1, or its name if Columns has it
	KeyValue Format = "keyvalue" // a key
	JSON     Format = "json"     // a path: sensors[0].temperature
	Columns  Format = "columns"  // not used: the text at At, Length characters long
	Binary   Format = "binary"   // not used: the bytes at At, understood by Field.Binary
	Numbers  Format = "numbers"  // the n-th decimal number in the text, from 1
	NMEA     Format = "nmea"     // sentence and field: RMC.speed, GGA.altitude, or by number: RMC.7
	OBIS     Format = "obis"     // a code: 1-0:1.8.1; with #2 the second value of its line
)

// Formats lists the formats.
func Formats() []Format {
	return []Format{Regex, CSV, KeyValue, JSON, Columns, Binary, Numbers, NMEA, OBIS}
}

// A Spec says how to understand frames. Separator and Assign count for some formats only.
type Spec struct {
	Format Format

	// Regex: the pattern with a named group for each point. Other formats: a pattern that a frame must
	// match to be understood at all; "" for any.
	Match string

	// CSV: what separates the columns, default ","; " " is any run of blanks. KeyValue: the characters
	// that separate pairs, default blanks, commas and semicolons.
	Separator string
	Assign    string   // KeyValue: the characters between key and value, default "=:"
	Columns   []string // CSV: the names of the columns; a frame then has exactly as many
	HexText   bool     // Binary: the frame is hexadecimal digits

	// Conditions that a frame must fulfil to be of this form: how several devices on one port are told
	// apart. One that the frame says nothing about is not fulfilled.
	Where []Where

	Fields []Field
}

// A Where is the condition that a field has a value, compared as text.
type Where struct {
	Field
	Is string
}

// A Field is where a point's value stands in a frame and what it means.
type Field struct {
	Name       string
	At, Length int           // Columns, Binary: from the frame's first byte, in bytes; Length 0: to the end
	Binary     *decode.Field // Binary
	Text       Text          // all other formats
}

// A Result is what a frame says about a field. The zero Result: nothing.
type Result struct {
	Value  adapters.Value
	Reason adapters.Reason
}

// Said tells whether the frame says anything about the field.
func (r Result) Said() bool { return r != Result{} }

// A Parser understands frames of one form. It is not safe for concurrent use.
type Parser struct {
	extract extractor
	match   *regexp.Regexp // nil: all frames
	fields  []Field        // those of Spec.Fields, then those of Spec.Where
	is      []string       // what Where's must be
	tokens  []token
	hex     bool
	bytes   []byte // what hexadecimal digits stood for
}

// An extractor finds the places of fields in a frame. It sets the tokens of those that are there and
// reports whether the frame is of its form.
type extractor interface {
	extract(frame []byte, tokens []token) bool
}

// A token is a field as it stands in a frame.
type token struct {
	kind   tokenKind
	text   []byte
	number float64
	reason adapters.Reason
}

type tokenKind uint8

const (
	absent tokenKind = iota
	text
	number
	faulty // there, but without a value: see reason
)

// A FieldError is what is impossible about one field.
type FieldError struct {
	Field int // index into Spec.Fields; those of Spec.Where count on
	Err   error
}

func (e *FieldError) Error() string { return e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

// fieldErrors gathers all that is impossible about the fields of a format.
type fieldErrors []error

func (e *fieldErrors) add(field int, err error) { *e = append(*e, &FieldError{field, err}) }
func (e fieldErrors) join() error               { return errors.Join(e...) }

// New returns the parser for s, or all that is impossible about s: FieldErrors, joined, and others.
func New(s Spec) (*Parser, error) {
	p := &Parser{fields: append([]Field(nil), s.Fields...)}
	for _, w := range s.Where {
		p.fields = append(p.fields, w.Field)
		p.is = append(p.is, w.Is)
	}
	if len(p.fields) == 0 && s.Match == "" {
		return nil, errors.New("parse: no fields")
	}
	p.tokens = make([]token, len(p.fields))
	var wrong fieldErrors
	for i := range p.fields {
		if err := p.fields[i].Text.prepare(); err != nil {
			wrong.add(i, err)
		}
	}
	if s.Match != "" {
		re, err := regexp.Compile(s.Match)
		if err != nil {
			return nil, fmt.Errorf("parse: %w", err)
		}
		p.match = re
	}
	var err error
	switch s.Format {
	case Regex:
		p.extract, err = newRegex(p.match, p.fields)
		p.match = nil
	case CSV:
		p.extract, err = newCSV(&s, p.fields)
	case KeyValue:
		p.extract, err = newKeyValue(&s, p.fields)
	case JSON:
		p.extract, err = newJSON(p.fields)
	case Columns:
		p.extract, err = newColumns(p.fields)
	case Binary:
		p.hex = s.HexText
		p.extract, err = newBinary(p.fields)
	case Numbers:
		p.extract, err = newNumbers(p.fields)
	case NMEA:
		p.extract, err = newNMEA(p.fields)
	case OBIS:
		p.extract, err = newOBIS(p.fields)
	default:
		err = fmt.Errorf("format %q is unknown%s", s.Format, hint.OneOf(s.Format, Formats()))
	}
	wrong = append(wrong, adapters.Joined(err)...)
	if len(wrong) == 0 {
		return p, nil
	}
	for i, err := range wrong {
		if fe, ok := err.(*FieldError); ok {
			fe.Err = fmt.Errorf("parse: %w", fe.Err)
		} else {
			wrong[i] = fmt.Errorf("parse: %w", err)
		}
	}
	return nil, wrong.join()
}

// Parse sets out[i] to what the frame says about Spec.Fields[i] and reports whether the frame is of
// the parser's form; out must be as long as Fields.
func (p *Parser) Parse(frame []byte, out []Result) bool {
	clear(out)
	if p.match != nil && !p.match.Match(frame) {
		return false
	}
	if p.hex {
		var ok bool
		if p.bytes, ok = appendHex(p.bytes[:0], frame); !ok {
			return false
		}
		frame = p.bytes
	}
	clear(p.tokens)
	if !p.extract.extract(frame, p.tokens) {
		return false
	}
	n := len(p.fields) - len(p.is)
	for i, is := range p.is {
		if !p.fields[n+i].holds(&p.tokens[n+i], is) {
			return false
		}
	}
	for i := range n {
		out[i] = p.fields[i].result(&p.tokens[i])
	}
	return true
}

// holds tells whether the field is what a Where wants.
func (f *Field) holds(t *token, is string) bool {
	if t.kind == text && string(t.text) == is {
		return true
	}
	r := f.result(t)
	return r.Reason == "" && r.Said() && r.Value.String() == is
}

// result converts a token.
func (f *Field) result(t *token) Result {
	switch t.kind {
	case absent:
		return Result{}
	case faulty:
		return Result{Reason: t.reason}
	case number:
		return f.Text.scale(t.number)
	}
	if f.Binary != nil {
		v, reason := f.Binary.Decode(t.text)
		return Result{v, reason}
	}
	return f.Text.convert(t.text)
}

// appendHex appends the bytes that pairs of hexadecimal digits stand for; blanks between pairs are
// passed over.
func appendHex(dst, s []byte) ([]byte, bool) {
	for i := 0; i < len(s); {
		if s[i] == ' ' {
			i++
			continue
		}
		if i+1 >= len(s) {
			return dst, false
		}
		hi, lo := hexDigit(s[i]), hexDigit(s[i+1])
		if hi > 15 || lo > 15 {
			return dst, false
		}
		dst = append(dst, hi<<4|lo)
		i += 2
	}
	return dst, true
}

func hexDigit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}
