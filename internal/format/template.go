package format

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/template"
	"time"

	"gateway/adapters"
	"gateway/internal/clock"
)

// A View is what a template sees of a sample. The function json writes any of it as JSON.
type View struct {
	Gateway, Bus, Device string
	Labels               map[string]string
	Epoch                string // 16 hexadecimal digits
	Seq, Prev            uint64
	HasPrev              bool
	Time                 time.Time // UTC; zero where Clock is "unknown"
	Clock                string    // "", "unsynced" or "unknown"
	Durable, Historical  bool
	Readings             []ViewReading
	Values               map[string]any // good and stale ones by point
}

// A ViewReading is one reading as a template sees it.
type ViewReading struct {
	Point, Unit, Quality, Reason string
	Value                        any // bool, int64, uint64, float64, string; nil where bad
}

type templateEncoder struct {
	t       *template.Template
	gateway string
	mime    string
}

func newTemplate(o Options) (encoder, error) {
	if o.Template == "" {
		return nil, fmt.Errorf("format: the format %q needs a template", Template)
	}
	t, err := template.New("payload").Funcs(template.FuncMap{
		"json": func(v any) (string, error) {
			b, err := json.Marshal(v)
			return string(b), err
		},
	}).Parse(o.Template)
	if err != nil {
		return nil, fmt.Errorf("format: %w", err)
	}
	e := templateEncoder{t: t, gateway: o.Gateway, mime: o.ContentType}
	if e.mime == "" {
		e.mime = "text/plain"
	}
	// A field that does not exist shows only when it is executed. A sample without readings reaches
	// all that does not depend on a point.
	probe := Item{Sample: &adapters.Sample{Schema: &adapters.Schema{}}}
	if _, err := e.add(nil, true, &probe, &schema{}); err != nil {
		return nil, err
	}
	return e, nil
}

func (e templateEncoder) contentType() string        { return e.mime }
func (templateEncoder) text() bool                   { return true }
func (templateEncoder) begin(b []byte, _ int) []byte { return b }
func (templateEncoder) end(b []byte) []byte          { return b }

func (e templateEncoder) add(b []byte, _ bool, it *Item, s *schema) ([]byte, error) {
	sc := it.Sample.Schema
	v := View{
		Gateway: e.gateway, Bus: sc.Bus, Device: sc.Device, Labels: make(map[string]string, len(sc.Labels)),
		Epoch: string(appendHex(nil, it.Epoch)), Seq: it.Seq, Prev: it.Prev, HasPrev: it.HasPrev,
		Durable: !it.Volatile, Historical: it.Historical, Values: make(map[string]any, len(it.Sample.Readings)),
	}
	for _, l := range sc.Labels {
		v.Labels[l.Name] = l.Value
	}
	if it.Clock != clock.Unknown {
		v.Time = time.Unix(0, it.Wall).UTC()
	}
	if it.Clock != clock.Synced {
		v.Clock = clockText(it.Clock)
	}
	for i := range it.Sample.Readings {
		r := &it.Sample.Readings[i]
		if s.points[r.Point].skip {
			continue
		}
		p := &sc.Points[r.Point]
		vr := ViewReading{Point: p.Name, Unit: p.Unit, Quality: r.Quality.String(), Reason: string(r.Reason), Value: goValue(r.Value)}
		if r.Quality == adapters.Bad {
			vr.Value = nil
		} else {
			v.Values[p.Name] = vr.Value
		}
		v.Readings = append(v.Readings, vr)
	}
	var out strings.Builder
	if err := e.t.Execute(&out, v); err != nil {
		return b, fmt.Errorf("format: device %q: %w", sc.Device, err)
	}
	return append(b, out.String()...), nil
}

func goValue(v adapters.Value) any {
	switch v.Kind() {
	case adapters.Bool:
		return v.Bool()
	case adapters.Int:
		return v.Int()
	case adapters.Uint:
		return v.Uint()
	case adapters.Float:
		f, _ := v.Number()
		return f
	case adapters.String:
		return v.Str()
	}
	return nil
}
