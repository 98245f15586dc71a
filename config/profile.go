package config

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"gateway/adapters/hint"
)

// A Profile is what is known of one model of Modbus device: a TOML file, one of those that the
// program carries (profiles/*.toml), or one of the user's.
type Profile struct {
	At      Place
	ID      string // the file's name without .toml
	Title   string `toml:"title"`
	Source  string `toml:"source"` // where the register map is from
	Notes   string `toml:"notes"`
	Extends string `toml:"extends"` // another profile, of which this is a variant

	// Line says how the device is set up when it comes out of its box, for people and for scan.
	Line     ProfileLine     `toml:"line"`
	Identify ProfileIdentity `toml:"identify"`

	ModbusDefaults
	Points []ModbusPoint `toml:"points"`

	Exchanges []ProfileExchange `toml:"exchange"`
}

// ProfileLine is a device's serial settings as delivered.
type ProfileLine struct {
	Unit   int    `toml:"unit"`
	Baud   int    `toml:"baud"`
	Parity string `toml:"parity"`
}

// ProfileIdentity is how scan recognises a device: by its answer to Read Device Identification, by a
// register that holds a known number, or, where the device has neither, by points that read as what
// they should be. All that is given must fit.
type ProfileIdentity struct {
	Vendor    string               `toml:"vendor"`    // regular expression
	Product   string               `toml:"product"`   // regular expression
	Registers []ProfileSign        `toml:"registers"` // all of them
	Plausible map[string][]float64 `toml:"plausible"` // point = [least, most]
}

// ProfileSign is a register that tells what a device is.
type ProfileSign struct {
	Holding *int    `toml:"holding"`
	Input   *int    `toml:"input"`
	OneOf   []int64 `toml:"one_of"`
}

// ProfileExchange is an example of what goes over the wire and what it means: the profile's test.
type ProfileExchange struct {
	At       Place
	Source   string         `toml:"source"`   // a published capture, or "constructed"
	Request  string         `toml:"request"`  // RTU frame in hexadecimal
	Response string         `toml:"response"` // RTU frame in hexadecimal
	Values   map[string]any `toml:"values"`   // what the points give then
}

//go:embed profiles/*.toml
var embeddedProfiles embed.FS

// profileStore finds profiles: in a directory of the user's first, then among those embedded.
type profileStore struct {
	dir string
}

// Profiles returns the names of all profiles, sorted: those in dir (empty: none) and those that the
// program carries.
func Profiles(dir string) []string {
	return (&profileStore{dir}).names()
}

// LoadProfile reads one profile, with what it extends. dir is as for Profiles.
func LoadProfile(dir, name string) (*Profile, error) {
	return (&profileStore{dir}).load(name, nil)
}

func (s *profileStore) names() []string {
	var names []string
	add := func(entries []fs.DirEntry) {
		for _, e := range entries {
			if name, ok := strings.CutSuffix(e.Name(), ".toml"); ok {
				names = append(names, name)
			}
		}
	}
	entries, err := embeddedProfiles.ReadDir("profiles")
	if err == nil {
		add(entries)
	}
	if s.dir != "" {
		if entries, err := os.ReadDir(s.dir); err == nil {
			add(entries)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// source returns the text of a profile and where it is.
func (s *profileStore) source(name string) (text, where string, err error) {
	if strings.ContainsAny(name, `/\`) || !fs.ValidPath(name+".toml") {
		return "", "", fmt.Errorf("profile %q: a profile is named without its directory; put the file into the directory that [gateway] profiles names", name)
	}
	if s.dir != "" {
		path := filepath.Join(s.dir, name+".toml")
		b, err := os.ReadFile(path)
		if err == nil {
			return string(b), path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", "", fmt.Errorf("profile %q: %w", name, err)
		}
	}
	b, err := embeddedProfiles.ReadFile("profiles/" + name + ".toml")
	if err == nil {
		return string(b), "the built-in profile " + name, nil
	}
	names := s.names()
	near, _ := hint.Nearest(name, names)
	if with := containing(name, names); near == "" && len(with) > 0 { // the model without its maker
		near = strings.Join(with, `" or "`)
	}
	if near != "" {
		return "", "", fmt.Errorf("there is no profile \"%s\"; did you mean \"%s\"?", name, near)
	}
	return "", "", fmt.Errorf("there is no profile %q; 'gateway modbus profiles' lists those that there are", name)
}

// containing returns the names that have part in them.
func containing(part string, names []string) (with []string) {
	for _, name := range names {
		if part != "" && strings.Contains(name, strings.ToLower(part)) {
			with = append(with, name)
		}
	}
	return with
}

// load reads a profile and merges it over what it extends; chain is what led here.
func (s *profileStore) load(name string, chain []string) (*Profile, error) {
	if slices.Contains(chain, name) {
		return nil, fmt.Errorf("profile %q extends itself: %s", chain[0], strings.Join(append(chain, name), " → "))
	}
	src, where, err := s.source(name)
	if err != nil {
		return nil, err
	}
	problems := &Problems{file: where}
	var tree map[string]any
	if _, err := toml.Decode(src, &tree); err != nil {
		return nil, fmt.Errorf("%s: not TOML: %w", where, err)
	}
	problems.lines = keyLines(src)
	p := &Profile{ID: name}
	root := Place{problems: problems}
	decode(reflect.ValueOf(p).Elem(), tree, root)
	if !problems.Failed() {
		p.check()
	}
	if problems.Failed() {
		return nil, errors.New(strings.TrimSpace(problems.String()))
	}
	if p.Extends == "" {
		return p, nil
	}
	base, err := s.load(p.Extends, append(chain, name))
	if err != nil {
		return nil, err
	}
	p.over(base)
	return p, nil
}

func (p *Profile) check() {
	if p.Title == "" {
		p.At.Errorf("", `has no title; add title = "Maker Model"`)
	}
	if p.Source == "" {
		p.At.Errorf("", `does not say where its register map is from; add source = "..."`)
	}
	seen := map[string]bool{}
	for name, limits := range p.Identify.Plausible {
		if len(limits) != 2 || limits[0] > limits[1] {
			p.At.Errorf("identify.plausible."+name, "%s: give the least and the most, as in [90, 270]", name)
		}
	}
	for i := range p.Points {
		q := &p.Points[i]
		if q.Name == "" || seen[q.Name] {
			q.At.Errorf("name", "the point name %q is missing or given twice", q.Name)
		}
		seen[q.Name] = true
		if p.Extends == "" {
			q.check()
		}
	}
}

// over lays a profile over the one that it extends.
func (p *Profile) over(base *Profile) {
	mine := p.Points
	p.Points = slices.Clone(base.Points)
	for i := range mine {
		p.Points = overlayPoint(p.Points, &mine[i])
	}
	overlay(reflect.ValueOf(&p.ModbusDefaults).Elem(), reflect.ValueOf(&base.ModbusDefaults).Elem(),
		func(key string, _ reflect.Value) bool { return !p.At.Has(key) })
	if !p.At.Has("line") {
		p.Line = base.Line
	}
}

// apply gives a device the points and settings of its profile, below its own. It tells whether the
// profile could be had.
func (s *profileStore) apply(d *ModbusDevice) bool {
	p, err := s.load(d.Profile, nil)
	if err != nil {
		d.At.Errorf("profile", "%v", err)
		return false
	}
	overlay(reflect.ValueOf(&d.ModbusDefaults).Elem(), reflect.ValueOf(&p.ModbusDefaults).Elem(),
		func(key string, v reflect.Value) bool { return !d.At.Has(key) && !v.IsZero() })
	if !d.At.Has("unit") && p.Line.Unit != 0 {
		d.Unit = p.Line.Unit
	}
	names := make([]string, len(p.Points))
	for i := range p.Points {
		names[i] = p.Points[i].Name
	}
	for key, list := range map[string][]string{"only": d.Only, "without": d.Without} {
		for _, name := range list {
			if !slices.Contains(names, name) {
				near := cmp.Or(hint.DidYouMean(name, names), fmt.Sprintf("; 'gateway modbus profiles %s' lists those that there are", d.Profile))
				d.At.Errorf(key, "%s: the profile %q has no point %q%s", key, d.Profile, name, near)
			}
		}
	}
	var points []ModbusPoint
	for _, q := range p.Points {
		if len(d.Only) > 0 && !slices.Contains(d.Only, q.Name) || slices.Contains(d.Without, q.Name) {
			continue
		}
		q.At = Place{problems: d.At.problems, path: join(d.At.path, "profile"), where: fmt.Sprintf("%s, point %q of its profile", d.At.where, q.Name)}
		points = append(points, q)
	}
	for i := range d.Points {
		points = overlayPoint(points, &d.Points[i])
	}
	d.Points = points
	return true
}

// overlayPoint changes the point of the same name, key by key, or adds a new one.
func overlayPoint(points []ModbusPoint, over *ModbusPoint) []ModbusPoint {
	i := slices.IndexFunc(points, func(p ModbusPoint) bool { return p.Name == over.Name })
	if i < 0 {
		return append(points, *over)
	}
	p := &points[i]
	for _, key := range []string{"coil", "discrete", "input", "holding", "address"} {
		if over.At.Has(key) {
			p.Coil, p.Discrete, p.Input, p.Holding, p.Address = nil, nil, nil, nil, ""
		}
	}
	overlay(reflect.ValueOf(p).Elem(), reflect.ValueOf(over).Elem(),
		func(key string, _ reflect.Value) bool { return over.At.Has(key) })
	p.At = over.At
	return points
}

// overlay copies those fields of a struct that have a key which take chooses.
func overlay(dst, src reflect.Value, take func(key string, src reflect.Value) bool) {
	for i := range dst.NumField() {
		f := dst.Type().Field(i)
		if f.Anonymous && f.Type.Kind() == reflect.Struct {
			overlay(dst.Field(i), src.Field(i), take)
			continue
		}
		if key := f.Tag.Get("toml"); key != "" && key != "-" && take(key, src.Field(i)) {
			dst.Field(i).Set(src.Field(i))
		}
	}
}
