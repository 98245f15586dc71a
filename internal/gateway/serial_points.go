package gateway

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gateway/adapters"
	"gateway/adapters/decode"
	"gateway/adapters/hint"
	"gateway/adapters/serial"
	"gateway/adapters/serial/parse"
	"gateway/config"
)

func serialDevice(cfg *config.SerialDevice) (serial.Device, error) {
	d := serial.Device{Name: cfg.Name, Labels: sortedLabels(cfg.Labels), Interval: cfg.Interval, Timeout: cfg.Timeout}
	var errs []error
	for _, m := range cfg.All() {
		message, points, err := serialMessage(cfg, m)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for i := range points {
			message.Points = append(message.Points, len(d.Points)+i)
		}
		d.Points = append(d.Points, points...)
		d.Messages = append(d.Messages, message)
	}
	return d, errors.Join(errs...)
}

func serialMessage(d *config.SerialDevice, cfg *config.SerialMessage) (m serial.Message, points []serial.Point, err error) {
	fail := func(key string, err error) (serial.Message, []serial.Point, error) {
		return m, nil, &placeError{cfg.At, key, err}
	}
	m = serial.Message{NoAnswer: !cfg.Answer, Break: cfg.Break, Baud: cfg.Baud, ThenBaud: cfg.ThenBaud, Wait: cfg.Wait, Timeout: cfg.AnswerWithin}
	if len(cfg.Send) > 0 {
		m.Send = []byte(strings.ReplaceAll(string(cfg.Send), "{address}", d.Address))
		check, err := serialChecksum(cfg.SendChecksum)
		if err != nil {
			return fail("send_checksum", err)
		}
		if m.Send, err = check.Append(m.Send); err != nil {
			return fail("send_checksum", err)
		}
		m.Send = append(m.Send, cfg.SendEnd...)
	}
	if cfg.Refused != "" {
		if m.Refused, err = regexp.Compile(withAddress(cfg.Refused, d.Address)); err != nil {
			return fail("refused", err)
		}
	}
	if cfg.Frame != nil {
		s, err := serialFrame(cfg.Frame)
		if err != nil {
			return m, nil, err
		}
		m.Frame = &s
	}
	m.Parse = parse.Spec{
		Format: parse.Format(cfg.Format), Match: withAddress(cfg.Match, d.Address), Separator: cfg.Separator, Assign: cfg.Assign,
		Columns: cfg.Columns, HexText: cfg.HexText,
	}
	match, err := regexp.Compile(m.Parse.Match)
	if err != nil {
		return fail("match", err)
	}
	if cfg.Format == "" {
		if cfg.Match == "" && len(cfg.Points) > 0 {
			return fail("", errors.New(`does not say what its messages look like; add match = '...(?P<name>...)...', or format = "csv" or another`))
		}
		m.Parse.Format = parse.Regex
	}
	if !slices.Contains(parse.Formats(), m.Parse.Format) {
		return fail("format", fmt.Errorf("format %q is unknown%s", cfg.Format, hint.OneOf(m.Parse.Format, parse.Formats())))
	}
	binary := m.Parse.Format == parse.Binary
	var wrong []error
	for i := range cfg.Points {
		f, err := serialField(&cfg.Points[i], binary, cfg.DecimalComma)
		if err != nil {
			wrong = append(wrong, err)
		}
		m.Parse.Fields = append(m.Parse.Fields, f)
		points = append(points, serialPoint(&cfg.Points[i], &f))
	}
	if len(cfg.Points) == 0 && m.Parse.Format == parse.Regex {
		m.Parse.Fields, points = groupPoints(match, cfg.DecimalComma)
	}
	for i := range cfg.Where {
		w := &cfg.Where[i]
		f, err := serialPlaceField(w.At, &w.SerialPlace, binary)
		if err != nil {
			wrong = append(wrong, err)
		}
		if !binary && w.Type == "" {
			f.Text.Type = parse.String
		}
		m.Parse.Where = append(m.Parse.Where, parse.Where{Field: f, Is: strings.ReplaceAll(w.Is, "{address}", d.Address)})
	}
	return m, points, errors.Join(wrong...)
}

// withAddress puts the address into a pattern, where it stands for itself.
func withAddress(pattern, address string) string {
	return strings.ReplaceAll(pattern, "{address}", regexp.QuoteMeta(address))
}

// groupPoints makes a point of each named group of a pattern that has no points.
func groupPoints(re *regexp.Regexp, comma bool) (fields []parse.Field, points []serial.Point) {
	for _, name := range re.SubexpNames() {
		if name != "" {
			fields = append(fields, parse.Field{Name: name, Text: parse.Text{DecimalComma: comma}})
			points = append(points, serial.Point{Point: adapters.Point{Name: name, Decimals: -1}})
		}
	}
	return fields, points
}

func serialPoint(p *config.SerialPoint, f *parse.Field) serial.Point {
	point := serial.Point{Point: adapters.Point{Name: p.Name, Unit: p.Unit, Decimals: -1, Labels: sortedLabels(p.Labels)}, Interval: p.Interval}
	switch {
	case p.Decimals != nil:
		point.Decimals = *p.Decimals
	case f.Binary != nil:
		point.Decimals = f.Binary.Decimals()
	}
	return point
}

// serialField turns a point into a field.
func serialField(p *config.SerialPoint, binary, comma bool) (parse.Field, error) {
	f, err := serialPlaceField(p.At, &p.SerialPlace, binary)
	if err != nil {
		return f, err
	}
	fail := func(key string, err error) (parse.Field, error) { return f, &placeError{p.At, key, err} }
	if !binary {
		if len(p.Flags) > 0 {
			return fail("flags", errors.New(`flags are for format = "binary"`))
		}
		t := &f.Text
		t.Min, t.Max, t.DecimalComma = p.Min, p.Max, comma
		t.Sentinels, t.Overrange, t.True, t.False, t.Labels = p.Sentinels, p.Overrange, p.True, p.False, p.Values
		return f, nil
	}
	if len(p.Overrange)+len(p.True)+len(p.False) > 0 {
		return fail("", errors.New("overrange, true and false are for text"))
	}
	s, err := serialBinary(p.At, &p.SerialPlace)
	if err != nil {
		return f, err
	}
	s.Min, s.Max = p.Min, p.Max
	for _, w := range p.Sentinels {
		n, err := strconv.ParseUint(w, 0, 64)
		if err != nil {
			return fail("sentinels", fmt.Errorf("%q is not the raw number of a binary value", w))
		}
		s.Sentinels = append(s.Sentinels, n)
	}
	for n, text := range p.Values {
		k, err := strconv.ParseInt(n, 0, 64)
		if err != nil {
			return fail("values", fmt.Errorf("%q is not a whole number", n))
		}
		if s.Labels == nil {
			s.Labels = map[int64]string{}
		}
		s.Labels[k] = text
	}
	for n, text := range p.Flags {
		k, err := strconv.Atoi(n)
		if err != nil {
			return fail("flags", fmt.Errorf("%q is not the number of a bit", n))
		}
		if s.Flags == nil {
			s.Flags = map[int]string{}
		}
		s.Flags[k] = text
	}
	if f.Binary, err = decode.New(s); err != nil {
		return fail("", errors.New(strings.TrimPrefix(err.Error(), "decode: ")))
	}
	return f, nil
}

// serialPlaceField turns the part that points and conditions share into a field.
func serialPlaceField(at config.Place, p *config.SerialPlace, binary bool) (parse.Field, error) {
	f := parse.Field{Name: p.Field, At: p.Pos, Length: p.Length}
	if !binary {
		if p.Order != "" {
			return f, &placeError{at, "order", errors.New(`order is for format = "binary"`)}
		}
		f.Text = parse.Text{Type: parse.Type(p.Type), Scale: p.Scale, Offset: p.Offset, Unit: p.Suffix}
		return f, nil
	}
	s, err := serialBinary(at, p)
	if err != nil {
		return f, err
	}
	if f.Binary, err = decode.New(s); err != nil {
		return f, &placeError{at, "", errors.New(strings.TrimPrefix(err.Error(), "decode: "))}
	}
	return f, nil
}

func serialBinary(at config.Place, p *config.SerialPlace) (decode.Spec, error) {
	s := decode.Spec{Scale: p.Scale, Offset: p.Offset}
	if p.Type == "" {
		return s, &placeError{at, "", errors.New(`has no type; add type = "uint16" or another`)}
	}
	t, err := decode.ParseType(p.Type)
	if err != nil {
		return s, &placeError{at, "type", errors.New(strings.TrimPrefix(err.Error(), "decode: "))}
	}
	if t.Text() {
		if p.Length <= 0 {
			return s, &placeError{at, "type", fmt.Errorf("a %s needs its length", p.Type)}
		}
		t.Bytes = p.Length
	}
	s.Type = t
	if p.Order != "" {
		if s.Order, err = decode.ParseOrder(p.Order); err != nil {
			return s, &placeError{at, "order", errors.New(strings.TrimPrefix(err.Error(), "decode: "))}
		}
	}
	return s, nil
}
