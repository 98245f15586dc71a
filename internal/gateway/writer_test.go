package gateway

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"gateway/adapters"
	"gateway/buffer"
	"gateway/internal/sample"
)

// shelf is a queue in memory.
type shelf struct {
	records [][]byte
	dicts   []*buffer.Dict
	refuse  error
}

func (s *shelf) AppendBatch(entries []buffer.Entry) (buffer.ID, error) {
	if s.refuse != nil {
		return buffer.ID{}, s.refuse
	}
	first := buffer.ID{Epoch: 1, Seq: uint64(101 + len(s.records))}
	for _, e := range entries {
		s.records = append(s.records, append([]byte(nil), e.Data...))
		s.dicts = append(s.dicts, e.Dict)
	}
	return first, nil
}

func reading(schema *adapters.Schema, v int64) adapters.Sample {
	return adapters.Sample{Schema: schema, Time: adapters.Instant(v), Readings: []adapters.Reading{{Value: adapters.IntValue(v)}}}
}

func device(name string) *adapters.Schema {
	return &adapters.Schema{Bus: "b", Device: name, Points: []adapters.Point{{Name: "p"}}}
}

// run lets the writer take what has been offered and stop.
func run(t *testing.T, w *writer) {
	t.Helper()
	stopped, stop := context.WithCancel(context.Background())
	stop()
	if err := w.Run(stopped); err != nil {
		t.Fatal(err)
	}
}

func TestEachSampleNamesItsDevicesSampleBefore(t *testing.T) {
	q := &shelf{}
	w := newWriter(q, &sample.Decoder{}, 7, map[string]uint64{"old": 55}, slog.New(slog.DiscardHandler))
	old, fresh := device("old"), device("new")
	for _, s := range []adapters.Sample{reading(old, 1), reading(fresh, 2), reading(old, 3), reading(fresh, 4)} {
		if !w.Offer(s) {
			t.Fatal("not accepted")
		}
	}
	run(t, w)
	want := []struct {
		prev uint64
		has  bool
	}{{55, true}, {0, false}, {101, true}, {102, true}}
	for i, data := range q.records {
		var r sample.Record
		if err := new(sample.Decoder).Decode(data, q.dicts[i].Data, &r); err != nil {
			t.Fatal(err)
		}
		if r.Prev != want[i].prev || r.HasPrev != want[i].has || r.Boot != 7 {
			t.Errorf("record %d: prev %d (%t), boot %d", i, r.Prev, r.HasPrev, r.Boot)
		}
	}
}

func TestAnOverflowIsToldAndNeverBlocks(t *testing.T) {
	w := newWriter(&shelf{}, &sample.Decoder{}, 1, map[string]uint64{}, slog.New(slog.DiscardHandler))
	lost := 0
	w.lost = func(*adapters.Sample, string) { lost++ }
	for i := range backlog + 3 {
		if w.Offer(reading(device("d"), int64(i))) != (i < backlog) {
			t.Fatalf("sample %d", i)
		}
	}
	if lost != 3 {
		t.Errorf("%d told, want 3", lost)
	}
}

func TestASampleThatTheQueueRefusedIsNobodysPredecessor(t *testing.T) {
	q := &shelf{refuse: errors.New("full")}
	w := newWriter(q, &sample.Decoder{}, 1, map[string]uint64{"d": 9}, slog.New(slog.DiscardHandler))
	var why []string
	w.lost = func(_ *adapters.Sample, reason string) { why = append(why, reason) }
	d := device("d")
	w.Offer(reading(d, 1))
	run(t, w)
	if len(why) != 1 {
		t.Errorf("told %q", why)
	}
	q.refuse = nil
	w.Offer(reading(d, 2))
	run(t, w)
	var r sample.Record
	if err := new(sample.Decoder).Decode(q.records[0], q.dicts[0].Data, &r); err != nil || r.Prev != 9 {
		t.Errorf("prev %d, %v", r.Prev, err)
	}
}

func TestADeviceThatFloodsCostsTheOthersNothing(t *testing.T) {
	w := newWriter(&shelf{}, &sample.Decoder{}, 1, map[string]uint64{}, slog.New(slog.DiscardHandler))
	lost := map[string]int{}
	w.lost = func(s *adapters.Sample, _ string) { lost[s.Schema.Device]++ }
	flood, calm := device("flood"), device("calm")
	for range 2 {
		for i := range 10 * backlog {
			w.Offer(reading(flood, int64(i)))
		}
		for i := range fairShare {
			w.Offer(reading(calm, int64(i)))
		}
		run(t, w)
	}
	if lost["calm"] != 0 || lost["flood"] < 2*9*backlog {
		t.Errorf("lost: %v", lost)
	}
}
