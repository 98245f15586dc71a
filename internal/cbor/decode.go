package cbor

import (
	"encoding/binary"
	"errors"
	"math"
	"unicode/utf8"
)

var (
	errShort       = errors.New("cbor: the data ends within an item")
	errUnsupported = errors.New("cbor: a tag, an item of indefinite length or something else that is not read here")
	errText        = errors.New("cbor: a text string is not UTF-8")
	errKey         = errors.New("cbor: a map has a key twice, or one that is neither a number nor a text")
	errDeep        = errors.New("cbor: items within items within items")
)

const (
	maxDepth = 16 // of arrays and maps within each other
	most     = 64 // items for which there is room before they have come
)

// Decode reads one item from the beginning of b and returns what is behind it. Items become uint64, int64
// where they are negative, float64, bool, nil, string, []byte (a part of b), []any and map[any]any.
// Hostile data costs a small multiple of its length in memory, and no more.
func Decode(b []byte) (v any, rest []byte, err error) { return decode(b, maxDepth) }

func decode(b []byte, depth int) (v any, rest []byte, err error) {
	if depth == 0 {
		return nil, nil, errDeep
	}
	if len(b) == 0 {
		return nil, nil, errShort
	}
	major, info := b[0]&0xe0, b[0]&0x1f
	n := uint64(info)
	b = b[1:]
	switch {
	case info > 27:
		return nil, nil, errUnsupported
	case info >= 24:
		size := 1 << (info - 24)
		if len(b) < size {
			return nil, nil, errShort
		}
		var full [8]byte
		copy(full[8-size:], b[:size])
		n, b = binary.BigEndian.Uint64(full[:]), b[size:]
	}
	switch major {
	case unsigned:
		return n, b, nil
	case negative:
		if n > math.MaxInt64 {
			return nil, nil, errUnsupported
		}
		return ^int64(n), b, nil
	case bytes, text:
		if n > uint64(len(b)) {
			return nil, nil, errShort
		}
		s, rest := b[:n:n], b[n:]
		if major == bytes {
			return s, rest, nil
		}
		if !utf8.Valid(s) {
			return nil, nil, errText
		}
		return string(s), rest, nil
	case array:
		if n > uint64(len(b)) { // an item takes a byte at least
			return nil, nil, errShort
		}
		list := make([]any, 0, min(n, most))
		for range n {
			var item any
			if item, b, err = decode(b, depth-1); err != nil {
				return nil, nil, err
			}
			list = append(list, item)
		}
		return list, b, nil
	case mapping:
		if n > uint64(len(b))/2 {
			return nil, nil, errShort
		}
		m := make(map[any]any, min(n, most))
		for range n {
			var key, value any
			if key, b, err = decode(b, depth-1); err != nil {
				return nil, nil, err
			}
			switch key.(type) {
			case uint64, int64, string:
			default:
				return nil, nil, errKey
			}
			if _, twice := m[key]; twice {
				return nil, nil, errKey
			}
			if value, b, err = decode(b, depth-1); err != nil {
				return nil, nil, err
			}
			m[key] = value
		}
		return m, b, nil
	case simple:
		switch info {
		case False & 0x1f, True & 0x1f:
			return info == True&0x1f, b, nil
		case Null & 0x1f, 23: // undefined
			return nil, b, nil
		case half & 0x1f:
			return fromHalf(uint16(n)), b, nil
		case single & 0x1f:
			return float64(math.Float32frombits(uint32(n))), b, nil
		case double & 0x1f:
			return math.Float64frombits(n), b, nil
		}
	}
	return nil, nil, errUnsupported
}
