package gateway

import (
	"path/filepath"
	"time"

	"gateway/adapters"
	"gateway/buffer"
	"gateway/config"
	"gateway/internal/clock"
	"gateway/internal/ledger"
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

// queueLate is what the queue calls when samples arrived that it had told as lost: they were on their way when
// it dropped them.
func (g *Gateway) queueLate(destination string, why buffer.LossReason, n int64) {
	g.ledger.Late(destination, string(why), uint64(n))
}
