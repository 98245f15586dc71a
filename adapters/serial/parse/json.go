package parse

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"gateway/adapters"
)

// A jsonPath is the way to a value: names of members and indices of elements.
type jsonPath []any

type jsonFormat struct{ paths []jsonPath }

func newJSON(fields []Field) (*jsonFormat, error) {
	j := &jsonFormat{}
	var wrong fieldErrors
	for i := range fields {
		p, err := parsePath(fields[i].Name)
		if err != nil {
			wrong.add(i, err)
		}
		j.paths = append(j.paths, p)
	}
	return j, wrong.join()
}

// parsePath reads a.b[0]["odd name"]; a leading $ is passed over.
func parsePath(s string) (jsonPath, error) {
	bad := func(what string) (jsonPath, error) {
		return nil, fmt.Errorf("path %q: %s; write it as sensors[0].temperature", s, what)
	}
	var p jsonPath
	rest := strings.TrimPrefix(s, "$")
	for rest != "" {
		if rest[0] == '[' {
			end := strings.IndexByte(rest, ']')
			if end < 0 {
				return bad("a [ without ]")
			}
			inner := rest[1:end]
			if name, err := strconv.Unquote(inner); err == nil {
				p = append(p, name)
			} else if n, err := strconv.Atoi(inner); err == nil && n >= 0 {
				p = append(p, n)
			} else {
				return bad(fmt.Sprintf("[%s] is neither an index nor a quoted name", inner))
			}
			rest = rest[end+1:]
			continue
		}
		rest = strings.TrimPrefix(rest, ".")
		end := strings.IndexAny(rest, ".[")
		if end < 0 {
			end = len(rest)
		}
		if end == 0 {
			return bad("a name is empty")
		}
		p = append(p, rest[:end])
		rest = rest[end:]
	}
	return p, nil
}

func (j *jsonFormat) extract(frame []byte, tokens []token) bool {
	d := json.NewDecoder(bytes.NewReader(frame))
	d.UseNumber()
	var root any
	if d.Decode(&root) != nil {
		return false
	}
	if _, err := d.Token(); err != io.EOF {
		return false
	}
	for i, p := range j.paths {
		tokens[i] = jsonToken(root, p)
	}
	return true
}

func jsonToken(v any, p jsonPath) token {
	for _, step := range p {
		switch step := step.(type) {
		case string:
			object, ok := v.(map[string]any)
			if !ok {
				return token{}
			}
			if v, ok = object[step]; !ok {
				return token{}
			}
		case int:
			array, ok := v.([]any)
			if !ok || step >= len(array) {
				return token{}
			}
			v = array[step]
		}
	}
	switch v := v.(type) {
	case nil:
		return token{kind: faulty, reason: adapters.ReasonSentinel}
	case bool:
		return token{kind: text, text: strconv.AppendBool(nil, v)}
	case json.Number:
		return token{kind: text, text: []byte(v)}
	case string:
		return token{kind: text, text: []byte(v)}
	}
	return token{kind: faulty, reason: adapters.ReasonParse} // an object or an array is no value
}
