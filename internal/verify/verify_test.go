package verify

import (
	"fmt"
	"strings"
	"testing"

	"gateway/adapters"
	"gateway/internal/format"
	"gateway/mqtt"
)

// feed turns lines such as "a 5<3" (topic a, seq 5, prev 3) into messages; h marks historical ones.
func feed(t *testing.T, lines ...string) Report {
	t.Helper()
	c := NewChecker()
	for _, l := range lines {
		var topic, id string
		if _, err := fmt.Sscan(l, &topic, &id); err != nil {
			t.Fatal(err)
		}
		epoch := "e1"
		if rest, ok := strings.CutPrefix(id, "e2:"); ok {
			epoch, id = "e2", rest
		}
		seq, prev, has := strings.Cut(id, "<")
		p := fmt.Sprintf(`{"epoch":%q,"seq":%s`, epoch, seq)
		if has {
			p += `,"prev":` + prev
		}
		if strings.HasSuffix(l, " h") {
			p += `,"historical":true`
		}
		if err := c.Add(&mqtt.Message{Topic: topic, Payload: []byte(p + `,"values":{"x":1}}`)}); err != nil {
			t.Fatal(err)
		}
	}
	return c.Report()
}

func TestWhatIsFound(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		want  string
		gaps  string
	}{
		{"a whole stream", []string{"a 1", "b 2", "a 3<1", "b 4<2"}, "4 samples with 4 readings on 2 topics: 0 duplicates, 0 out of order, 0 historical, 0 gaps", ""},
		{"joined in the middle", []string{"a 7<5", "a 9<7"}, "2 samples with 2 readings on 1 topics: 0 duplicates, 0 out of order, 0 historical, 0 gaps", ""},
		{"a gap", []string{"a 1", "a 5<3"}, "2 samples with 2 readings on 1 topics: 0 duplicates, 0 out of order, 0 historical, 1 gaps", "a:3<5"},
		{"a gap that is filled later", []string{"a 1", "a 5<3", "a 3<1 h"}, "3 samples with 3 readings on 1 topics: 0 duplicates, 0 out of order, 1 historical, 0 gaps", ""},
		{"twice", []string{"a 1", "a 3<1", "a 1", "a 3<1"}, "2 samples with 2 readings on 1 topics: 2 duplicates, 0 out of order, 0 historical, 0 gaps", ""},
		{"out of order", []string{"a 1", "a 5<3", "a 3<1"}, "3 samples with 3 readings on 1 topics: 0 duplicates, 1 out of order, 0 historical, 0 gaps", ""},
		{"a sequence used again after a power cut", []string{"a 1", "a 2<1", "a e2:2<1", "a 3<2"}, "4 samples with 4 readings on 1 topics: 0 duplicates, 0 out of order, 0 historical, 0 gaps", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := feed(t, c.lines...)
			if got := r.String(); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
			var gaps []string
			for _, g := range r.Gaps {
				gaps = append(gaps, fmt.Sprintf("%s:%d<%d", g.Topic, g.Missing, g.Before))
			}
			if strings.Join(gaps, " ") != c.gaps {
				t.Errorf("gaps %q, want %q", gaps, c.gaps)
			}
		})
	}
}

func TestALossRecordExplainsAGap(t *testing.T) {
	c := NewChecker()
	for topic, payload := range map[string]string{
		"g/a":       `[{"epoch":"e","seq":1,"values":{}},{"epoch":"e","seq":9,"prev":5,"values":{}},{"epoch":"e","seq":20,"prev":19,"values":{}},{"epoch":"e","seq":40,"prev":35,"values":{}}]`,
		"g/gateway": `[{"epoch":"e","seq":10,"values":{"event":"loss","first":3,"last":8}},{"epoch":"e","seq":36,"prev":10,"values":{"event":"loss","epoch":"e","first":30,"open":true}}]`,
	} {
		if err := c.Add(&mqtt.Message{Topic: topic, Payload: []byte(payload)}); err != nil {
			t.Fatal(err)
		}
	}
	r := c.Report()
	if len(r.Gaps) != 3 || r.Unexplained() != 1 || r.Gaps[1].Missing != 19 || r.Gaps[1].Explained {
		t.Errorf("%+v", r.Gaps)
	}
}

func TestIdentityInUserProperties(t *testing.T) {
	c := NewChecker()
	for _, id := range [][2]string{{"1", ""}, {"4", "2"}} {
		m := mqtt.Message{Topic: "g/a/x", Payload: []byte("71.2"), User: []mqtt.UserProperty{{Name: "epoch", Value: "e"}, {Name: "seq", Value: id[0]}}}
		if id[1] != "" {
			m.User = append(m.User, mqtt.UserProperty{Name: "prev", Value: id[1]})
		}
		if err := c.Add(&m); err != nil {
			t.Fatal(err)
		}
	}
	if r := c.Report(); r.Samples != 2 || len(r.Gaps) != 1 {
		t.Errorf("%+v", r)
	}
}

// message is a sample of an epoch as a message of the format of bare values.
func message(topic, epoch, seq, prev string) *mqtt.Message {
	m := &mqtt.Message{Topic: topic, Payload: []byte("71.2"), User: []mqtt.UserProperty{{Name: "epoch", Value: epoch}, {Name: "seq", Value: seq}}}
	if prev != "" {
		m.User = append(m.User, mqtt.UserProperty{Name: "prev", Value: prev})
	}
	return m
}

func check(t *testing.T, c *Checker, list ...*mqtt.Message) Report {
	t.Helper()
	for _, m := range list {
		if err := c.Add(m); err != nil {
			t.Fatal(err)
		}
	}
	return c.Report()
}

// The points of a device have topics of their own and are not in every sample: a sample's predecessor
// may have come on the topic of another point.
func TestThePointsOfADeviceAreOneStream(t *testing.T) {
	c := NewChecker()
	r := check(t, c,
		message("g/a/x", "e1", "1", ""), message("g/a/y", "e1", "1", ""),
		message("g/b/x", "e1", "2", ""),
		message("g/a/y", "e1", "3", "1"),
		message("g/a/x", "e1", "4", "3"),
		message("g/a/y", "e2", "6", "4")) // the predecessor is of the epoch before, and on another topic
	if len(r.Gaps) > 0 || r.Duplicates > 0 || r.Samples != 6 {
		t.Errorf("%+v", r)
	}
	r = check(t, c, message("g/a/x", "e2", "9", "8"), message("g/a/x", "e2", "9", "8"))
	if len(r.Gaps) != 1 || r.Gaps[0].Missing != 8 || r.Duplicates != 1 {
		t.Errorf("%+v", r)
	}
}

// Two gateways count alike: what one of them sent or lost says nothing of the other.
func TestGatewaysAreToldApart(t *testing.T) {
	c := NewChecker()
	record := &mqtt.Message{Topic: "h/gateway", Payload: []byte(`{"epoch":"f1","seq":9,"values":{"event":"loss","destination":"cloud","reason":"queue full","count":3,"epoch":"f1","first":1,"last":8}}`)}
	r := check(t, c, message("g/a", "e1", "1", ""), message("h/a", "f1", "1", ""), message("h/a", "f1", "2", "1"), record, message("g/a", "e1", "3", "2"))
	if len(r.Gaps) != 1 || r.Gaps[0].Topic != "g/a" || r.Gaps[0].Explained {
		t.Errorf("%+v", r.Gaps)
	}
}

func TestALossOfAnotherDestinationExplainsNothing(t *testing.T) {
	for destination, explained := range map[string]bool{"": true, "cloud": true, "other": false} {
		c := NewChecker()
		c.Destination = destination
		r := check(t, c, message("g/a", "e", "1", ""), message("g/a", "e", "5", "3"),
			&mqtt.Message{Topic: "g/gateway", Payload: []byte(`{"epoch":"e","seq":6,"values":{"event":"loss","destination":"cloud","reason":"queue full","epoch":"e","first":2,"last":4}}`)})
		if len(r.Gaps) != 1 || r.Gaps[0].Explained != explained || explained && (r.Gaps[0].Reason != "queue full" || r.Gaps[0].Destination != "cloud") {
			t.Errorf("%q: %+v", destination, r.Gaps)
		}
	}
}

// What a power cut took is of the epoch that it ended.
func TestAnOpenRangeEndsWithItsEpoch(t *testing.T) {
	c := NewChecker()
	r := check(t, c, message("g/a", "e1", "1", ""), message("g/a", "e1", "4", "3"), message("g/a", "e2", "5", "4"), message("g/a", "e2", "9", "7"),
		&mqtt.Message{Topic: "g/gateway", Payload: []byte(`{"epoch":"e2","seq":6,"values":{"event":"loss","reason":"power cut","epoch":"e1","first":2,"open":true}}`)})
	if len(r.Gaps) != 2 || !r.Gaps[0].Explained || r.Gaps[1].Explained {
		t.Errorf("%+v", r.Gaps)
	}
}

func TestAnInterruptionOfTheSubscriptionIsNoGapOfTheGateway(t *testing.T) {
	c := NewChecker()
	check(t, c, message("g/a", "e", "1", ""))
	c.Interrupted()
	stored := message("g/a", "e", "1", "")
	stored.Retain = true // the broker sends what it stores to each new subscription
	r := check(t, c, stored, message("g/a", "e", "9", "8"), message("g/a", "e", "20", "15"))
	if len(r.Gaps) != 2 || !r.Gaps[0].Unseen || r.Gaps[1].Unseen || r.Duplicates != 0 || r.Interruptions != 1 {
		t.Errorf("%+v", r)
	}
}

func TestAChainThatBeginsAnewIsSaid(t *testing.T) {
	if r := feed(t, "a 1", "a 3<1", "a 9", "a 10<9"); r.Anew != 1 || len(r.Gaps) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestSeveralSamplesOfAMessage(t *testing.T) {
	batch := func(seqs string) *mqtt.Message {
		return &mqtt.Message{Topic: "g/a", Payload: []byte("a x=1"), User: []mqtt.UserProperty{{Name: "epoch", Value: "e"}, {Name: "seqs", Value: seqs}}}
	}
	r := check(t, NewChecker(), batch("1< 4 7"), batch("9<7 12"), batch("20<15 22<"))
	if r.Samples != 7 || len(r.Gaps) != 1 || r.Gaps[0].Missing != 15 || r.Anew != 1 {
		t.Errorf("%+v", r)
	}
	for _, bad := range []string{"", "x<", "1", "1<x", "1<2 y"} {
		if err := NewChecker().Add(batch(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestCompressedPayloads(t *testing.T) {
	for _, packing := range []format.Compression{format.Gzip, format.Zstd} {
		f, err := format.New(format.Options{Gateway: "g", Compression: packing, Batch: true})
		if err != nil {
			t.Fatal(err)
		}
		sample := adapters.Sample{Schema: &adapters.Schema{Device: "a", Points: []adapters.Point{{Name: "x"}}}, Readings: []adapters.Reading{{Value: adapters.IntValue(1)}}}
		var out format.Out
		if err := f.Append(&out, format.Item{Sample: &sample, Epoch: 7, Seq: 1}, format.Item{Sample: &sample, Epoch: 7, Seq: 4, Prev: 2, HasPrev: true}); err != nil {
			t.Fatal(err)
		}
		if r := check(t, NewChecker(), &out.Messages[0]); r.Samples != 2 || len(r.Gaps) != 1 {
			t.Errorf("%s: %+v", packing, r)
		}
	}
	for _, bad := range []string{"\x1f\x8b", "\x1f\x8b\b\x00\x00\x00\x00\x00\x00\x00cut", "\x28\xb5\x2f\xfdcut"} {
		if _, err := new(Reader).Read(&mqtt.Message{Payload: []byte(bad)}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestForeignMessagesAreCounted(t *testing.T) {
	c := NewChecker()
	for _, p := range []string{"", "71.2", "{}", "[1]", `{"epoch":"e"}`, `{"epoch":1,"seq":2}`, "online"} {
		if err := c.Add(&mqtt.Message{Topic: "x", Payload: []byte(p)}); err == nil {
			t.Errorf("%q was taken", p)
		}
	}
	if r := c.Report(); r.Foreign != 7 || r.Samples != 0 {
		t.Errorf("%+v", r)
	}
}
