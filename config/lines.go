package config

import (
	"strconv"
	"strings"
)

// keyLines finds the line of every key and table of a TOML text: the library knows positions of
// syntax errors only. Paths are the keys joined by dots, elements of arrays by their index
// (modbus.0.device.1.points.2.coil). The text must be valid TOML, so the scanner need not complain;
// on anything it does not understand it stops, and the lines it does not know are reported as those
// of the table around them.
func keyLines(src string) map[string]int {
	s := &lineScanner{src: src, line: 1, lines: map[string]int{}, elements: map[string]int{}}
	prefix := ""
	for {
		s.blank()
		switch {
		case s.end():
			return s.lines
		case strings.HasPrefix(s.rest(), "[["):
			s.pos += 2
			line := s.line
			path := s.tablePath(s.key(), true)
			s.lines[path] = line
			if array := path[:strings.LastIndexByte(path, '.')]; s.lines[array] == 0 {
				s.lines[array] = line
			}
			prefix = path
			s.pos += 2
		case s.peek() == '[':
			s.pos++
			line := s.line
			path := s.tablePath(s.key(), false)
			s.lines[path] = line
			prefix = path
			s.pos++
		default:
			if !s.assignment(prefix) {
				return s.lines
			}
		}
	}
}

type lineScanner struct {
	src      string
	pos      int
	line     int
	lines    map[string]int
	elements map[string]int // arrays of tables: how many elements so far
}

func (s *lineScanner) end() bool    { return s.pos >= len(s.src) }
func (s *lineScanner) rest() string { return s.src[min(s.pos, len(s.src)):] }
func (s *lineScanner) peek() byte {
	if s.end() {
		return 0
	}
	return s.src[s.pos]
}

// blank skips white space, line ends and comments.
func (s *lineScanner) blank() {
	for !s.end() {
		switch s.src[s.pos] {
		case '\n':
			s.line++
		case ' ', '\t', '\r':
		case '#':
			for !s.end() && s.src[s.pos] != '\n' {
				s.pos++
			}
			continue
		default:
			return
		}
		s.pos++
	}
}

// key reads a key, dotted or not, and returns its parts.
func (s *lineScanner) key() []string {
	var parts []string
	for {
		s.blank()
		switch c := s.peek(); {
		case c == '"' || c == '\'':
			start := s.pos
			s.text()
			part := s.src[start:s.pos]
			if unquoted, err := strconv.Unquote(part); err == nil && c == '"' {
				part = unquoted
			} else {
				part = strings.Trim(part, `"'`)
			}
			parts = append(parts, part)
		default:
			start := s.pos
			for !s.end() && !strings.ContainsRune(" \t\r\n.=]#,{}", rune(s.src[s.pos])) {
				s.pos++
			}
			if s.pos == start {
				return parts
			}
			parts = append(parts, s.src[start:s.pos])
		}
		s.blank()
		if s.peek() != '.' {
			return parts
		}
		s.pos++
	}
}

// tablePath resolves the name in a header: where a part of it is an array of tables, the last
// element so far is meant; element opens a new one of the whole.
func (s *lineScanner) tablePath(parts []string, element bool) string {
	path := ""
	for i, part := range parts {
		path = join(path, part)
		last := i == len(parts)-1
		n, isArray := s.elements[path]
		switch {
		case last && element:
			s.elements[path] = n + 1
			path = join(path, strconv.Itoa(n))
		case isArray:
			path = join(path, strconv.Itoa(n-1))
		}
	}
	return path
}

// assignment reads key = value below the table at prefix.
func (s *lineScanner) assignment(prefix string) bool {
	line := s.line
	parts := s.key()
	if len(parts) == 0 || s.peek() != '=' {
		return false
	}
	s.pos++
	path := prefix
	for _, part := range parts {
		path = join(path, part)
		if _, known := s.lines[path]; !known {
			s.lines[path] = line
		}
	}
	return s.value(path)
}

// value reads a value whose key is path.
func (s *lineScanner) value(path string) bool {
	s.blank()
	switch s.peek() {
	case '"', '\'':
		s.text()
	case '[':
		s.pos++
		for i := 0; ; i++ {
			s.blank()
			if s.peek() == ']' {
				s.pos++
				return true
			}
			item := join(path, strconv.Itoa(i))
			s.lines[item] = s.line
			if !s.value(item) {
				return false
			}
			s.blank()
			if s.peek() == ',' {
				s.pos++
			}
		}
	case '{':
		s.pos++
		for {
			s.blank()
			switch s.peek() {
			case '}':
				s.pos++
				return true
			case ',':
				s.pos++
			default:
				if !s.assignment(path) {
					return false
				}
			}
		}
	default:
		start := s.pos
		for !s.end() && !strings.ContainsRune(",]}#\r\n", rune(s.src[s.pos])) {
			s.pos++
		}
		return s.pos > start
	}
	return true
}

// text skips a string of any of the four kinds.
func (s *lineScanner) text() {
	quote := s.peek()
	triple := strings.Repeat(string(quote), 3)
	if strings.HasPrefix(s.rest(), triple) {
		s.pos += 3
		for !s.end() && !strings.HasPrefix(s.rest(), triple) {
			s.step(quote)
		}
		s.pos += 3
		for s.peek() == quote { // up to two quotes may precede the closing three
			s.pos++
		}
		return
	}
	s.pos++
	for !s.end() && s.peek() != quote {
		s.step(quote)
	}
	s.pos++
}

// step moves over one character of a string, an escaped one as a whole.
func (s *lineScanner) step(quote byte) {
	if s.peek() == '\\' && quote == '"' {
		s.pos++
	}
	if s.peek() == '\n' {
		s.line++
	}
	s.pos++
}
