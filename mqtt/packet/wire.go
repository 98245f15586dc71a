package packet

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"

	"gateway/mqtt"
)

// appendVarint appends a variable byte integer (1.5.5) of at most 268,435,455 in the fewest bytes
// [MQTT-1.5.5-1].
func appendVarint(dst []byte, n uint32) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

func sizeVarint(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}

// appendString appends a length of two bytes and s, at most 65,535 bytes long (1.5.4, 1.5.6).
func appendString[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, byte(len(s)>>8), byte(len(s)))
	return append(dst, s...)
}

// A cursor walks over a frame's body. Its first failure sticks; what is read afterwards is zero.
type cursor struct {
	b   []byte
	off int
	typ Type
	err *Error

	// Where share is set, strings are cut from one copy of b[:share], made when the first is needed.
	share int
	text  string
}

func (c *cursor) fail(code mqtt.ReasonCode, statement, detail string) {
	if c.err == nil {
		c.err = &Error{Code: code, Type: c.typ, Statement: statement, Detail: detail}
	}
	c.off = len(c.b)
}

func (c *cursor) malformed(statement, detail string) { c.fail(mqtt.MalformedPacket, statement, detail) }
func (c *cursor) protocol(statement, detail string)  { c.fail(mqtt.ProtocolError, statement, detail) }

func (c *cursor) left() int { return len(c.b) - c.off }

func (c *cursor) short() { c.malformed("", "ends before its content does") }

// done returns the first failure; bytes left over are one.
func (c *cursor) done() error {
	if c.err == nil && c.off < len(c.b) {
		c.malformed("", "has bytes after its end")
	}
	if c.err != nil {
		return c.err
	}
	return nil
}

func (c *cursor) byte() byte {
	if c.left() < 1 {
		c.short()
		return 0
	}
	c.off++
	return c.b[c.off-1]
}

func (c *cursor) uint16() uint16 {
	if c.left() < 2 {
		c.short()
		return 0
	}
	c.off += 2
	return binary.BigEndian.Uint16(c.b[c.off-2:])
}

func (c *cursor) uint32() uint32 {
	if c.left() < 4 {
		c.short()
		return 0
	}
	c.off += 4
	return binary.BigEndian.Uint32(c.b[c.off-4:])
}

// id reads a packet identifier, which is never 0 [MQTT-2.2.1-3].
func (c *cursor) id() uint16 {
	id := c.uint16()
	if id == 0 {
		c.protocol("MQTT-2.2.1-3", "packet identifier is 0")
	}
	return id
}

// varint reads a variable byte integer, which must not be longer than needed [MQTT-1.5.5-1].
func (c *cursor) varint() uint32 {
	var n uint32
	for shift := 0; shift < 28; shift += 7 {
		b := c.byte()
		n |= uint32(b&0x7f) << shift
		if b < 0x80 {
			if b == 0 && shift > 0 {
				c.malformed("MQTT-1.5.5-1", "variable byte integer is longer than needed")
			}
			return n
		}
	}
	c.malformed("MQTT-1.5.5-1", "variable byte integer has more than four bytes")
	return 0
}

// binary reads a length of two bytes and as many bytes, which alias the body.
func (c *cursor) binary() []byte {
	n := int(c.uint16())
	if c.left() < n {
		c.short()
		return nil
	}
	c.off += n
	return c.b[c.off-n : c.off : c.off]
}

// utf8 reads the bytes of a UTF-8 string and checks them [MQTT-1.5.4-1] [MQTT-1.5.4-2].
func (c *cursor) utf8() []byte {
	b := c.binary()
	if !plain(b) {
		c.check(b)
	}
	return b
}

func (c *cursor) check(b []byte) {
	if !utf8.Valid(b) {
		c.malformed("MQTT-1.5.4-1", "string is not well-formed UTF-8")
	} else if bytes.IndexByte(b, 0) >= 0 {
		c.malformed("MQTT-1.5.4-2", "string contains a null character")
	}
}

const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// plain tells whether b is ASCII without null characters and wildcards, eight bytes at a time; most
// strings are, and need no further look.
func plain(b []byte) bool {
	var odd uint64 // a high bit for each byte that is not plain; exact while no byte has its own high bit set
	for len(b) >= 8 {
		w := binary.LittleEndian.Uint64(b)
		odd |= w | (w - ones) | ((w ^ '#'*ones) - ones) | ((w ^ '+'*ones) - ones)
		b = b[8:]
	}
	for _, x := range b {
		if x == 0 || x == '#' || x == '+' || x >= 0x80 {
			return false
		}
	}
	return odd&highs == 0
}

// string reads a UTF-8 string. Where it equals old, old is returned.
func (c *cursor) string(old string) string { return c.keep(c.utf8(), old) }

// keep returns the string of b, which was read just now.
func (c *cursor) keep(b []byte, old string) string {
	switch {
	case string(b) == old:
		return old
	case c.off > c.share:
		return string(b)
	case c.text == "":
		c.text = string(c.b[:c.share])
	}
	return c.text[c.off-len(b) : c.off]
}

// topicName reads a topic name, which the statement forbids to hold a wildcard. An empty one passes.
// Topic name invalid, 0x90, is not for this: it says that a well-formed name is not accepted (3.14.2.1),
// and so does topic filter invalid, 0x8F.
func (c *cursor) topicName(old, statement string) string {
	b := c.binary()
	if !plain(b) {
		c.check(b)
		if bytes.IndexByte(b, '+') >= 0 || bytes.IndexByte(b, '#') >= 0 {
			c.malformed(statement, "topic name contains a wildcard")
		}
		if c.err != nil {
			return ""
		}
	}
	return c.keep(b, old)
}

// topicFilter reads a topic filter.
func (c *cursor) topicFilter() string {
	s := c.string("")
	if c.err == nil && !mqtt.ValidTopicFilter(s) {
		c.malformed(filterStatement(s), "topic filter is not valid")
	}
	return s
}

func filterStatement(s string) string {
	group, rest := mqtt.SplitShare(s)
	switch {
	case s == "":
		return "MQTT-4.7.3-1"
	case len(s) >= 7 && s[:7] == "$share/" && !mqtt.ValidTopicFilter("$share/"+group+"/x"):
		return "MQTT-4.8.2-1"
	case len(s) >= 7 && s[:7] == "$share/" && rest == "":
		return "MQTT-4.8.2-2"
	case bytes.IndexByte([]byte(s), '#') >= 0:
		return "MQTT-4.7.1-1"
	}
	return "MQTT-4.7.1-2"
}
