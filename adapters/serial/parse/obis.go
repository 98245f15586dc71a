package parse

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// obis takes fields from the data sets of IEC 62056-21 (6.5): a code, then values in parentheses,
// each with its unit after an asterisk. P1 telegrams are made of them: one code a line, clocks and
// meter values in the same line (DSMR P1 companion standard 5.0.2, 6.4 and 6.10).
type obis struct {
	codes []string
	nth   []int // which value of the code, from 0; -1 the last
}

var obisCode = regexp.MustCompile(`^([0-9]{1,3}-[0-9]{1,3}:)?[0-9A-FCLP]{1,3}\.[0-9A-F]{1,3}(\.[0-9]{1,3})?([*&][0-9]{1,3})?$`)

func newOBIS(fields []Field) (*obis, error) {
	o := &obis{}
	var wrong fieldErrors
	for i := range fields {
		code, nth, numbered := strings.Cut(fields[i].Name, "#")
		if !obisCode.MatchString(code) {
			wrong.add(i, fmt.Errorf("%q is no OBIS code; write it as the meter does: 1-0:1.8.1, or 1.8.1", code))
			continue
		}
		n := -1
		if numbered {
			var err error
			if n, err = strconv.Atoi(nth); err != nil || n < 1 {
				wrong.add(i, fmt.Errorf("%q: after # stands which of the code's values is meant, from 1", fields[i].Name))
			}
			n--
		}
		o.codes = append(o.codes, code)
		o.nth = append(o.nth, n)
	}
	return o, wrong.join()
}

func (o *obis) extract(frame []byte, tokens []token) bool {
	found := false
	for len(frame) > 0 {
		// The code is what stands before a parenthesis, after a line's end or the last value.
		open := bytes.IndexByte(frame, '(')
		if open < 0 {
			break
		}
		code := frame[:open]
		if i := bytes.LastIndexAny(code, "\r\n)\x02"); i >= 0 {
			code = code[i+1:]
		}
		frame = frame[open:]
		found = found || len(code) > 0
		for n := 0; len(frame) > 0 && frame[0] == '('; n++ {
			end := bytes.IndexByte(frame, ')')
			if end < 0 {
				return found
			}
			o.value(code, n, frame[1:end], tokens)
			frame = frame[end+1:]
			// A line may be broken between two values (DSMR 2.2: the gas meter's).
			if next := bytes.TrimLeft(frame, "\r\n"); len(next) > 0 && next[0] == '(' {
				frame = next
			}
		}
	}
	return found
}

// value notes the n-th value of a code.
func (o *obis) value(code []byte, n int, value []byte, tokens []token) {
	for i, want := range o.codes {
		if want != string(code) || o.nth[i] >= 0 && o.nth[i] != n {
			continue
		}
		if star := bytes.LastIndexByte(value, '*'); star >= 0 {
			value = value[:star] // the unit
		}
		tokens[i] = token{kind: text, text: value}
	}
}
