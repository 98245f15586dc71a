package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity tells a problem that keeps the gateway from starting from one that does not.
type Severity uint8

const (
	Error   Severity = iota
	Warning          // depends on the machine as it is today (a port that is absent), or is unwise but possible
)

// A Problem is something wrong with the configuration: where, what, and how to mend it.
type Problem struct {
	Line     int // 0 where the problem is with the file as a whole
	Severity Severity
	Where    string // modbus "meters", device "boiler"
	What     string
}

// Problems collects all that is wrong with one file. The whole file is asked whether it makes sense
// even where parts of it have the wrong shape; what is only a consequence of a wrong shape, such as
// the missing key beside a misspelt one, is not reported.
type Problems struct {
	file    string
	lines   map[string]int
	list    []Problem
	decoded bool
	keys    map[string]bool // paths of keys and tables whose shape is wrong
	tables  map[string]bool // paths of the tables that they stand in
}

func (p *Problems) add(line int, s Severity, where, what string) {
	p.list = append(p.list, Problem{line, s, where, what})
}

// Failed reports whether there is a problem that keeps the gateway from starting.
func (p *Problems) Failed() bool {
	return slices.ContainsFunc(p.list, func(q Problem) bool { return q.Severity == Error })
}

// List returns the problems in the order of their lines.
func (p *Problems) List() []Problem {
	list := slices.Clone(p.list)
	slices.SortStableFunc(list, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return list
}

// String returns a line for each problem: file:line: where: what.
func (p *Problems) String() string {
	var b strings.Builder
	for _, q := range p.List() {
		b.WriteString(p.file)
		if q.Line > 0 {
			fmt.Fprintf(&b, ":%d", q.Line)
		}
		b.WriteString(": ")
		if q.Severity == Warning {
			b.WriteString("warning: ")
		}
		if q.Where != "" {
			b.WriteString(q.Where + ": ")
		}
		b.WriteString(q.What + "\n")
	}
	return b.String()
}

// A Place is a table of the file. Every table's struct has one in a field called At, so that whoever
// finds fault with it, here or in the wiring, can say where.
type Place struct {
	problems *Problems
	path     string // modbus.0.device.1
	where    string // modbus "meters", device "boiler"
}

// Errorf reports what is wrong with the key of this table; key is "" for the table as a whole, and
// may be dotted ("points.2") for what lies below.
func (a Place) Errorf(key, format string, args ...any) {
	a.report(Error, key, fmt.Sprintf(format, args...))
}

// Warnf is Errorf for what does not keep the gateway from starting.
func (a Place) Warnf(key, format string, args ...any) {
	a.report(Warning, key, fmt.Sprintf(format, args...))
}

// Has tells whether the table has the key.
func (a Place) Has(key string) bool {
	_, ok := a.problems.lines[join(a.path, key)]
	return ok
}

// Line returns the line of the key, of the table where the file does not have the key, or 0.
func (a Place) Line(key string) int {
	path := a.path
	if key != "" {
		path = join(a.path, key)
	}
	for {
		if line, ok := a.problems.lines[path]; ok {
			return line
		}
		i := strings.LastIndexByte(path, '.')
		if i < 0 {
			return 0
		}
		path = path[:i]
	}
}

// String says which table it is, as messages do: modbus "meters", device "boiler".
func (a Place) String() string { return a.where }

func (a Place) report(s Severity, key, what string) {
	if a.problems == nil {
		return // a table made by a program, not read from a file
	}
	p := a.problems
	if !p.decoded {
		p.spoil(a.path, key)
	} else if p.consequence(a, key) {
		return
	}
	q := Problem{a.Line(key), s, a.where, what}
	if !slices.Contains(p.list, q) {
		p.list = append(p.list, q)
	}
}

// spoil notes that the shape of a key is wrong.
func (p *Problems) spoil(table, key string) {
	if p.keys == nil {
		p.keys, p.tables = map[string]bool{}, map[string]bool{}
	}
	p.keys[join(table, key)] = true
	p.tables[table] = true
}

// consequence tells whether a complaint about a key may come of a wrong shape: of the key itself or
// of what it stands in, or, where the file does not have the key, of another key in the same table.
func (p *Problems) consequence(a Place, key string) bool {
	if (key == "" || !a.Has(key)) && p.tables[a.path] {
		return true
	}
	for path := join(a.path, key); path != ""; path = path[:max(strings.LastIndexByte(path, '.'), 0)] {
		if p.keys[path] {
			return true
		}
	}
	return false
}

// below returns the place of a table inside this one; i is its index in an array of tables, or -1.
func (a Place) below(key string, i int, table map[string]any) Place {
	b := Place{problems: a.problems, path: join(a.path, key)}
	label := key
	if i >= 0 {
		b.path = join(b.path, fmt.Sprint(i))
		label = singular(key)
		if name, ok := table["name"].(string); ok {
			label = fmt.Sprintf("%s %q", label, name)
		} else {
			label = fmt.Sprintf("%s number %d", label, i+1)
		}
	}
	if a.where != "" {
		label = a.where + ", " + label
	}
	b.where = label
	return b
}

func join(path, key string) string {
	switch "" {
	case path:
		return key
	case key:
		return path
	}
	return path + "." + key
}

// singular is what one element of a list is called: points, point; but modbus, modbus.
func singular(key string) string {
	if strings.HasSuffix(key, "us") {
		return key
	}
	return strings.TrimSuffix(key, "s")
}
