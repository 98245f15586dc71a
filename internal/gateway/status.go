package gateway

import (
	"fmt"
	"slices"

	"gateway/adapters"
	"gateway/buffer"
	"gateway/internal/delivery"
)

// Status is how the gateway fares at one moment.
type Status struct {
	Buses        []adapters.BusStatus
	Queue        buffer.Stats
	Destinations []delivery.Status
	Listening    []error // why the local broker does not listen where it should
}

// Status returns how the gateway fares. It may be called at any time while Run runs.
func (g *Gateway) Status() Status {
	s := Status{Queue: g.queue.Stats()}
	if g.broker != nil {
		s.Listening = slices.DeleteFunc(g.broker.Faults(), func(err error) bool { return err == nil })
	}
	for _, b := range g.buses {
		s.Buses = append(s.Buses, b.Status())
	}
	for _, d := range g.destinations {
		s.Destinations = append(s.Destinations, d.Status())
	}
	return s
}

// String is the status in a line, for `systemctl status`: how much works, and what is waited for.
func (s Status) String() string {
	var devices, offline int
	for _, b := range s.Buses {
		for _, d := range b.Devices {
			devices++
			if d.State == adapters.Offline {
				offline++
			}
		}
	}
	text := count(devices, "device")
	if offline > 0 {
		text += fmt.Sprintf(" (%d offline)", offline)
	}
	for _, b := range s.Buses {
		if !b.Open && b.Err != "" {
			text += fmt.Sprintf("; bus %s: %s", b.Bus, b.Err)
		}
	}
	for _, d := range s.Destinations {
		text += fmt.Sprintf("; %s: %s, %d waiting", d.Name, d.State, d.Waiting())
		if d.State != delivery.Delivering && d.LastError != "" {
			text += fmt.Sprintf(" (%s)", d.LastError)
		}
	}
	for _, err := range s.Listening {
		text += "; " + err.Error()
	}
	if s.Queue.Failing != nil {
		text += "; the disk takes nothing: readings are kept in memory"
	}
	return text
}
