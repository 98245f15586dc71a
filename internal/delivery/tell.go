package delivery

import (
	"context"
	"errors"
	"time"

	"gateway/mqtt"
)

// A teller knows which schemas a broker has been told. Some formats publish the names that a sample only
// numbers in a message of their own, and whoever gets the sample must be able to know them: so each goes out
// before the first sample that refers to it, anew for each session, for the broker may be another one or have
// forgotten, and now and then within one.
//
// A schema that is refused holds up no sample: it may be published at any time later, and then all samples
// can be read.
type teller struct {
	tellings map[string]*telling // by topic, which names the content as well
	session  int                 // the one that there is, counted from 1
	url      string              // where it is
	passing  bool                // this broker retains nothing
	hush     hush
}

// A telling is what became of one schema.
type telling struct {
	message  *mqtt.Message
	session  int       // in which it was published last; 0: in none
	next     time.Time // when it is to be published anew in the same session
	flying   bool      // handed to the publisher, which has not said what became of it
	retained bool      // as it was published last
	refused  bool      // likewise
}

// How long a broker is taken to remember a schema: it may lose what it retains, and what it does not retain
// is news to each subscriber that comes.
const (
	remembersRetained = 24 * time.Hour
	remembersPassing  = 10 * time.Minute
)

// maxTellings bounds what is remembered: as many schemas as a backlog may span.
const maxTellings = 4096

func newTeller() teller {
	return teller{tellings: map[string]*telling{}, session: 1, hush: newHush()}
}

func (t *teller) of(m *mqtt.Message) *telling {
	x := t.tellings[m.Topic]
	if x == nil {
		if len(t.tellings) >= maxTellings {
			clear(t.tellings)
		}
		x = &telling{message: m}
		t.tellings[m.Topic] = x
	}
	return x
}

// due returns the message to publish where x is to be told now, and notes that it is.
func (t *teller) due(x *telling, now time.Time) *mqtt.Message {
	if x.flying || x.session == t.session && now.Before(x.next) || t.hush.quiet(now) {
		return nil
	}
	m := *x.message
	m.Retain = m.Retain && !t.passing
	x.flying, x.retained, x.session, x.next = true, m.Retain, t.session, now.Add(remembersPassing)
	if m.Retain {
		x.next = now.Add(remembersRetained)
	}
	return &m
}

// answer notes what became of a telling, and tells whether it is refused now and was not before.
func (t *teller) answer(x *telling, err error, now time.Time) (refused bool) {
	x.flying = false
	var reason *mqtt.ReasonError
	switch {
	case err == nil:
		x.refused = false
		t.hush.acknowledged()
	case !errors.As(err, &reason): // given back
		x.session = 0
	case reason.Code == mqtt.RetainNotSupported && x.retained: // it was on its way when another broker took over, or none has said so
		t.passing, x.session = true, 0
	default:
		x.next = now.Add(retryAnnouncement)
		refused, x.refused = !x.refused, true
	}
	return refused
}

// link notes that a connection was made.
func (t *teller) link(l *Link) {
	t.hush.connected()
	t.passing = l.RetainsNothing
	if !l.Resumed || l.URL != t.url {
		t.session++
	}
	t.url = l.URL
}

// broke notes that the connection broke. It returns for how long nothing is told from now on, because that
// seems to be why.
func (t *teller) broke(now time.Time) (pause time.Duration) {
	flying := false
	for _, x := range t.tellings {
		flying = flying || x.flying
	}
	return t.hush.broke(flying, now)
}

// need adds to what must be told before p is sent.
func (p *parcel) need(x *telling) {
	if n := len(p.needs); n == 0 || p.needs[n-1] != x { // samples that share a message mostly share a schema
		p.needs = append(p.needs, x)
	}
}

// tell publishes what must be told before p is sent.
func (d *Destination) tell(ctx context.Context, p *parcel) {
	now := time.Now()
	for _, x := range p.needs {
		m := d.teller.due(x, now)
		if m == nil {
			continue
		}
		d.total.take(1)
		d.bytes.take(len(m.Topic) + len(m.Payload))
		if err := d.o.Publisher.Publish(ctx, m, func(err error) { d.post(event{told: x, err: err}) }); err != nil {
			d.post(event{told: x, err: notTried(ctx, err)})
		}
	}
}

// told notes the answer to a telling.
func (d *Destination) told(x *telling, err error, now time.Time) {
	if d.teller.answer(x, err, now) {
		d.log.Warn("a schema is refused: who has not got it cannot read the samples that refer to it, which are sent all the same; trying on",
			"topic", x.message.Topic, "err", err, "retry_in", retryAnnouncement)
	}
}

// broke notes that the connection broke. Where that seems to be for the schemas that are on their way, they
// are taken back: the client would send them again on each connection.
func (d *Destination) broke(now time.Time) {
	pause := d.teller.broke(now)
	if pause == 0 {
		return
	}
	d.log.Warn("connections break while schemas are published; trying without them. Where the broker does not allow retained messages set retain_schemas = false",
		"retry_in", pause.Round(time.Second))
	if wd, ok := d.o.Publisher.(Withdrawer); ok {
		wd.Withdraw()
	}
}
