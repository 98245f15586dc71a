// Package frame cuts the stream of bytes from a serial line into frames: lines, frames of a fixed
// length, frames that say their length, frames between markers, frames between silences. It checks
// their checksums, keeps to a size limit and finds its way back after garbage.
//
//	bytes -> Cutter.Feed -> Cutter.Next -> frame, frame, fault, frame ...
//	silence -> Cutter.Silence ^
//
// In steady state nothing is allocated: a frame's Data points into the cutter.
package frame

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// Kind is how frames are told apart.
type Kind uint8

const (
	Line    Kind = iota // up to a delimiter
	Fixed               // so many bytes
	Length              // a field in the frame tells its length
	Markers             // between a start and an end marker, or up to an end marker where there is no start
	Gap                 // what lies between two silences
)

// DefaultMax is the size limit of frames where none is set.
const DefaultMax = 4096

// A Spec says how to cut. Which fields count depends on Kind.
type Spec struct {
	Kind Kind

	// Line: what ends a line; it is not part of the frame. A carriage return before the delimiter
	// "\n" is not either. Empty lines are passed over.
	Delimiter []byte

	// Fixed, Length: the bytes with which every frame starts; they are part of the frame. Without
	// them a lost byte is found only by checksum or silence. Markers: the start marker; one that is a
	// control character begins the frame anew where neither escapes nor a checksum let it stand inside.
	Start []byte

	Size int // Fixed: the length of a frame, in bytes

	// Length: the frame's length is the field's value plus LengthAdjust, in bytes, counted from the
	// frame's first byte to its last, checksum included.
	LengthOffset int // of the field, from the frame's first byte
	LengthSize   int // 1, 2, 3 or 4 bytes
	LittleEndian bool
	LengthAdjust int

	End    []byte // Markers: the end marker
	Escape Escape // Markers: how bytes that look like markers are written

	// Silence that ends a frame (Gap), or after which what has arrived of one is thrown away (other
	// kinds; 0: never).
	Silence time.Duration

	Max   int // the largest frame, in bytes, markers and checksum included; 0: DefaultMax
	Check Check
}

// An Escape is how marker bytes are written inside a frame.
type Escape struct {
	Kind EscapeKind
	Byte byte // the escape byte; for Doubled it must be the first byte of both markers
	XOR  byte // for Masked
}

// EscapeKind is a convention of escaping.
type EscapeKind uint8

const (
	NoEscape EscapeKind = iota
	Literal             // the byte after the escape byte stands for itself
	Masked              // the byte after the escape byte is to be XORed with a mask (HDLC: 0x7D, 0x20)
	SLIP                // RFC 1055: DB DC is C0, DB DD is DB
	Doubled             // the escape byte is written twice; followed by anything else it is a marker (DLE STX ... DLE ETX)
)

// SLIPSpec is the framing of RFC 1055.
func SLIPSpec() Spec {
	return Spec{Kind: Markers, End: []byte{0xC0}, Escape: Escape{Kind: SLIP, Byte: 0xDB}}
}

// NMEASpec is the framing of NMEA 0183: $ or !, fields, *, checksum, CR LF.
func NMEASpec() Spec {
	return Spec{Kind: Line, Delimiter: []byte("\n"), Max: 1024, Check: Check{Sum: NMEA}}
}

// DSMRSpec is the framing of P1 telegrams (DSMR P1 companion standard 5.0.2, 5.2): / to !, then the
// CRC-16 of all that as four hexadecimal digits. Before DSMR 4 there was no CRC: checked is false.
func DSMRSpec(checked bool) Spec {
	s := Spec{Kind: Markers, Start: []byte("/"), End: []byte("\n!"), Max: 16 << 10}
	if checked {
		s.Check = Check{Sum: CRC16ARC, Coding: Hex, AfterEnd: true, WithStart: true, WithEnd: true}
	}
	return s
}

// IEC62056Spec is the framing of a data message of IEC 62056-21, 6.3: STX to ETX, then the block
// check character, which is the XOR of all after STX up to and with ETX.
func IEC62056Spec() Spec {
	return Spec{
		Kind: Markers, Start: []byte{2}, End: []byte{3}, Max: 64 << 10,
		Check: Check{Sum: XOR, AfterEnd: true, WithEnd: true},
	}
}

// Fault is why bytes were not a frame.
type Fault uint8

const (
	None     Fault = iota
	Garbage        // bytes outside of any frame
	Checksum       // a frame whose checksum is wrong
	TooLong        // a frame above the size limit
	Partial        // a frame that silence or the start of another cut off
)

func (f Fault) String() string {
	return [...]string{"none", "garbage", "checksum", "too long", "cut off"}[f]
}

// A Frame is what Next found. Both slices are valid until the cutter is next used.
type Frame struct {
	Data  []byte // without delimiter, markers, escapes and checksum; nil for a fault
	Raw   []byte // as received; for a fault: what is thrown away
	Fault Fault
}

// A Cutter cuts frames out of a stream. It is not safe for concurrent use.
type Cutter struct {
	spec    Spec
	split   func(c *Cutter, b []byte) (split, bool)
	sum     *sum
	buf     []byte
	r       int    // buf[r:] is yet to be cut
	seen    int    // so much of it holds no delimiter
	scratch []byte // a frame without its escapes
	quiet   bool   // a silence came after the last byte
	flood   Fault  // other than None: what comes, up to the end of this frame, goes with what is thrown away for it
	joining bool   // what comes may be the rest of a frame whose start was missed
}

// split is the verdict about the start of the buffer.
type split struct {
	n     int    // bytes to take away
	data  []byte // what they hold, checksum removed; empty to pass over n bytes without a word
	fault Fault
}

// New returns a cutter for s, or says what is impossible about s.
func New(s Spec) (*Cutter, error) {
	c := &Cutter{spec: s}
	if s.Max == 0 {
		c.spec.Max = DefaultMax
	}
	if s.Max < 0 || s.Max > 16<<20 {
		return nil, fmt.Errorf("frame: size limit %d: 1 to 16777216 bytes are possible", s.Max)
	}
	if s.Silence < 0 {
		return nil, fmt.Errorf("frame: silence %v is negative", s.Silence)
	}
	var err error
	if c.sum, err = s.Check.sum(); err != nil {
		return nil, err
	}
	if s.Kind != Markers && (s.Check.AfterEnd || s.Check.WithEnd || s.Check.WithStart) {
		return nil, errors.New("frame: a checksum after the end, or over the markers, needs start and end markers")
	}
	switch s.Kind {
	case Line:
		if len(s.Delimiter) == 0 {
			return nil, errors.New("frame: lines need a delimiter")
		}
		c.split = (*Cutter).splitLine
	case Fixed:
		least := len(s.Start) + c.sum.width() + 1
		if s.Size < least || s.Size > c.spec.Max {
			return nil, fmt.Errorf("frame: fixed length %d: from %d to the size limit %d bytes are possible", s.Size, least, c.spec.Max)
		}
		c.split = (*Cutter).splitFixed
	case Length:
		if s.LengthSize < 1 || s.LengthSize > 4 {
			return nil, fmt.Errorf("frame: a length field of %d bytes: 1 to 4 are possible", s.LengthSize)
		}
		if s.LengthOffset < 0 || s.LengthOffset > c.spec.Max-s.LengthSize {
			return nil, fmt.Errorf("frame: the length field at %d is outside of the frame", s.LengthOffset)
		}
		c.split = (*Cutter).splitLength
	case Markers:
		if err := s.checkMarkers(); err != nil {
			return nil, err
		}
		c.split = (*Cutter).splitMarkers
		if s.Escape.Kind != NoEscape {
			c.split = (*Cutter).splitEscaped
		}
	case Gap:
		if s.Silence == 0 {
			return nil, errors.New("frame: frames between silences need to know how long a silence is")
		}
		c.split = (*Cutter).splitGap
	default:
		return nil, fmt.Errorf("frame: kind %d is unknown", s.Kind)
	}
	return c, nil
}

func (s *Spec) checkMarkers() error {
	e := s.Escape
	switch {
	case len(s.End) == 0:
		return errors.New("frame: markers need an end")
	case e.Kind > Doubled:
		return fmt.Errorf("frame: escape %d is unknown", e.Kind)
	case e.Kind == Doubled && (len(s.End) < 2 || s.End[0] != e.Byte || s.End[1] == e.Byte ||
		len(s.Start) == 1 || len(s.Start) > 1 && (s.Start[0] != e.Byte || s.Start[1] == e.Byte)):
		return fmt.Errorf("frame: where the escape byte %#02x is doubled, both markers start with it, followed by another byte", e.Byte)
	case (e.Kind == Literal || e.Kind == Masked || e.Kind == SLIP) && (s.End[0] == e.Byte || len(s.Start) > 0 && s.Start[0] == e.Byte):
		return fmt.Errorf("frame: the escape byte %#02x starts a marker", e.Byte)
	case e.Kind == Masked && e.XOR == 0:
		return errors.New("frame: masked escapes need a mask other than 0")
	}
	return nil
}

// SilenceAfter returns how long the line must be quiet before Silence is to be called; 0: a silence now
// would tell nothing.
func (c *Cutter) SilenceAfter() time.Duration {
	if c.Waiting() == 0 && c.flood == None && !c.joining {
		return 0
	}
	return c.spec.Silence
}

// Waiting returns how many bytes have arrived that are no frame yet.
func (c *Cutter) Waiting() int { return len(c.buf) - c.r }

// Feed takes bytes that were received. Next is to be called until it has no more.
func (c *Cutter) Feed(b []byte) {
	if c.r > 0 {
		n := copy(c.buf, c.buf[c.r:])
		c.buf, c.r = c.buf[:n], 0
	}
	c.buf = append(c.buf, b...)
	c.quiet = false
}

// Silence says that the line has been quiet for as long as SilenceAfter. Next is to be called
// until it has no more.
func (c *Cutter) Silence() {
	c.quiet = true
	if c.spec.Kind != Gap {
		c.flood, c.joining = None, false // what comes now is the start of a frame
	}
}

// Reset forgets what has arrived.
func (c *Cutter) Reset() {
	c.buf, c.r, c.seen, c.quiet, c.flood, c.joining = c.buf[:0], 0, 0, false, None, false
}

// Join is Reset for a stream that may be in the middle of a frame. Where only its end tells a frame
// and no checksum would find out, what comes up to the first end is passed over: half a number is a
// number, too.
func (c *Cutter) Join() {
	c.Reset()
	bare := c.spec.Check.Sum == NoSum
	switch c.spec.Kind {
	case Line, Gap:
		c.joining = bare
	case Markers:
		c.joining = bare && len(c.spec.Start) == 0
	}
}

// join passes over the rest of a frame whose start was missed.
func (c *Cutter) join() {
	end := c.spec.End
	switch c.spec.Kind {
	case Line:
		end = c.spec.Delimiter
	case Gap:
		c.r = len(c.buf)
		c.joining = !c.quiet
		return
	}
	b := c.buf[c.r:]
	if i := bytes.Index(b, end); i >= 0 {
		c.r += i + len(end)
		c.joining = false
	} else if n := len(b) - len(end) + 1; n > 0 {
		c.r += n
	}
}

// Recovers tells whether a cutter for s finds the start of a frame again after bytes were lost, or
// when it joins in the middle.
func (s *Spec) Recovers() bool {
	bare := len(s.Start) == 0 && s.Check.Sum == NoSum && s.Silence == 0
	return s.Kind != Fixed && s.Kind != Length || !bare
}

// Next returns the next frame, or what had to be thrown away before it: consecutive faults come as
// one, which bears the name of the first that is more than garbage. ok is false when there is
// nothing more until the next Feed or Silence.
func (c *Cutter) Next() (f Frame, ok bool) {
	if c.joining {
		if c.join(); c.joining {
			return Frame{}, false
		}
	}
	start := c.r
	for {
		s, found := c.split(c, c.buf[c.r:])
		if !found && c.quiet && c.Waiting() > 0 {
			s, found = split{n: c.Waiting(), fault: Partial}, true
		}
		switch {
		case found && s.fault == None && len(s.data) == 0:
			if start == c.r {
				start += s.n
			}
			c.take(s.n)
		case found && s.fault != None:
			if f.Fault <= Garbage {
				f.Fault = s.fault
			}
			c.take(s.n)
		case f.Fault != None:
			// What was thrown away comes first; a frame that was found is found again.
			f.Raw = c.buf[start:c.r]
			return f, true
		case found:
			f.Data, f.Raw = s.data, c.buf[c.r:c.r+s.n]
			c.take(s.n)
			return f, true
		default:
			return Frame{}, false
		}
	}
}

func (c *Cutter) take(n int) {
	c.r += n
	c.seen = 0
}
