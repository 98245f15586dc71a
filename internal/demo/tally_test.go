package demo

import "testing"

func TestTheAccountCountsWhatArrivedByIdentity(t *testing.T) {
	c := newTally()
	for _, m := range []struct{ topic, payload string }{
		{"demo/boiler", `{"epoch":"0a","seq":1,"values":{}}`},
		{"demo/boiler", `{"epoch":"0a","seq":2,"values":{}}`},
		{"demo/boiler", `{"epoch":"0a","seq":2,"values":{}}`}, // again
		{"demo/meter", `{"epoch":"0a","seq":5,"values":{}}`},
		{"demo/meter", `{"epoch":"0a","seq":4,"values":{}}`}, // out of order
		{"demo/boiler", `{"epoch":"0b","seq":3,"values":{}}`},
		{"demo/boiler", `hello`},
	} {
		c.add(m.topic, []byte(m.payload))
	}
	got := c.against([]identity{{10, 1}, {10, 2}, {10, 4}, {10, 5}, {11, 3}, {11, 6}})
	want := count{Delivered: 5, Duplicates: 1, Disorder: 1, Foreign: 1, Lost: 1}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
