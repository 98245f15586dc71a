package frame

import "bytes"

func (c *Cutter) splitLine(b []byte) (split, bool) {
	d := c.spec.Delimiter
	if c.flood != None {
		return c.ebb(b, d)
	}
	i := bytes.Index(b[c.seen:], d)
	if i < 0 {
		if len(b) > c.spec.Max+len(d) {
			return c.throw(b, d, TooLong)
		}
		c.seen = max(0, len(b)-len(d)+1)
		return split{}, false
	}
	i += c.seen
	n := i + len(d)
	if i > c.spec.Max {
		return split{n: n, fault: TooLong}, true
	}
	line := b[:i]
	if len(d) == 1 && d[0] == '\n' && i > 0 && line[i-1] == '\r' {
		line = line[:i-1]
	}
	if len(line) == 0 {
		return split{n: n}, true
	}
	data, ok := c.sum.verify(line, line)
	if !ok {
		return split{n: n, fault: Checksum}, true
	}
	return split{n: n, data: data}, true
}

// throw throws away the beginning of a frame that is none; what follows of it, up to its end, goes the
// same way.
func (c *Cutter) throw(b, end []byte, fault Fault) (split, bool) {
	c.flood = fault
	return c.ebb(b, end)
}

func (c *Cutter) ebb(b, end []byte) (split, bool) {
	n, fault := len(b)-len(end)+1, c.flood // the end's first bytes may be the last that came
	if i := bytes.Index(b, end); i >= 0 {
		n = i + len(end)
		c.flood = None
	}
	return split{n: n, fault: fault}, n > 0
}

// resync says how many bytes of b, which do not start a frame, to pass over: up to where the next
// frame may start.
func (c *Cutter) resync(b []byte, fault Fault) (split, bool) {
	start := c.spec.Start
	if len(start) == 0 {
		return split{n: 1, fault: fault}, true
	}
	if i := bytes.Index(b[1:], start); i >= 0 {
		return split{n: 1 + i, fault: fault}, true
	}
	// Keep what may be the beginning of a start.
	n := len(b)
	for k := min(len(start)-1, len(b)-1); k > 0; k-- {
		if bytes.HasPrefix(start, b[len(b)-k:]) {
			n -= k
			break
		}
	}
	return split{n: n, fault: fault}, true
}

// starts tells whether b starts as frames do, as far as it goes.
func (c *Cutter) starts(b []byte) bool {
	start := c.spec.Start
	if len(b) < len(start) {
		return bytes.HasPrefix(start, b)
	}
	return bytes.HasPrefix(b, start)
}

func (c *Cutter) splitFixed(b []byte) (split, bool) {
	if len(b) > 0 && !c.starts(b) {
		return c.resync(b, Garbage)
	}
	if len(b) < c.spec.Size {
		return split{}, false
	}
	return c.whole(b[:c.spec.Size])
}

// whole checks a frame whose end was counted.
func (c *Cutter) whole(b []byte) (split, bool) {
	data, ok := c.sum.verify(b, b)
	if !ok {
		return c.resync(b, Checksum)
	}
	return split{n: len(b), data: data}, true
}

func (c *Cutter) splitLength(b []byte) (split, bool) {
	if len(b) > 0 && !c.starts(b) {
		return c.resync(b, Garbage)
	}
	s := &c.spec
	end := s.LengthOffset + s.LengthSize
	if len(b) < end {
		return split{}, false
	}
	var value int64
	for i := range s.LengthSize {
		at := s.LengthOffset + i
		if s.LittleEndian {
			at = end - 1 - i
		}
		value = value<<8 | int64(b[at])
	}
	n := value + int64(s.LengthAdjust)
	switch {
	case n < int64(max(end, len(s.Start)+c.sum.width())):
		return c.resync(b, Garbage)
	case n > int64(s.Max):
		return c.resync(b, TooLong)
	case int64(len(b)) < n:
		return split{}, false
	}
	return c.whole(b[:n])
}

// enter passes over what comes before the start marker.
func (c *Cutter) enter(b []byte) (skip split, inside bool) {
	if c.starts(b) {
		return split{}, true
	}
	skip, _ = c.resync(b, Garbage)
	if len(bytes.Trim(b[:skip.n], "\r\n\x00")) == 0 {
		skip.fault = None // what separates messages is no garbage
	}
	return skip, false
}

func (c *Cutter) splitMarkers(b []byte) (split, bool) {
	if len(b) == 0 {
		return split{}, false
	}
	if c.flood != None {
		return c.ebb(b, c.spec.End)
	}
	if skip, inside := c.enter(b); !inside {
		return skip, true
	}
	s := &c.spec
	if len(b) < len(s.Start) {
		return split{}, false
	}
	from := max(c.seen, len(s.Start))
	i := bytes.Index(b[from:], s.End)
	if i < 0 {
		if len(b) > s.Max {
			return c.tooLong(b)
		}
		c.seen = max(0, len(b)-len(s.End)+1)
		return split{}, false
	}
	end := from + i
	n, after := end+len(s.End), 0
	if s.Check.AfterEnd && n <= s.Max {
		var all bool
		if after, all = c.sum.after(b[n:]); !all {
			c.seen = end
			return split{}, false
		}
	}
	if n += after; n > s.Max {
		return c.drop(b[:n], TooLong)
	}
	data := b[len(s.Start):end]
	if s.Check.Sum == NoSum && len(s.Start) > 0 && s.Start[0] < ' ' {
		// No text has an STX in it: the end of the frame before was lost.
		if j := bytes.LastIndex(data, s.Start); j >= 0 {
			return split{n: len(s.Start) + j, fault: Partial}, true
		}
	}
	ok := true
	if s.Check.AfterEnd {
		from, to := len(s.Start), end
		if s.Check.WithStart {
			from = 0
		}
		if s.Check.WithEnd {
			to += len(s.End)
		}
		ok = c.sum.matches(b[from:to], b[n-after:n])
	} else {
		cover := data
		if s.Check.WithStart {
			cover = b[:end]
		}
		data, ok = c.sum.verify(data, cover)
	}
	if !ok {
		return c.drop(b[:n], Checksum)
	}
	return split{n: n, data: data}, true
}

// splitEscaped is splitMarkers for frames with escapes: they are taken out on the way.
func (c *Cutter) splitEscaped(b []byte) (split, bool) {
	if len(b) == 0 {
		return split{}, false
	}
	if c.flood != None {
		return c.ebb(b, c.spec.End)
	}
	if skip, inside := c.enter(b); !inside {
		return skip, true
	}
	s, e := &c.spec, c.spec.Escape
	if len(b) < len(s.Start) {
		return split{}, false
	}
	out := c.scratch[:0]
	defer func() { c.scratch = out }()
	end0, start0 := s.End[0], -1
	if len(s.Start) > 0 {
		start0 = int(s.Start[0])
	}
	for i := len(s.Start); i < len(b); {
		x := b[i]
		if x == end0 && bytes.HasPrefix(b[i:], s.End) {
			return c.endEscaped(b, i, out)
		}
		if int(x) == start0 && bytes.HasPrefix(b[i:], s.Start) {
			// A frame that never ended, and the start of another.
			return split{n: i, fault: Garbage}, true
		}
		if x != e.Byte {
			out = append(out, x)
			i++
			continue
		}
		if i+1 >= len(b) {
			break
		}
		y := b[i+1]
		switch {
		case e.Kind == Masked:
			y ^= e.XOR
		case e.Kind == SLIP && y == 0xDC:
			y = 0xC0
		case e.Kind == SLIP && y == 0xDD:
			y = 0xDB
		case e.Kind == SLIP || e.Kind == Doubled && y != e.Byte:
			return c.brokenEscape(b, i)
		}
		out = append(out, y)
		i += 2
	}
	if len(b) > s.Max {
		return c.tooLong(b)
	}
	return split{}, false
}

// tooLong gives up a frame between markers that has no end yet.
func (c *Cutter) tooLong(b []byte) (split, bool) {
	if len(c.spec.Start) == 0 {
		return c.throw(b, c.spec.End, TooLong)
	}
	return c.resync(b, TooLong)
}

// drop throws a frame between markers away, b, but for a start marker in it: its end may be another
// frame's.
func (c *Cutter) drop(b []byte, fault Fault) (split, bool) {
	if len(c.spec.Start) == 0 {
		return split{n: len(b), fault: fault}, true
	}
	return c.resync(b, fault)
}

// brokenEscape throws away a frame with an escape that means nothing, all of it: its rest is no frame
// either. Which marker follows may for Doubled need the byte that has not come yet.
func (c *Cutter) brokenEscape(b []byte, at int) (split, bool) {
	s := &c.spec
	if s.Escape.Kind == Doubled && len(b)-at < max(len(s.End), len(s.Start)) &&
		(bytes.HasPrefix(s.End, b[at:]) || bytes.HasPrefix(s.Start, b[at:])) {
		return split{}, false
	}
	if len(s.Start) == 0 {
		return c.throw(b, s.End, Garbage)
	}
	return split{n: at + 1, fault: Garbage}, true
}

func (c *Cutter) endEscaped(b []byte, end int, out []byte) (split, bool) {
	s := &c.spec
	n, after := end+len(s.End), 0
	if s.Check.AfterEnd && n <= s.Max {
		var all bool
		if after, all = c.sum.after(b[n:]); !all {
			return split{}, false
		}
	}
	if n += after; n > s.Max {
		return c.drop(b[:n], TooLong)
	}
	if len(out) == 0 {
		return split{n: n}, true
	}
	ok := true
	data := out
	if s.Check.AfterEnd {
		h := c.sum.start()
		if s.Check.WithStart {
			h = c.sum.add(h, s.Start)
		}
		h = c.sum.add(h, out)
		if s.Check.WithEnd {
			h = c.sum.add(h, s.End)
		}
		ok = c.sum.equal(h, b[n-after:n])
	} else {
		data, ok = c.sum.verify(out, out)
	}
	if !ok {
		return c.drop(b[:n], Checksum)
	}
	return split{n: n, data: data}, true
}

// splitGap takes all that came before a silence.
func (c *Cutter) splitGap(b []byte) (split, bool) {
	over := len(b) > c.spec.Max
	switch {
	case len(b) == 0:
		if c.quiet {
			c.flood = None
		}
		return split{}, false
	case over || c.flood != None:
		if c.flood = TooLong; c.quiet {
			c.flood = None
		}
		return split{n: len(b), fault: TooLong}, true
	case !c.quiet:
		return split{}, false
	}
	data, ok := c.sum.verify(b, b)
	if !ok {
		return split{n: len(b), fault: Checksum}, true
	}
	return split{n: len(b), data: data}, true
}
