package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway/adapters"
)

const sec = adapters.Instant(time.Second)

// trial offers one reading of the point x a second and returns what is handed on: "time name=value".
func trial(t *testing.T, r Rule, readings ...adapters.Reading) (string, *Filter) {
	t.Helper()
	var got []string
	f := New(collect(&got), func(_, point string) Rule {
		if point == "x" {
			return r
		}
		return Rule{}
	})
	s := &adapters.Schema{Device: "d", Points: []adapters.Point{{Name: "x", Decimals: 1, Unit: "V"}}}
	for i, rd := range readings {
		if !f.Offer(adapters.Sample{Schema: s, Time: adapters.Instant(i) * sec, Readings: []adapters.Reading{rd}}) {
			t.Error("refused")
		}
	}
	return strings.Join(got, ", "), f
}

func collect(got *[]string) adapters.Sink {
	return adapters.SinkFunc(func(s adapters.Sample) bool {
		last := -1
		line := fmt.Sprintf("%d", s.Time/sec)
		for _, r := range s.Readings {
			if r.Point <= last {
				line += " OUT OF ORDER"
			}
			last = r.Point
			line += " " + s.Schema.Points[r.Point].Name + "=" + r.Value.String()
			if r.Quality != adapters.Good {
				line += r.Quality.String() + ":" + string(r.Reason)
			}
		}
		*got = append(*got, line)
		return true
	})
}

func floats(list ...float64) (rs []adapters.Reading) {
	for _, f := range list {
		rs = append(rs, adapters.Reading{Value: adapters.FloatValue(f)})
	}
	return rs
}

var bad = adapters.Reading{Quality: adapters.Bad, Reason: adapters.ReasonTimeout}

func TestReportByException(t *testing.T) {
	text := func(s string) adapters.Reading { return adapters.Reading{Value: adapters.StringValue(s)} }
	for _, c := range []struct {
		name string
		rule Rule
		in   []adapters.Reading
		want string
	}{
		{"everything by default", Rule{}, floats(1, 1, 1), "0 x=1, 1 x=1, 2 x=1"},
		{"only changes", Rule{OnChange: true}, floats(1, 1, 2, 2, 1), "0 x=1, 2 x=2, 4 x=1"},
		{"absolute deadband, from the last reported", Rule{OnChange: true, Deadband: 1}, floats(10, 10.5, 10.9, 11.0, 11.5, 10), "0 x=10, 3 x=11, 5 x=10"},
		{"percent of the last reported", Rule{OnChange: true, Percent: 10}, floats(100, 109, 110, 120, 121), "0 x=100, 2 x=110, 4 x=121"},
		{"percent around zero", Rule{OnChange: true, Percent: 10}, floats(0, 0, 0.1), "0 x=0, 2 x=0.1"},
		{"heartbeat", Rule{OnChange: true, Heartbeat: 3 * time.Second}, floats(1, 1, 1, 1, 1, 1, 1), "0 x=1, 3 x=1, 6 x=1"},
		{"minimum interval keeps the change for later", Rule{OnChange: true, MinInterval: 3 * time.Second}, floats(1, 2, 2, 2, 2), "0 x=1, 3 x=2"},
		{"minimum interval alone", Rule{MinInterval: 2 * time.Second}, floats(1, 2, 3, 4, 5), "0 x=1, 2 x=3, 4 x=5"},
		{"quality at once", Rule{OnChange: true, MinInterval: time.Hour, Deadband: 100}, []adapters.Reading{floats(1)[0], bad, bad, floats(2)[0]}, "0 x=1, 1 x=bad:timeout, 3 x=2"},
		{"texts", Rule{OnChange: true, Deadband: 5}, []adapters.Reading{text("a"), text("a"), text("b")}, "0 x=a, 2 x=b"},
		{"large integers", Rule{OnChange: true}, []adapters.Reading{{Value: adapters.IntValue(1 << 60)}, {Value: adapters.IntValue(1<<60 + 1)}}, "0 x=1152921504606846976, 1 x=1152921504606846977"},
		{"window", Rule{Window: 3 * time.Second, Aggregate: []Func{Min, Max, Mean, Last, Count}}, floats(1, 3, 2, 7, 8, 9, 0),
			"3 x_min=1 x_max=3 x_mean=2 x_last=2 x_count=3, 6 x_min=7 x_max=9 x_mean=8 x_last=9 x_count=3"},
		{"last alone keeps the name", Rule{Window: 2 * time.Second}, floats(1, 2, 3, 4, 5), "2 x=2, 4 x=4"},
		{"bad ones do not count", Rule{Window: 3 * time.Second, Aggregate: []Func{Mean, Count}}, append([]adapters.Reading{floats(1)[0], bad}, floats(3, 0)...),
			"3 x_mean=2 x_count=2"},
		{"nothing good", Rule{Window: 2 * time.Second, Aggregate: []Func{Mean, Count}}, append([]adapters.Reading{bad, bad}, floats(0)...),
			"2 x_mean=bad:timeout x_count=0"},
		{"a mean of texts", Rule{Window: time.Second, Aggregate: []Func{Mean, Last}}, []adapters.Reading{text("a"), text("b")}, "1 x_mean=bad:parse x_last=a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, _ := trial(t, c.rule, c.in...); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestFlushClosesOpenWindows(t *testing.T) {
	var got []string
	f := New(collect(&got), func(string, string) Rule { return Rule{Window: time.Minute, Aggregate: []Func{Mean}} })
	s := &adapters.Schema{Device: "d", Points: []adapters.Point{{Name: "x"}}}
	f.Offer(adapters.Sample{Schema: s, Time: 5 * sec, Readings: floats(4)})
	f.Flush()
	f.Flush()
	if strings.Join(got, ", ") != "60 x_mean=4" {
		t.Error(got)
	}
}

func TestPointsOfOneSampleAreDecidedApart(t *testing.T) {
	var got []string
	f := New(collect(&got), func(_, p string) Rule {
		switch p {
		case "quiet":
			return Rule{OnChange: true}
		case "mean":
			return Rule{Window: 2 * time.Second, Aggregate: []Func{Mean, Count}}
		}
		return Rule{}
	})
	s := &adapters.Schema{Device: "d", Bus: "b", Points: []adapters.Point{{Name: "quiet"}, {Name: "mean"}, {Name: "all"}}}
	for i := range 4 {
		rs := floats(5, float64(i), float64(i))
		for k := range rs {
			rs[k].Point = k
		}
		f.Offer(adapters.Sample{Schema: s, Time: adapters.Instant(i) * sec, Readings: rs})
	}
	want := "0 quiet=5 all=0, 1 all=1, 2 mean_mean=0.5 mean_count=2, 2 all=2, 3 all=3"
	if strings.Join(got, ", ") != want {
		t.Errorf("\n got %s\nwant %s", strings.Join(got, ", "), want)
	}
}

func TestWhatIsHeldBackIsCounted(t *testing.T) {
	_, f := trial(t, Rule{OnChange: true}, floats(1, 1, 1, 2)...)
	if s := f.Stats(); s.Readings != 2 || s.Samples != 2 {
		t.Errorf("%+v", s)
	}
}

func TestAMeanKeepsItsPrecision(t *testing.T) {
	var w window
	for _, v := range []float64{1e16, 1, -1e16} {
		w.add(&adapters.Reading{Value: adapters.FloatValue(v)}, 0, time.Second)
	}
	r := w.reading(Mean)
	if m, _ := r.Value.Number(); math.Abs(m-1.0/3) > 1e-12 {
		t.Errorf("mean %v", m)
	}
}

func TestARefusalIsPassedOn(t *testing.T) {
	f := New(adapters.SinkFunc(func(adapters.Sample) bool { return false }), func(string, string) Rule { return Rule{} })
	if f.Offer(adapters.Sample{Schema: &adapters.Schema{}}) {
		t.Error("accepted")
	}
}

// What was refused was not reported: a value that does not change any more must not stay away.
func TestAChangeThatWasRefusedIsReportedAgain(t *testing.T) {
	full := false
	var got []string
	take := collect(&got)
	f := New(adapters.SinkFunc(func(s adapters.Sample) bool { return !full && take.Offer(s) }), func(string, string) Rule { return Rule{OnChange: true} })
	s := &adapters.Schema{Device: "d", Points: []adapters.Point{{Name: "x"}}}
	for i, v := range []float64{1, 1, 2, 2, 2} {
		full = i == 2
		f.Offer(adapters.Sample{Schema: s, Time: adapters.Instant(i) * sec, Readings: floats(v)})
	}
	if text := strings.Join(got, ", "); text != "0 x=1, 3 x=2" {
		t.Error(text)
	}
}

func BenchmarkOffer(b *testing.B) {
	s := &adapters.Schema{Device: "d"}
	for i := range 20 {
		s.Points = append(s.Points, adapters.Point{Name: fmt.Sprint(i)})
	}
	f := New(adapters.SinkFunc(func(adapters.Sample) bool { return true }), func(string, string) Rule { return Rule{OnChange: true, Deadband: 1} })
	rs := make([]adapters.Reading, 20)
	b.ReportAllocs()
	now := adapters.Instant(0)
	for b.Loop() {
		for i := range rs {
			rs[i] = adapters.Reading{Point: i, Value: adapters.FloatValue(float64(i))}
		}
		now += sec
		f.Offer(adapters.Sample{Schema: s, Time: now, Readings: rs})
	}
}

func TestAMeanIsFinerThanWhatItIsMadeOf(t *testing.T) {
	var digits []int8
	sink := adapters.SinkFunc(func(s adapters.Sample) bool {
		for _, r := range s.Readings {
			digits = append(digits, s.Schema.Points[r.Point].Decimals)
		}
		return true
	})
	f := New(sink, func(string, string) Rule { return Rule{Window: 2 * time.Second, Aggregate: []Func{Mean}} })
	s := &adapters.Schema{Device: "d", Points: []adapters.Point{{Name: "tenths", Decimals: 1}, {Name: "whole"}, {Name: "as needed", Decimals: -1}}}
	for i := range 3 {
		rs := floats(1, 2, 3)
		for k := range rs {
			rs[k].Point = k
		}
		f.Offer(adapters.Sample{Schema: s, Time: adapters.Instant(i) * sec, Readings: rs})
	}
	if want := []int8{2, wholeMean, -1}; !slices.Equal(digits, want) {
		t.Errorf("the means have %d digits, want %d", digits, want)
	}
}
