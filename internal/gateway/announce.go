package gateway

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"gateway/adapters"
	"gateway/internal/format"
	"gateway/mqtt"
)

// How often retained states and totals are brought up to date; how the buses fare is told for the first
// time once they have had a moment.
const (
	statesEvery  = time.Second
	accountEvery = 10 * time.Second
	busesFirst   = 10 * time.Second
	busesEvery   = 5 * time.Minute
)

// announce keeps what is retained beside the samples up to date at every destination: the states of
// devices, the account, and how each bus fares.
func (g *Gateway) announce(ctx context.Context) error {
	tick := time.NewTicker(statesEvery)
	defer tick.Stop()
	account, buses := time.Now(), time.Now().Add(busesFirst)
	for {
		for _, b := range g.buses {
			for _, d := range b.Status().Devices {
				if d.State != adapters.Unknown {
					g.announceState(d.Device, d.State.String())
				}
			}
		}
		g.cleared()
		now := time.Now()
		if !now.Before(account) {
			account = now.Add(accountEvery)
			totals := g.account()
			for _, d := range g.destinations {
				if d.announcer != nil {
					d.announcer.Set(totals.Topic, string(totals.Payload))
				}
			}
		}
		if !now.Before(buses) {
			buses = now.Add(busesEvery)
			for _, b := range g.buses {
				g.announceBus(b.Status())
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// account is the retained message of the totals.
func (g *Gateway) account() mqtt.Message {
	return mqtt.Message{
		Topic:   g.ownTopic("account"),
		Payload: g.ledger.Totals().JSON(), QoS: mqtt.AtLeastOnce, Retain: true,
	}
}

// announceState says at the destinations that get a device's samples whether it answers.
func (g *Gateway) announceState(device, state string) {
	for _, d := range g.destinations {
		if d.announcer == nil {
			continue
		}
		if d.gets(device) {
			d.announcer.Set(g.stateTopic(device), state)
		}
	}
}

// announceBus says at the destinations that get samples from a bus how it fares.
func (g *Gateway) announceBus(s adapters.BusStatus) {
	for _, d := range g.destinations {
		if d.announcer == nil {
			continue
		}
		if told := busMessage(s, d.gets); len(told.Devices) > 0 {
			d.announcer.Set(g.busTopic(s.Bus), told.json())
		}
	}
}

// gets tells whether a device's samples go to the destination.
func (d *destination) gets(device string) bool {
	return len(d.devices) == 0 || slices.ContainsFunc(d.devices, func(p string) bool { return format.Match(p, device) })
}

// A busReport is how a bus fares, as it is published: counts are since the start of the gateway.
type busReport struct {
	Version    int                     `json:"version"`
	Open       bool                    `json:"open"`
	Error      string                  `json:"error,omitempty"`
	Opened     uint64                  `json:"opened"`
	Requests   uint64                  `json:"requests"`
	Unanswered uint64                  `json:"unanswered"`
	Damaged    uint64                  `json:"damaged"`
	Late       uint64                  `json:"late"`
	Stray      uint64                  `json:"stray_bytes"`
	Out        uint64                  `json:"bytes_out"`
	In         uint64                  `json:"bytes_in"`
	Devices    map[string]deviceReport `json:"devices"`
}

type deviceReport struct {
	State    string `json:"state"`
	Error    string `json:"error,omitempty"`
	Polls    uint64 `json:"polls"`
	Failures uint64 `json:"failures"`
	Overruns uint64 `json:"overruns"`
}

const busReportVersion = 1

// busMessage reports on a bus and those of its devices that of wants.
func busMessage(s adapters.BusStatus, of func(device string) bool) busReport {
	t := s.Traffic
	r := busReport{
		Version: busReportVersion, Open: s.Open, Error: s.Err, Opened: t.Opened, Requests: t.Exchanges, Unanswered: t.Unanswered,
		Damaged: t.Damaged, Late: t.Late, Stray: t.Stray, Out: t.Out, In: t.In, Devices: map[string]deviceReport{},
	}
	for _, d := range s.Devices {
		if of(d.Device) {
			r.Devices[d.Device] = deviceReport{d.State.String(), d.Err, d.Polls, d.Failures, d.Overruns}
		}
	}
	return r
}

func (r busReport) json() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // maps of strings to numbers and texts
	}
	return string(b)
}
