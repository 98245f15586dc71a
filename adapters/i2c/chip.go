package i2c

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"gateway/adapters"
	"gateway/adapters/hint"
)

// A Quantity is something a chip can measure.
type Quantity struct {
	Name     string
	Unit     string
	Decimals int8
	Min, Max float64 // the chip's measuring range by its datasheet; both 0: not bounded
	Extra    bool    // only on request, not among the points of a device that lists none
}

// A Setting is something about a chip that can be configured. Its value is a number, a text or a
// truth value, as Default is.
type Setting struct {
	Name     string
	Default  any // float64, string or bool
	Unit     string
	Min, Max float64 // for numbers
	Values   []any   // where only these will do
	About    string
}

// A Chip is one kind of sensor of the catalogue.
type Chip struct {
	Name       string
	Aliases    []string
	About      string
	Addresses  []uint16 // the default first; a chip may have any of these only
	Quantities []Quantity
	Settings   []Setting
	// Pace, where not 0, is the interval at which the chip must be read for its own sake, however
	// seldom its points are wanted.
	Pace time.Duration

	pec      bool                               // the chip always sends SMBus packet error codes
	identify func(*conn) (sure bool, err error) // nil: nothing tells this chip from others
	command  bool                               // identify sends a command, which another chip might take for a write to a register
	make     func(settings) driver
}

// A driver speaks with one chip. Its methods are straight-line code that calls conn.wait where the
// chip needs time; they are called by one goroutine, never both at once.
type driver interface {
	// setup identifies and configures the chip: before the first measurement, and again after the
	// chip did not answer, for it may have lost its power.
	setup(*conn) error
	// measure takes one measurement and sets the results that are wanted.
	measure(*conn, *results) error
}

// results takes what a driver measured: one slot for each of the chip's quantities.
type results struct {
	wanted []bool
	slots  []result
}

type result struct {
	value  adapters.Value
	reason adapters.Reason
	set    bool
}

func newResults(n int) *results {
	return &results{wanted: make([]bool, n), slots: make([]result, n)}
}

func (r *results) wants(i int) bool { return r.wanted[i] }
func (r *results) put(i int, v adapters.Value) {
	r.slots[i] = result{value: v, set: true}
}
func (r *results) float(i int, v float64) { r.put(i, adapters.FloatValue(v)) }

// fail says why quantity i has no value although the chip answered.
func (r *results) fail(i int, why adapters.Reason) { r.slots[i] = result{reason: why, set: true} }

func (r *results) clear() { clear(r.slots) }

// settings are a device's settings, complete and of the right types.
type settings map[string]any

func (s settings) num(name string) float64 { return s[name].(float64) }
func (s settings) int(name string) int     { return int(s.num(name)) }
func (s settings) text(name string) string { return s[name].(string) }
func (s settings) flag(name string) bool   { return s[name].(bool) }

// Chips returns the catalogue, sorted by name.
func Chips() []Chip {
	all := slices.Concat(
		ads1x15Chips(), aht20Chips(), bh1750Chips(), bme680Chips(), bmp180Chips(), bmx280Chips(), htu21Chips(), inaChips(),
		sht3xChips(), tmp102Chips(), lightChips(), airChips(), converterChips(), ds3231Chips(), mlx90614Chips(),
	)
	slices.SortFunc(all, func(a, b Chip) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Lookup returns the chip of that name or alias. Case, spaces and dashes do not matter.
func Lookup(name string) (Chip, error) {
	key := normal(name)
	all := []string{GenericChip}
	for _, c := range Chips() {
		for _, n := range append([]string{c.Name}, c.Aliases...) {
			if n == key {
				return c, nil
			}
			all = append(all, n)
		}
	}
	if near := hint.DidYouMean(key, all); near != "" {
		return Chip{}, fmt.Errorf("i2c: unknown chip %q%s", name, near)
	}
	return Chip{}, fmt.Errorf("i2c: unknown chip %q; known are %s, and %q for any other, described by its registers", name, strings.Join(names(), ", "), GenericChip)
}

// checkAddress refuses an address that the chip cannot have; 0 stands for its usual one.
func (c Chip) checkAddress(addr uint16) error {
	if addr == 0 && len(c.Addresses) > 0 || slices.Contains(c.Addresses, addr) {
		return nil
	}
	if len(c.Addresses) == 0 {
		if addr == 0 {
			return errors.New("no address; add address = 0x44 or another: 'gateway i2c scan' shows who answers")
		}
		if addr < 0x03 || addr > 0x77 {
			return fmt.Errorf("address 0x%02x: devices have 0x03 to 0x77; the others are reserved", addr)
		}
		return nil
	}
	var can []string
	for _, a := range c.Addresses {
		can = append(can, fmt.Sprintf("0x%02x", a))
	}
	decimal := ""
	if meant := fmt.Sprintf("0x%d", addr); slices.Contains(can, meant) {
		decimal = fmt.Sprintf("; %d is decimal, and %s was probably meant", addr, meant)
	}
	return fmt.Errorf("address 0x%02x: %s can have %s%s", addr, c.Name, strings.Join(can, ", "), decimal)
}

func names() []string {
	var n []string
	for _, c := range Chips() {
		n = append(n, c.Name)
	}
	return n
}

func normal(name string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || r == '-' || r == '_' {
			return -1
		}
		return r
	}, strings.ToLower(name))
}

// quantity returns the index of the chip's quantity of that name, or an error that names what
// there is.
func (c Chip) quantity(name string) (int, error) {
	var have []string
	for i, q := range c.Quantities {
		if q.Name == name {
			return i, nil
		}
		have = append(have, q.Name)
	}
	if near := hint.DidYouMean(name, have); near != "" {
		return 0, fmt.Errorf("%s has no %q%s", c.Name, name, near)
	}
	return 0, fmt.Errorf("%s has no %q; it gives %s", c.Name, name, hint.List(have))
}

// complete checks what a user set and returns it with the defaults filled in.
func (c Chip) complete(given map[string]any) (settings, error) {
	s := settings{}
	have := make([]string, len(c.Settings))
	for i, d := range c.Settings {
		s[d.Name], have[i] = d.Default, d.Name
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(given)) {
		i := slices.Index(have, name)
		switch {
		case i < 0 && len(have) == 0:
			errs = append(errs, fmt.Errorf("%s has no settings, and so no %q", c.Name, name))
			continue
		case i < 0:
			errs = append(errs, fmt.Errorf("%s has no setting %q%s", c.Name, name, hint.OneOf(name, have)))
			continue
		}
		v, err := c.Settings[i].check(given[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("setting %q: %w", name, err))
			continue
		}
		s[name] = v
	}
	return s, errors.Join(errs...)
}

// check brings v, as TOML gives it, to the setting's type.
func (d Setting) check(v any) (any, error) {
	switch n := v.(type) {
	case int64:
		v = float64(n)
	case int:
		v = float64(n)
	}
	switch d.Default.(type) {
	case float64:
		f, ok := v.(float64)
		if !ok || math.IsNaN(f) {
			return nil, fmt.Errorf("%v is not a number", v)
		}
		if d.Values == nil && (f < d.Min || f > d.Max) {
			return nil, fmt.Errorf("%v %s is outside of %v to %v", f, d.Unit, d.Min, d.Max)
		}
	case string:
		if _, ok := v.(string); !ok {
			return nil, fmt.Errorf("%v is not a text", v)
		}
	case bool:
		if _, ok := v.(bool); !ok {
			return nil, fmt.Errorf("%v is neither true nor false", v)
		}
	}
	if d.Values != nil && !slices.Contains(d.Values, v) {
		values := make([]string, len(d.Values))
		for i, v := range d.Values {
			values[i] = fmt.Sprint(v)
		}
		return nil, fmt.Errorf("%v is not one of %s", v, hint.List(values))
	}
	return v, nil
}
