package verify

import (
	"fmt"
	"strings"
	"testing"

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
		"g/gateway": `[{"epoch":"e","seq":10,"values":{"event":"loss","first":3,"last":8}},{"epoch":"e","seq":36,"prev":10,"values":{"event":"loss","first":30,"open":true}}]`,
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
