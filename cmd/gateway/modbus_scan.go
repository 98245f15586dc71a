package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	gb "github.com/goburrow/modbus"
	"golang.org/x/term"

	"gateway/adapters/modbus"
	"gateway/config"
	"gateway/internal/gateway"
)

func runModbusScan(ctx context.Context, c call) error {
	f := c.flags(`
Every unit id is asked for one holding and one input register; whatever it answers, it is there. Then
it is asked what it is (function 43/14), and the profiles are tried that fit. On a serial line this is
done for each speed and parity in turn, for the lowest unit ids first: devices come with one of those.

Example: gateway modbus scan --port /dev/ttyUSB0 --units 1-20 --baud 9600,19200 --parity none,even`)
	var l lineFlags
	l.add(f)
	f.Lookup("timeout").DefValue = "150ms"
	l.timeout = 150 * time.Millisecond
	units := f.String("units", "1-247", "unit ids: `list` of numbers and ranges")
	bauds := f.String("baud", "9600,19200,2400", "the `list` of speeds of the serial line to try")
	parities := f.String("parity", "none,even", "the `list` of parities of the serial line to try")
	dir := f.String("profiles", "/etc/gateway/profiles", "`directory` of your own profiles")
	if err := c.parse(f, 0, 0); err != nil {
		return err
	}
	if err := l.find(c); err != nil {
		return err
	}
	ids, err := numberList(*units, 255)
	if err != nil {
		return err
	}
	speeds, modes := []int{l.baud}, []string{l.parity} // those of the bus, or none
	if l.port != "" && l.configured == nil {
		if speeds, err = numberList(*bauds, 4_000_000); err != nil {
			return err
		}
		modes = strings.Split(*parities, ",")
	}
	s := &scanner{call: c, line: l, bar: progress{w: c.err, total: len(ids) * len(speeds) * len(modes)}}
	if _, err := os.Stat(*dir); err != nil {
		*dir = ""
	}
	s.loadProfiles(*dir)
	first := ids[:min(len(ids), lowIDs)]
	for _, part := range [][]int{first, ids[len(first):]} {
		for _, baud := range speeds {
			for _, parity := range modes {
				s.line.baud, s.line.parity = baud, parity
				if err := s.scan(ctx, part); err != nil {
					s.bar.clear()
					return explainLine(err)
				}
			}
		}
	}
	s.bar.clear()
	if s.found == 0 {
		fmt.Fprintln(c.out, "no device answered")
		return &exitError{exitFailure, nil}
	}
	return nil
}

// lowIDs is how many unit ids are tried at all speeds before the others are at any.
const lowIDs = 16

// numberList reads "1,3,10-20".
func numberList(list string, most int) ([]int, error) {
	var all []int
	for part := range strings.SplitSeq(list, ",") {
		lo, hi, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			hi = lo
		}
		a, err1 := strconv.Atoi(lo)
		b, err2 := strconv.Atoi(hi)
		if err1 != nil || err2 != nil || a < 0 || b < a || b > most {
			return nil, usagef("%q: numbers from 0 to %d and ranges such as 1-20", part, most)
		}
		for n := a; n <= b; n++ {
			all = append(all, n)
		}
	}
	return all, nil
}

// A scanner looks for devices on one line.
type scanner struct {
	call
	line     lineFlags
	bar      progress
	profiles []*config.Profile
	points   map[string][]modbus.Point
	found    int
}

// loadProfiles loads those profiles that say how their device is recognised.
func (s *scanner) loadProfiles(dir string) {
	s.points = map[string][]modbus.Point{}
	for _, name := range config.Profiles(dir) {
		p, err := config.LoadProfile(dir, name)
		if err != nil {
			fmt.Fprintln(s.err, err)
			continue
		}
		points, err := gateway.ProfilePoints(p)
		if err != nil {
			fmt.Fprintln(s.err, err)
			continue
		}
		s.profiles = append(s.profiles, p)
		s.points[name] = points
	}
}

// scan asks all unit ids at one speed and parity.
func (s *scanner) scan(ctx context.Context, ids []int) error {
	if len(ids) == 0 {
		return nil
	}
	client, err := s.line.client()
	if err != nil {
		return err
	}
	defer client.Close()
	for _, unit := range ids {
		s.bar.step(fmt.Sprintf("%s unit %d", s.setting(), unit))
		there, note, err := s.probe(ctx, client, byte(unit))
		if err != nil {
			return err
		}
		if there {
			s.report(ctx, client, byte(unit), note)
		}
	}
	return nil
}

// setting names the speed and parity that are tried.
func (s *scanner) setting() string {
	if s.line.port == "" {
		return s.line.address
	}
	return fmt.Sprintf("%d baud, parity %s,", s.line.baud, s.line.parity)
}

// probe tells whether a unit answers at all.
func (s *scanner) probe(ctx context.Context, client *modbus.Client, unit byte) (there bool, note string, err error) {
	if unit == 0 && s.line.port != "" {
		return false, "", nil // all devices at once: nobody answers
	}
	for _, k := range []modbus.Kind{modbus.Holding, modbus.Input} {
		_, err := client.Read(ctx, unit, k, 0, 1)
		var exception *gb.ModbusError
		switch {
		case ctx.Err() != nil:
			return false, "", ctx.Err()
		case err == nil:
			return true, "", nil
		case errors.As(err, &exception):
			if exception.ExceptionCode != gb.ExceptionCodeGatewayPathUnavailable && exception.ExceptionCode != gb.ExceptionCodeGatewayTargetDeviceFailedToRespond {
				return true, "", nil
			}
		case errors.Is(err, modbus.ErrTimeout): // perhaps with some noise
		case errors.Is(err, modbus.ErrChecksum):
			return true, "what comes is damaged: another speed or parity, or two devices with one unit id", nil
		case errors.Is(err, modbus.ErrAbsent):
			return false, "", err
		}
	}
	return false, "", nil
}

// report prints what is known of a unit that answers.
func (s *scanner) report(ctx context.Context, client *modbus.Client, unit byte, note string) {
	s.found++
	s.bar.clear()
	client.Timeout = max(client.Timeout, time.Second)
	defer func() { client.Timeout = s.line.timeout }()
	fmt.Fprintf(s.out, "%s unit %d answers", s.setting(), unit)
	if note != "" {
		fmt.Fprintf(s.out, "; %s\n", note)
		return
	}
	id, err := client.Identify(ctx, unit)
	if err == nil {
		var parts []string
		for object := range 256 {
			if text, ok := id[byte(object)]; ok && text != "" {
				parts = append(parts, fmt.Sprintf("%s %q", modbus.ObjectName(byte(object)), text))
			}
		}
		if len(parts) > 0 {
			fmt.Fprintf(s.out, ": %s", strings.Join(parts, ", "))
		}
	}
	fmt.Fprintln(s.out)
	models, err := client.Models(ctx, unit)
	if err == nil {
		fmt.Fprintf(s.out, "    SunSpec models: %s\n", modelList(models))
	}
	for _, p := range s.profiles {
		if m := slices.IndexFunc(models, func(m modbus.Model) bool { return slices.Contains(p.SunSpec, int(m.ID)) }); m >= 0 {
			fmt.Fprintf(s.out, "    it is: %s (model %d at %d)\n", p.Title, models[m].ID, models[m].Address)
			s.propose(unit, p)
			continue
		}
		if signs, ok := s.fits(ctx, client, unit, p, id); ok {
			fmt.Fprintf(s.out, "    it may be: %s (%s)\n", p.Title, signs)
			s.propose(unit, p)
		}
	}
}

// propose prints the table that a device with a profile needs in the configuration.
func (s *scanner) propose(unit byte, p *config.Profile) {
	fmt.Fprintf(s.out, "      [[modbus.device]]\n      name = \"device-%d\"\n      unit = %d\n      profile = %q\n", unit, unit, p.ID)
}

// modelList names the models of a chain with their addresses.
func modelList(models []modbus.Model) string {
	var parts []string
	for _, m := range models {
		parts = append(parts, fmt.Sprintf("%d at %d", m.ID, m.Address))
	}
	return strings.Join(parts, ", ")
}

// fits tells whether a unit looks like a profile's device, and by what.
func (s *scanner) fits(ctx context.Context, client *modbus.Client, unit byte, p *config.Profile, id modbus.Identification) (string, bool) {
	i := &p.Identify
	var signs []string
	for object, pattern := range [...]string{i.Vendor, i.Product} {
		if pattern == "" {
			continue
		}
		re, err := regexp.Compile(pattern)
		if text := id[byte(object)]; err != nil || text == "" || !re.MatchString(text) {
			return "", false
		} else {
			signs = append(signs, text)
		}
	}
	for _, r := range i.Registers {
		k, at := modbus.Holding, r.Holding
		if r.Input != nil {
			k, at = modbus.Input, r.Input
		}
		if at == nil {
			return "", false
		}
		b, err := client.Read(ctx, unit, k, uint16(*at), 1)
		if err != nil || !slices.Contains(r.OneOf, int64(b[0])<<8|int64(b[1])) {
			return "", false
		}
		signs = append(signs, fmt.Sprintf("%s %d is 0x%02x%02x", k, *at, b[0], b[1]))
	}
	for name, limits := range i.Plausible {
		n := slices.IndexFunc(s.points[p.ID], func(q modbus.Point) bool { return q.Name == name })
		if n < 0 {
			return "", false
		}
		q := &s.points[p.ID][n]
		b, err := client.Read(ctx, unit, q.Kind, q.Address, (q.Field.Size()+1)/2)
		if err != nil {
			return "", false
		}
		v, reason := q.Field.Decode(b)
		if x, ok := v.Number(); reason != "" || !ok || x < limits[0] || x > limits[1] {
			return "", false
		}
		signs = append(signs, strings.TrimSpace(fmt.Sprintf("%s %v %s", name, v, q.Unit)))
	}
	slices.Sort(signs)
	return strings.Join(signs, ", "), len(signs) > 0
}

// A progress is a bar in the last line of a terminal; elsewhere it shows nothing.
type progress struct {
	w           io.Writer
	done, total int
	begin       time.Time
	shown       bool
}

// step shows that another part begins.
func (p *progress) step(what string) {
	if p.begin.IsZero() {
		p.begin = time.Now()
	}
	file, ok := p.w.(*os.File)
	if p.done++; !ok || !term.IsTerminal(int(file.Fd())) {
		return
	}
	const width = 30
	full := width * p.done / max(1, p.total)
	left := time.Duration(0)
	if p.done > 5 {
		left = time.Since(p.begin) / time.Duration(p.done) * time.Duration(p.total-p.done)
	}
	fmt.Fprintf(p.w, "\r\x1b[K[%s%s] %d/%d  %v left  %s", strings.Repeat("#", full), strings.Repeat(".", width-full), p.done, p.total, left.Round(time.Second), what)
	p.shown = true
}

// clear takes the bar away.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}
