package delivery

import "time"

// A pace is how many messages of the backlog are on their way at most. They never fill the window, so
// that a new sample finds room at once; and on a link that is thin, where a window of them takes seconds,
// they are fewer: a new sample waits behind all that was sent before it, in buffers that nobody can take
// it out of. Whether they queue up shows in how long their acknowledgements take beyond the shortest time
// seen on this connection, and in that it helps to send fewer: a broker that acknowledges once a second
// takes as long for one as for many.
//
// An acknowledgement is always answered by a message, a little above the share if need be. Mosquitto, as
// it is installed (set_tcp_nodelay false), writes the acknowledgements behind a first one only when TCP has
// acknowledged that one (RFC 896), and TCP puts that off by 40 ms where it has nothing else to send
// (RFC 1122, 4.2.3.2). So the acknowledgement of a live sample, which lets nothing of the backlog go, held
// up those of the backlog behind it.
type pace struct {
	most    int
	above   int     // how many more while something was acknowledged and nothing was sent since
	share   float64 // now: 1 to most
	base    time.Duration
	started bool
	slowed  time.Time     // when the share was last changed by a step
	before  time.Duration // how long an acknowledgement took then; 0: the step helped, or there was none
}

// tolerated is how much longer than the shortest time an acknowledgement may take.
const tolerated = 400 * time.Millisecond

// reset begins anew for a connection with a window of so many messages.
func (p *pace) reset(window int) {
	most := max(1, window*3/4)
	*p = pace{most: most, above: (window - most) / 2, share: float64(most)}
}

// room tells whether one more may be sent; heard, that something was acknowledged and nothing was sent
// since.
func (p *pace) room(onTheirWay int, heard bool) bool {
	room := int(p.share)
	if heard && room == p.most { // on a thin link it would be too much
		room += p.above
	}
	return onTheirWay < room
}

// answered notes how long an acknowledgement took.
func (p *pace) answered(took time.Duration, now time.Time) {
	if !p.started || took < p.base {
		p.base, p.started = took, true
	}
	if now.Sub(p.slowed) <= took {
		// It was sent before the last step, and says how long it took then.
		if p.before > 0 {
			p.before = max(p.before, took)
		}
		return
	}
	switch {
	case took <= p.base+tolerated:
		p.share, p.before = min(p.share+1/p.share, float64(p.most)), 0
	case p.before > 0 && took > p.before*3/4:
		// Fewer did not help: that is how long it takes.
		p.share, p.base, p.slowed, p.before = min(2*p.share, float64(p.most)), took, now, 0
	default:
		p.share, p.slowed, p.before = max(1, p.share/2), now, took
	}
}
