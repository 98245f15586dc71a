package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Bytes are what goes over a line: text in which \r, \n, \t, \0, \\ and \x1b stand for bytes, or
// hexadecimal digits after "hex:".
type Bytes []byte

// UnmarshalText reads the bytes.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := string(text)
	if digits, ok := strings.CutPrefix(s, "hex:"); ok {
		raw, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		if err != nil {
			return fmt.Errorf(`%q: after hex: stand pairs of hexadecimal digits, such as "hex:02 41 03"`, s)
		}
		*b = raw
		return nil
	}
	raw := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			raw = append(raw, s[i])
			continue
		}
		if i++; i == len(s) {
			return fmt.Errorf(`%q ends in a backslash; write \\ for one`, s)
		}
		at := strings.IndexByte(`rnt0\`, s[i])
		switch {
		case at >= 0:
			raw = append(raw, "\r\n\t\x00\\"[at])
		case s[i] == 'x' && i+2 < len(s):
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return fmt.Errorf(`%q: \x is followed by two hexadecimal digits`, s)
			}
			raw = append(raw, byte(n))
			i += 2
		default:
			return fmt.Errorf(`%q: \%c is unknown; there are \r \n \t \0 \\ and \x1b`, s, s[i])
		}
	}
	*b = raw
	return nil
}

// Words are texts; numbers in the list are taken as they are written.
type Words []string

func (w *Words) fromTOML(value any) error {
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	*w = Words{}
	for _, v := range list {
		switch v := v.(type) {
		case string:
			*w = append(*w, v)
		case int64, float64, bool:
			*w = append(*w, fmt.Sprint(v))
		default:
			return errors.New("must be a text or a list of texts")
		}
	}
	return nil
}

// SerialChecksum is a checksum: its name, or a table with type, as (binary, hex, sdi-12), order (big,
// little) and from, the first byte that it covers.
type SerialChecksum struct {
	Type, As, Order string
	From            int
}

func (c *SerialChecksum) fromTOML(value any) error {
	if name, ok := value.(string); ok {
		*c = SerialChecksum{Type: name}
		return nil
	}
	table, ok := value.(map[string]any)
	if !ok {
		return errors.New(`must be a name such as "crc16-modbus", or a table { type = "xor", as = "hex" }`)
	}
	for key, v := range table {
		text, isText := v.(string)
		number, isNumber := v.(int64)
		switch {
		case key == "type" && isText:
			c.Type = text
		case key == "as" && isText:
			c.As = text
		case key == "order" && isText:
			c.Order = text
		case key == "from" && isNumber && number >= 0 && number < 1<<16:
			c.From = int(number)
		case key == "type" || key == "as" || key == "order":
			return fmt.Errorf("%s is %s, must be a string", key, describe(v))
		case key == "from":
			return fmt.Errorf("from is %s, must be a whole number from 0", describe(v))
		default:
			return fmt.Errorf("unknown key %q; there are type, as, order and from", key)
		}
	}
	if c.Type == "" {
		return errors.New("has no type")
	}
	return nil
}
