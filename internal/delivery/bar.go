package delivery

import (
	"time"

	"gateway/adapters"
)

// A broker may refuse one topic for good, and one of 3.1.1 then hangs up on each of its samples: found
// one by one they would cost all others the connection. So a topic of which barAfter samples in a row
// were set aside is barred: its samples are set aside unsent, but for one now and then that finds out
// whether it is taken again.
const barAfter = 2

// A bar is what is known of a topic that was refused.
type bar struct {
	n     int // samples in a row that were set aside
	why   error
	until time.Time
	pause adapters.Backoff
}

type bars map[string]*bar

// topicOf returns the topic of a parcel, and whether it has just the one.
func (p *parcel) topicOf() (topic string, one bool) {
	if len(p.out.Messages) != 1 {
		return "", false
	}
	return p.out.Messages[0].Topic, true
}

// stops tells whether p is of a barred topic. One that comes when the time is over is let through; who
// has been suspected before is so from the start.
func (b bars) stops(p *parcel, now time.Time) bool {
	topic, one := p.topicOf()
	x := b[topic]
	if !one || x == nil || p.trial || p.items[0].letter != 0 {
		return false
	}
	if x.n >= barAfter && now.Before(x.until) {
		p.why = x.why
		return true
	}
	p.strikes = strikesToOut - 1
	if x.n >= barAfter {
		p.trial = true
		x.until = now.Add(x.pause.Max) // for those behind it, until it is known what becomes of it
	}
	return false
}

// refused notes that the sample in p is set aside, and returns the bar where there is one from now on.
func (b bars) refused(p *parcel, why error, now time.Time) *bar {
	topic, one := p.topicOf()
	if !one {
		return nil
	}
	x := b[topic]
	if x == nil {
		x = &bar{pause: adapters.Backoff{Min: time.Minute, Max: 10 * time.Minute}}
		b[topic] = x
	}
	if x.n++; x.n < barAfter {
		return nil
	}
	x.why, x.until = why, now.Add(x.pause.Fail())
	return x
}

// taken notes that p's topic is taken.
func (b bars) taken(p *parcel) {
	if len(b) == 0 {
		return
	}
	if topic, one := p.topicOf(); one {
		delete(b, topic)
	}
}
