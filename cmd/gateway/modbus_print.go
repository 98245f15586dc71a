package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"gateway/adapters/decode"
	"gateway/adapters/modbus"
	"gateway/config"
	"gateway/internal/gateway"
)

// A meaning is one way to read registers.
type meaning struct {
	typ, order string
	registers  int
	column     bool // it is shown in the table, and not only among the configuration lines
}

// meanings are those worth looking at.
var meanings = []meaning{
	{"uint16", "", 1, true}, {"int16", "", 1, true},
	{"float32", "ABCD", 2, true}, {"float32", "CDAB", 2, true},
	{"uint32", "ABCD", 2, true}, {"uint32", "CDAB", 2, true}, {"int32", "ABCD", 2, true}, {"int32", "CDAB", 2, true},
	{"bcd16", "", 1, false}, {"bcd32", "ABCD", 2, false},
	{"float32", "BADC", 2, false}, {"float32", "DCBA", 2, false},
	{"uint64", "ABCDEFGH", 4, false}, {"uint64", "GHEFCDAB", 4, false},
	{"int64", "ABCDEFGH", 4, false}, {"int64", "GHEFCDAB", 4, false},
	{"float64", "ABCDEFGH", 4, false}, {"float64", "GHEFCDAB", 4, false}, {"float64", "BADCFEHG", 4, false}, {"float64", "HGFEDCBA", 4, false},
}

// read returns the value as text, "-" where the meaning is not a sensible one.
func (m meaning) read(b []byte) string {
	t, err := decode.ParseType(m.typ)
	if err != nil {
		return "-"
	}
	spec := decode.Spec{Type: t}
	if m.order != "" {
		if spec.Order, err = decode.ParseOrder(m.order); err != nil {
			return "-"
		}
	}
	f, err := decode.New(spec)
	if err != nil {
		return "-"
	}
	v, reason := f.Decode(b)
	switch {
	case reason != "":
		return "-"
	case t.Kind == decode.BCD && (v.Uint() < 10 || b[0] == 0 && len(b) > 2):
		return "-" // one digit is the same in binary, and a small one needs no two registers
	case t.Kind == decode.Int && t.Bits == 64 && v.Int() >= 0:
		return "-" // the same as without a sign
	}
	if x, _ := v.Number(); t.Kind == decode.Float && x != 0 && (math.Abs(x) < 1e-4 || math.Abs(x) > 1e9) {
		return "-" // what integers look like when they are read as floats
	}
	return v.String()
}

// toml returns the configuration line for the meaning at an address.
func (m meaning) toml(k modbus.Kind, at uint16) string {
	s := fmt.Sprintf(`{ name = "%s_%d", %s = %d, type = %q`, k, at, k, at, m.typ)
	if m.order != "" && !strings.HasPrefix(m.order, "ABCD") {
		s += fmt.Sprintf(`, order = "%s"`, m.order)
	}
	return s + " },"
}

// printRange prints what was read from a table, element by element; nil is what the device refused.
func printRange(w io.Writer, k modbus.Kind, from uint16, elements [][]byte, all bool) {
	if k.Bits() {
		for i, b := range elements {
			at := from + uint16(i)
			state, line := "-", ""
			if b != nil {
				state, line = "off", fmt.Sprintf(`{ name = "%s_%d", %s = %d },`, k, at, k, at)
				if b[0] != 0 {
					state = "on"
				}
			}
			fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%-8s %5d  %-7s %-3s  %s", k, at, k.Notation(at), state, line), " "))
		}
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\tnotation\thex\ttext\tuint16\tint16\tfloat32\tfloat32 CDAB\tuint32\tuint32 CDAB\tint32\tint32 CDAB\n", k)
	for i, b := range elements {
		at := from + uint16(i)
		if b == nil {
			fmt.Fprintf(t, "%d\t%s\t-\n", at, k.Notation(at))
			continue
		}
		fmt.Fprintf(t, "%d\t%s\t%x\t%s", at, k.Notation(at), b, text(b))
		for _, m := range meanings {
			if m.column {
				fmt.Fprintf(t, "\t%s", m.at(elements[i:]))
			}
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	if len(elements) > 8 && !all {
		fmt.Fprintln(w, "\nWith --toml, or for 8 registers at most, the configuration lines are printed, too.")
		return
	}
	fmt.Fprintln(w)
	for i := range elements {
		at := from + uint16(i)
		for _, m := range meanings {
			if s := m.at(elements[i:]); s != "" && s != "-" {
				fmt.Fprintf(w, "%-72s # %s\n", m.toml(k, at), s)
			}
		}
		if n := textRun(elements, i); n > 1 {
			line := fmt.Sprintf(`{ name = "%s_%d", %s = %d, type = "string", length = %d },`, k, at, k, at, 2*n)
			fmt.Fprintf(w, "%-72s # %s\n", line, slices.Concat(elements[i:i+n]...))
		}
	}
}

// at reads the first of some registers, with those that it needs beside it; "" where there are too few.
func (m meaning) at(elements [][]byte) string {
	if len(elements) < m.registers {
		return ""
	}
	for _, b := range elements[:m.registers] {
		if b == nil {
			return "-"
		}
	}
	return m.read(slices.Concat(elements[:m.registers]...))
}

// textRun returns how many registers from i on look like a text, 0 where it does not begin there.
func textRun(elements [][]byte, i int) (n int) {
	printable := func(b []byte) bool { return b != nil && text(b) == string(b) }
	if i > 0 && printable(elements[i-1]) {
		return 0
	}
	for i+n < len(elements) && printable(elements[i+n]) {
		n++
	}
	return n
}

// text shows the printable characters among the bytes.
func text(b []byte) string {
	s := []byte(`..`)
	for i, c := range b[:2] {
		if c >= ' ' && c < 0x7f {
			s[i] = c
		}
	}
	return string(s)
}

// printProfile prints what a profile reads.
func printProfile(c call, dir, name string) error {
	p, err := config.LoadProfile(dir, name)
	if err != nil {
		return err
	}
	points, err := gateway.ProfilePoints(p)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s: %s\nsource: %s\n", p.ID, p.Title, p.Source)
	if p.Notes != "" {
		fmt.Fprintln(c.out, p.Notes)
	}
	if p.Line.Baud > 0 {
		fmt.Fprintf(c.out, "as delivered: unit %d, %d baud, parity %s\n", p.Line.Unit, p.Line.Baud, p.Line.Parity)
	}
	if len(p.SunSpec) > 0 {
		models := make([]string, len(p.SunSpec))
		for i, id := range p.SunSpec {
			models[i] = strconv.Itoa(id)
		}
		fmt.Fprintf(c.out, "addresses count from the first register of SunSpec model %s, which is found at run time\n", strings.Join(models, " or "))
	}
	t := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "point\taddress\tnotation\ttype\torder\tunit\t")
	for i := range points {
		q := &points[i]
		writable := ""
		if q.Writable {
			writable = "writable"
		}
		fmt.Fprintf(t, "%s\t%s %d\t%s\t%v\t%v\t%s\t%s\n", q.Name, q.Kind, q.Address, q.Kind.Notation(q.Address), q.Field.Type(), q.Field.Order(), q.Unit, writable)
	}
	return t.Flush()
}
