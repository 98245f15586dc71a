package gateway

import (
	"errors"
	"testing"

	"gateway/adapters"
	"gateway/buffer"
	"gateway/internal/delivery"
)

func TestStatusSaysHowMuchWorksAndWhatIsWaitedFor(t *testing.T) {
	for want, s := range map[string]Status{
		"0 devices": {},
		"2 devices (1 offline); bus scale-port: port: /dev/ttyUSB7: not there; local: delivering, 0 waiting; cloud: offline, 7 waiting (no such host)": {
			Buses: []adapters.BusStatus{
				{Bus: "meters", Open: true, Devices: []adapters.DeviceStatus{{State: adapters.Online}}},
				{Bus: "scale-port", Err: "port: /dev/ttyUSB7: not there", Devices: []adapters.DeviceStatus{{State: adapters.Offline}}},
			},
			Destinations: []delivery.Status{
				{Name: "local", State: delivery.Delivering, LastError: "of long ago"},
				{Name: "cloud", State: delivery.Offline, Live: 3, Backfill: 4, LastError: "no such host"},
			},
		},
		"0 devices; broker: 127.0.0.1:1883 is taken; the disk takes nothing: readings are kept in memory": {
			Queue:     buffer.Stats{Failing: errors.New("no space")},
			Listening: []error{errors.New("broker: 127.0.0.1:1883 is taken")},
		},
	} {
		if got := s.String(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
