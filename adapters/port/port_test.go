package port_test

import (
	"strings"
	"testing"

	"gateway/adapters/port"
)

func TestImpossibleSettingsAreNamed(t *testing.T) {
	low := false
	for _, c := range []struct {
		config port.Config
		want   string
	}{
		{port.Config{}, "neither a path nor a USB identity"},
		{port.Config{Name: "a", USB: port.USB{Vendor: "0403"}}, "give one"},
		{port.Config{Name: "a", Baud: -1}, "a rate is positive"},
		{port.Config{Name: "a", DataBits: 9}, "5 to 8"},
		{port.Config{Name: "a", Parity: "strange"}, "none, odd, even, mark or space"},
		{port.Config{Name: "a", StopBits: 3}, "1, 1.5 or 2"},
		{port.Config{Name: "a", Flow: "hope"}, "none, rts/cts or xon/xoff"},
		{port.Config{Name: "a", Flow: port.FlowRTSCTS, RTS: &low}, "while flow control moves it"},
	} {
		if err := c.config.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.config, err, c.want)
		}
	}
	good := port.Config{Name: "a", Baud: 123456, DataBits: 7, Parity: port.ParityEven, StopBits: 2}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
}
