package gateway

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"gateway/adapters/hint"
	"gateway/adapters/serial/frame"
	"gateway/adapters/serial/parse"
	"gateway/config"
)

// impliedFrame is the framing of a line whose table says nothing of it: that of its devices' format,
// else lines.
func impliedFrame(cfg *config.Serial) frame.Spec {
	formats := map[parse.Format]bool{}
	for i := range cfg.Devices {
		for _, m := range cfg.Devices[i].All() {
			formats[parse.Format(m.Format)] = true
		}
	}
	if len(formats) == 1 {
		switch {
		case formats[parse.NMEA]:
			return frame.NMEASpec()
		case formats[parse.OBIS]:
			return frame.DSMRSpec(true)
		}
	}
	return frame.Spec{Kind: frame.Line, Delimiter: []byte("\n")}
}

// framePresets are the framings that have a name.
func framePresets() map[string]frame.Spec {
	return map[string]frame.Spec{
		"nmea": frame.NMEASpec(), "dsmr": frame.DSMRSpec(true), "dsmr2": frame.DSMRSpec(false),
		"iec62056": frame.IEC62056Spec(), "slip": frame.SLIPSpec(),
		"hdlc": {Kind: frame.Markers, End: []byte{0x7E}, Escape: frame.Escape{Kind: frame.Masked, Byte: 0x7D, XOR: 0x20}},
	}
}

func serialFrame(f *config.SerialFrame) (frame.Spec, error) {
	if f == nil {
		return frame.Spec{}, nil
	}
	var s frame.Spec
	fail := func(key, format string, args ...any) (frame.Spec, error) {
		return s, &placeError{f.At, key, fmt.Errorf(format, args...)}
	}
	kinds := 0
	pick := func(given bool, kind frame.Kind) {
		if given {
			kinds++
			s.Kind = kind
		}
	}
	pick(len(f.Line) > 0, frame.Line)
	pick(f.Fixed != 0, frame.Fixed)
	pick(f.Field != nil, frame.Length)
	pick(len(f.End) > 0, frame.Markers)
	if f.Preset != "" {
		kinds++
		preset, ok := framePresets()[f.Preset]
		if !ok {
			return fail("preset", "preset %q is unknown%s", f.Preset, hint.OneOf(f.Preset, slices.Sorted(maps.Keys(framePresets()))))
		}
		s = preset
	}
	if kinds == 0 && f.Silence > 0 {
		kinds, s.Kind = 1, frame.Gap
	}
	if kinds != 1 {
		return fail("", "say how frames are told apart by exactly one of preset, line, fixed, length, end, or silence alone")
	}
	switch {
	case len(f.Line) > 0:
		s.Delimiter = f.Line
	case f.Fixed != 0:
		s.Size = f.Fixed
	case f.Field != nil:
		s.LengthOffset, s.LengthSize, s.LengthAdjust = f.Field.Pos, f.Field.Size, f.Field.Add
		switch f.Field.Order {
		case "big":
		case "little":
			s.LittleEndian = true
		default:
			return fail("length", "order %q of the length: big or little", f.Field.Order)
		}
	case len(f.End) > 0:
		s.End = f.End
	}
	if len(f.Start) > 0 {
		if s.Kind == frame.Line || s.Kind == frame.Gap || f.Preset != "" {
			return fail("start", "start does not apply to this kind of frame")
		}
		s.Start = f.Start
	}
	if f.Silence != 0 {
		s.Silence = f.Silence
	}
	if f.Max != 0 {
		s.Max = int(min(int64(f.Max), 1<<30))
	}
	if err := serialEscape(&s, f); err != nil {
		return s, err
	}
	if f.Checksum != nil {
		check, err := serialChecksum(f.Checksum)
		if err != nil {
			return fail("checksum", "%w", err)
		}
		s.Check = check
	}
	if f.Checksum != nil || f.ChecksumAfter || f.ChecksumOfStart || f.ChecksumOfEnd {
		s.Check.AfterEnd, s.Check.WithStart, s.Check.WithEnd = f.ChecksumAfter, f.ChecksumOfStart, f.ChecksumOfEnd
	}
	if _, err := frame.New(s); err != nil {
		return fail("", "%s", strings.TrimPrefix(err.Error(), "frame: "))
	}
	return s, nil
}

func serialEscape(s *frame.Spec, f *config.SerialFrame) error {
	if f.Escape == "" {
		if len(f.EscapeByte) > 0 || f.EscapeMask != 0 {
			return &placeError{f.At, "escape_byte", errors.New(`add escape = "literal", "masked", "slip" or "doubled"`)}
		}
		return nil
	}
	e := frame.Escape{Byte: 0x10, XOR: f.EscapeMask}
	switch f.Escape {
	case "literal":
		e.Kind = frame.Literal
	case "masked":
		e.Kind, e.Byte = frame.Masked, 0x7D
		if e.XOR == 0 {
			e.XOR = 0x20
		}
	case "slip":
		e.Kind, e.Byte = frame.SLIP, 0xDB
	case "doubled":
		e.Kind = frame.Doubled
	default:
		return &placeError{f.At, "escape", fmt.Errorf("escape %q: literal, masked, slip or doubled", f.Escape)}
	}
	switch len(f.EscapeByte) {
	case 0:
	case 1:
		e.Byte = f.EscapeByte[0]
	default:
		return &placeError{f.At, "escape_byte", errors.New("escape_byte is one byte")}
	}
	if s.Kind != frame.Markers {
		return &placeError{f.At, "escape", errors.New("escapes are for frames between markers")}
	}
	s.Escape = e
	return nil
}

func serialChecksum(c *config.SerialChecksum) (frame.Check, error) {
	if c == nil {
		return frame.Check{}, nil
	}
	k := frame.Check{Sum: frame.Sum(c.Type), From: c.From}
	if !slices.Contains(frame.Sums(), k.Sum) {
		return k, fmt.Errorf("checksum %q is unknown%s", c.Type, hint.OneOf(k.Sum, frame.Sums()))
	}
	switch c.As {
	case "", "binary":
	case "hex":
		k.Coding = frame.Hex
	case "sdi-12":
		k.Coding = frame.SDI12
	default:
		return k, fmt.Errorf("a checksum as %q: binary, hex or sdi-12", c.As)
	}
	switch c.Order {
	case "":
	case "big":
		k.Order = frame.Big
	case "little":
		k.Order = frame.Little
	default:
		return k, fmt.Errorf("order %q of the checksum: big or little", c.Order)
	}
	return k, nil
}
