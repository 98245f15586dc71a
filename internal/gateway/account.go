package gateway

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"gateway/adapters"
	"gateway/buffer"
	"gateway/config"
	"gateway/internal/clock"
	"gateway/internal/format"
	"gateway/internal/ledger"
	"gateway/internal/report"
	"gateway/mqtt"
)

// openLedger makes the ledger and lets everybody who loses samples tell it. The writer must be there.
func (g *Gateway) openLedger() error {
	l, err := ledger.New(ledger.Options{
		Path: filepath.Join(g.o.Config.Gateway.Data, "account"), Sink: g.writer, Now: g.clock.Now,
		Time: func(m ledger.Moment) string {
			wall, state := g.clock.Wall(m.Boot, m.At)
			if state == clock.Unknown {
				return ""
			}
			return time.Unix(0, wall).UTC().Format("2006-01-02T15:04:05.000Z")
		},
		Logger: g.log,
	})
	if l == nil {
		return err
	}
	if err != nil {
		g.log.Warn("the account begins anew", "err", err)
	}
	g.ledger = l
	g.writer.lost = func(s *adapters.Sample, why string) {
		switch {
		case s.Schema.Device != config.ReservedDevice:
			at := ledger.Moment{Boot: g.clock.Boot(), At: s.Time}
			l.Lost(ledger.Loss{Device: s.Schema.Device, Reason: why, Count: 1, From: at, To: at})
		case why != ledger.Overflow: // of that the ledger knows, for it offered the sample
			l.NotQueued()
		}
	}
	g.writer.queued = func(id buffer.ID, s *adapters.Sample) {
		g.timeline.note(id.Seq, ledger.Moment{Boot: g.writer.boot, At: s.Time})
		if s.Schema.Device == config.ReservedDevice {
			l.Queued(id)
		}
		if g.o.Queued != nil {
			g.o.Queued(id, s)
		}
	}
	return nil
}

// note tells the ledger of a loss, and when the samples were measured.
func (g *Gateway) note(x ledger.Loss) {
	if x.First.Seq > 0 {
		x.From, x.To = g.timeline.span(x.First.Seq, max(x.First.Seq, x.Last.Seq))
	}
	g.ledger.Lost(x)
}

// lose notes a loss and makes that durable before whoever lost the samples forgets them.
func (g *Gateway) lose(x ledger.Loss) {
	g.note(x)
	if err := g.ledger.Keep(); err != nil {
		g.log.Warn("the account cannot be written; trying on", "err", err)
	}
}

// queueLost is what the queue calls when a destination will not get a range of samples.
func (g *Gateway) queueLost(l buffer.Loss) {
	if g.ledger != nil {
		g.lose(ledger.Loss{Destination: l.Consumer, Reason: string(l.Reason), Count: uint64(l.Count), First: l.First, Last: l.Last, Open: l.Open})
	}
}

// reportRules returns what the configuration says is worth reporting of each point.
func reportRules(says *config.Reporting) func(device, point string) report.Rule {
	if says == nil {
		return func(string, string) report.Rule { return report.Rule{} }
	}
	return func(device, point string) report.Rule { return reportRule(says.Of(device, point, format.Match)) }
}

func reportRule(c config.Report) report.Rule {
	r := report.Rule{OnChange: c.Deadband != nil}
	if c.Deadband != nil {
		r.Deadband, r.Percent = c.Deadband.Absolute, c.Deadband.Percent
	}
	if c.OnChange != nil {
		r.OnChange = *c.OnChange
	}
	if c.Heartbeat != nil {
		r.Heartbeat = *c.Heartbeat
	}
	if c.MinInterval != nil {
		r.MinInterval = *c.MinInterval
	}
	if c.Window != nil {
		r.Window = *c.Window
	}
	for _, a := range c.Aggregate {
		r.Aggregate = append(r.Aggregate, report.Func(a))
	}
	return r
}

// flushReports hands on the windows that are open when the buses have ended.
func (g *Gateway) flushReports(ctx context.Context) error {
	<-ctx.Done()
	g.filter.Flush()
	return nil
}

// How often retained states and totals are brought up to date.
const (
	statesEvery  = time.Second
	accountEvery = 10 * time.Second
)

// announce keeps the retained states of devices and the account up to date at every destination.
func (g *Gateway) announce(ctx context.Context) error {
	tick := time.NewTicker(statesEvery)
	defer tick.Stop()
	next := time.Now()
	for {
		for _, b := range g.buses {
			for _, d := range b.Status().Devices {
				if d.State != adapters.Unknown {
					g.announceState(d.Device, d.State.String())
				}
			}
		}
		if now := time.Now(); !now.Before(next) {
			next = now.Add(accountEvery)
			account := g.account()
			for _, d := range g.destinations {
				if d.announcer != nil {
					d.announcer.Set(account.Topic, string(account.Payload))
				}
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
		Topic:   g.o.Config.Gateway.ID + "/" + config.ReservedDevice + "/account",
		Payload: g.ledger.Totals().JSON(), QoS: mqtt.AtLeastOnce, Retain: true,
	}
}

// announceState says at the destinations that get a device's samples whether it answers.
func (g *Gateway) announceState(device, state string) {
	for _, d := range g.destinations {
		if d.announcer == nil {
			continue
		}
		if len(d.devices) == 0 || slices.ContainsFunc(d.devices, func(p string) bool { return format.Match(p, device) }) {
			d.announcer.Set(g.o.Config.Gateway.ID+"/"+device+"/state", state)
		}
	}
}
