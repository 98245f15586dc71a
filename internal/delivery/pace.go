package delivery

import "time"

// A pace is how many messages of the backlog are on their way at most. They never fill the window, so
// that a new sample finds room at once; and on a link that is thin, where a window of them takes seconds,
// they are fewer: a new sample waits behind all that was sent before it, in buffers that nobody can take
// it out of. Whether they queue up shows in how long their acknowledgements take beyond the shortest time
// seen on this connection.
type pace struct {
	most    int
	share   float64 // now: 1 to most
	base    time.Duration
	slowed  time.Time
	started bool
}

// tolerated is how much longer than the shortest time an acknowledgement may take.
const tolerated = 400 * time.Millisecond

// reset begins anew for a connection with a window of so many messages.
func (p *pace) reset(window int) {
	p.most = max(1, window*3/4)
	p.share, p.started = float64(p.most), false
}

// room tells whether one more may be sent.
func (p *pace) room(onTheirWay int) bool { return onTheirWay < int(p.share) }

// answered notes how long an acknowledgement took.
func (p *pace) answered(took time.Duration, now time.Time) {
	if !p.started || took < p.base {
		p.base, p.started = took, true
	}
	switch {
	case took <= p.base+tolerated:
		p.share = min(p.share+1/p.share, float64(p.most))
	case now.Sub(p.slowed) > took: // what was sent before the last step is no news
		p.share, p.slowed = max(1, p.share/2), now
	}
}
