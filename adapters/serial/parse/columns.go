package parse

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gateway/adapters"
)

// regex takes fields from the named groups of a regular expression.
type regex struct {
	re     *regexp.Regexp
	groups []int // of each field
}

func newRegex(re *regexp.Regexp, fields []Field) (*regex, error) {
	if re == nil {
		return nil, errors.New("there is no regular expression")
	}
	x := &regex{re: re}
	used := map[string]bool{}
	var wrong fieldErrors
	for i := range fields {
		g := re.SubexpIndex(fields[i].Name)
		if g < 0 {
			wrong.add(i, fmt.Errorf("the expression has no group (?P<%s>...)", fields[i].Name))
		}
		used[fields[i].Name] = true
		x.groups = append(x.groups, g)
	}
	for _, name := range re.SubexpNames() {
		if name != "" && !used[name] {
			wrong = append(wrong, fmt.Errorf("no point takes the group %q; add one, or make it (?:...)", name))
		}
	}
	return x, wrong.join()
}

func (x *regex) extract(frame []byte, tokens []token) bool {
	m := x.re.FindSubmatchIndex(frame)
	if m == nil {
		return false
	}
	for i, g := range x.groups {
		if lo, hi := m[2*g], m[2*g+1]; lo >= 0 {
			tokens[i] = token{kind: text, text: frame[lo:hi]}
		}
	}
	return true
}

// csv takes fields from columns between separators. A column in double quotes may hold separators
// (RFC 4180).
type csv struct {
	sep    []byte
	blanks bool  // any run of blanks separates
	count  int   // the number of columns that a frame must have; 0: any
	wanted []int // of each field, the column from 0
}

func newCSV(s *Spec, fields []Field) (*csv, error) {
	c := &csv{sep: []byte(s.Separator), count: len(s.Columns)}
	if s.Separator == "" {
		c.sep = []byte(",")
	}
	c.blanks = s.Separator == " "
	var wrong fieldErrors
	for i := range fields {
		name := fields[i].Name
		column := slices.Index(s.Columns, name)
		if column < 0 {
			n, err := strconv.Atoi(name)
			if err != nil || n < 1 || c.count > 0 && n > c.count {
				wrong.add(i, fmt.Errorf("column %q: a number from 1, or one of the names in columns", name))
			}
			column = n - 1
		}
		c.wanted = append(c.wanted, column)
	}
	return c, wrong.join()
}

func (c *csv) extract(frame []byte, tokens []token) bool {
	column := 0
	rest, more := frame, true
	if c.blanks {
		rest = bytes.TrimSpace(rest)
		more = len(rest) > 0
	}
	for more {
		var value []byte
		value, rest, more = c.next(rest)
		for i, w := range c.wanted {
			if w == column {
				tokens[i] = token{kind: text, text: value}
			}
		}
		column++
	}
	return column > 0 && (c.count == 0 || column == c.count)
}

func (c *csv) next(b []byte) (value, rest []byte, more bool) {
	if c.blanks {
		i := bytes.IndexAny(b, " \t")
		if i < 0 {
			return b, nil, false
		}
		return b[:i], bytes.TrimLeft(b[i:], " \t"), true
	}
	if end := quoted(b); end > 0 {
		value = b[1 : end-1]
		if rest, more = bytes.CutPrefix(b[end:], c.sep); more || len(rest) == 0 {
			if bytes.IndexByte(value, '"') >= 0 {
				value = bytes.ReplaceAll(value, []byte(`""`), []byte(`"`))
			}
			return value, rest, more
		}
	}
	return bytes.Cut(b, c.sep)
}

// quoted returns how long the quoted column is with which b begins, 0 if with none. A quote inside is doubled.
func quoted(b []byte) int {
	if len(b) == 0 || b[0] != '"' {
		return 0
	}
	for end := 1; ; end += 2 {
		i := bytes.IndexByte(b[min(end, len(b)):], '"')
		if i < 0 {
			return 0
		}
		if end += i; end+1 >= len(b) || b[end+1] != '"' {
			return end + 1
		}
	}
}

// keyValue takes fields from pairs of a key and a value.
type keyValue struct {
	between, assign string
	keys            []string
}

func newKeyValue(s *Spec, fields []Field) (*keyValue, error) {
	k := &keyValue{between: s.Separator, assign: s.Assign}
	if k.between == "" {
		k.between = " \t\r\n,;"
	}
	if k.assign == "" {
		k.assign = "=:"
	}
	if i := strings.IndexAny(k.assign, k.between); i >= 0 {
		return nil, fmt.Errorf("%q separates pairs and keys from values", k.assign[i])
	}
	var wrong fieldErrors
	for i := range fields {
		if fields[i].Name == "" || strings.ContainsAny(fields[i].Name, k.assign) {
			wrong.add(i, fmt.Errorf("%q cannot be a key", fields[i].Name))
		}
		k.keys = append(k.keys, fields[i].Name)
	}
	return k, wrong.join()
}

func (k *keyValue) extract(frame []byte, tokens []token) bool {
	found := false
	for len(frame) > 0 {
		i := bytes.IndexAny(frame, k.assign)
		if i < 0 {
			break
		}
		key := frame[:i]
		if j := bytes.LastIndexAny(bytes.TrimRight(key, " \t"), k.between); j >= 0 {
			key = key[j+1:]
		}
		key = bytes.TrimSpace(key)
		value := bytes.TrimLeft(frame[i+1:], " \t")
		end := bytes.IndexAny(value, k.between)
		if end < 0 {
			end = len(value)
		}
		frame = value[end:]
		found = true
		for i, want := range k.keys {
			if want == string(key) {
				tokens[i] = token{kind: text, text: value[:end]}
			}
		}
	}
	return found
}

// columns takes fields from fixed places in the text.
type columns struct{ fields []Field }

func newColumns(fields []Field) (*columns, error) {
	var wrong fieldErrors
	for i := range fields {
		if fields[i].At < 0 || fields[i].Length < 0 {
			wrong.add(i, fmt.Errorf("at %d, length %d: both count from 0", fields[i].At, fields[i].Length))
		}
	}
	return &columns{fields}, wrong.join()
}

func (c *columns) extract(frame []byte, tokens []token) bool {
	for i := range c.fields {
		f := &c.fields[i]
		if f.At >= len(frame) || f.Length > len(frame)-f.At {
			tokens[i] = token{kind: faulty, reason: adapters.ReasonParse}
			continue
		}
		rest := frame[f.At:]
		if f.Length > 0 {
			rest = rest[:f.Length]
		}
		tokens[i] = token{kind: text, text: rest}
	}
	return true
}

// newBinary returns columns whose lengths are those of the binary fields.
func newBinary(fields []Field) (*columns, error) {
	sized := slices.Clone(fields)
	var wrong fieldErrors
	for i := range sized {
		if sized[i].Binary == nil {
			wrong.add(i, fmt.Errorf("the field at %d has no binary type", sized[i].At))
			continue
		}
		sized[i].Length = sized[i].Binary.Size()
	}
	if err := wrong.join(); err != nil {
		return nil, err
	}
	return newColumns(sized)
}

// numbers takes fields from the decimal numbers in the text, whatever stands between them.
type numbers struct{ wanted []int }

func newNumbers(fields []Field) (*numbers, error) {
	n := &numbers{}
	var wrong fieldErrors
	for i := range fields {
		k, err := strconv.Atoi(fields[i].Name)
		if err != nil || k < 1 {
			wrong.add(i, fmt.Errorf("%q: a number counts from 1", fields[i].Name))
		}
		n.wanted = append(n.wanted, k-1)
	}
	return n, wrong.join()
}

func (n *numbers) extract(frame []byte, tokens []token) bool {
	count := 0
	for i := 0; i < len(frame); {
		end := numberEnd(frame, i)
		if end == i {
			i++
			continue
		}
		for k, want := range n.wanted {
			if want == count {
				tokens[k] = token{kind: text, text: frame[i:end]}
			}
		}
		count++
		i = end
	}
	return count > 0
}

// numberEnd returns the end of the number that starts at i, i if none does: an optional sign, digits,
// and a point with digits.
func numberEnd(b []byte, i int) int {
	at := i
	digit := func() bool { return at < len(b) && b[at] >= '0' && b[at] <= '9' }
	if b[at] == '+' || b[at] == '-' {
		at++
	}
	if !digit() {
		return i
	}
	for digit() {
		at++
	}
	if at+1 < len(b) && b[at] == '.' && b[at+1] >= '0' && b[at+1] <= '9' {
		at++
		for digit() {
			at++
		}
	}
	return at
}
