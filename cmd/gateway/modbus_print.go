package main

import (
	"fmt"
	"io"
	"math"
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
}

// meanings are those worth looking at, by the number of registers that they take.
var meanings = map[int][]meaning{
	1: {{"uint16", ""}, {"int16", ""}},
	2: {{"float32", "ABCD"}, {"float32", "CDAB"}, {"uint32", "ABCD"}, {"uint32", "CDAB"}, {"int32", "ABCD"}, {"int32", "CDAB"}},
	4: {{"float64", "ABCDEFGH"}, {"float64", "GHEFCDAB"}, {"uint64", "ABCDEFGH"}, {"uint64", "GHEFCDAB"}},
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
	if reason != "" {
		return "-"
	}
	if x, _ := v.Number(); t.Kind == decode.Float && x != 0 && (math.Abs(x) < 1e-4 || math.Abs(x) > 1e9) {
		return "-" // what integers look like when they are read as floats
	}
	return v.String()
}

// toml returns the configuration line for the meaning at an address.
func (m meaning) toml(k modbus.Kind, at uint16) string {
	s := fmt.Sprintf(`{ name = "%s_%d", %s = %d, type = "%s"`, k, at, k, at, m.typ)
	if m.order != "" && !strings.HasPrefix(m.order, "ABCD") {
		s += fmt.Sprintf(`, order = "%s"`, m.order)
	}
	return s + " },"
}

// printRange prints what was read from a table.
func printRange(w io.Writer, k modbus.Kind, from uint16, count int, data []byte, all bool) {
	if k.Bits() {
		for i := range count {
			at := from + uint16(i)
			on := "off"
			if data[i/8]>>(i%8)&1 != 0 {
				on = "on"
			}
			fmt.Fprintf(w, "%-8s %5d  %-7s %-3s  { name = \"%s_%d\", %s = %d },\n", k, at, k.Notation(at), on, k, at, k, at)
		}
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\tnotation\thex\ttext\tuint16\tint16\tfloat32\tfloat32 CDAB\tuint32\tuint32 CDAB\tint32\tint32 CDAB\n", k)
	for i := range count {
		at, b := from+uint16(i), data[2*i:]
		fmt.Fprintf(t, "%d\t%s\t%x\t%s", at, k.Notation(at), b[:2], text(b[:2]))
		for _, n := range []int{1, 2} {
			for _, m := range meanings[n] {
				s := ""
				if len(b) >= 2*n {
					s = m.read(b)
				}
				fmt.Fprintf(t, "\t%s", s)
			}
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	if count > 8 && !all {
		fmt.Fprintln(w, "\nWith --toml, or for 8 registers at most, the configuration lines are printed, too.")
		return
	}
	fmt.Fprintln(w)
	for i := range count {
		at, b := from+uint16(i), data[2*i:]
		for _, n := range []int{1, 2, 4} {
			for _, m := range meanings[n] {
				if len(b) < 2*n {
					continue
				}
				if s := m.read(b); s != "-" {
					fmt.Fprintf(w, "%-72s # %s\n", m.toml(k, at), s)
				}
			}
		}
	}
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
		fmt.Fprintf(c.out, "addresses count from the first register of SunSpec model %v, which is found at run time\n", p.SunSpec)
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
