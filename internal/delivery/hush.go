package delivery

import (
	"time"

	"gateway/adapters"
)

// There are brokers that hang up on a topic that is not allowed. A hush is for what goes beside the samples:
// when connections break again and again with such messages on their way and none acknowledged, it keeps
// them back for a while, so that samples get through.
type hush struct {
	taken  bool // one was acknowledged on this connection
	breaks int  // connections in a row that broke with some on their way and none acknowledged
	pause  adapters.Backoff
	until  time.Time
}

// breaksToQuiet is after how many such connections they are kept back.
const breaksToQuiet = 3

func newHush() hush {
	return hush{pause: adapters.Backoff{Min: retryAnnouncement, Max: 10 * retryAnnouncement}}
}

func (h *hush) quiet(now time.Time) bool { return now.Before(h.until) }

func (h *hush) connected() { h.taken = false }

func (h *hush) acknowledged() {
	h.taken, h.breaks = true, 0
	h.pause.Reset()
}

// broke notes that a connection broke, and whether messages were on their way. It returns for how long they
// are kept back from now on; 0: they are not.
func (h *hush) broke(flying bool, now time.Time) (pause time.Duration) {
	if !flying || h.taken {
		return 0
	}
	if h.breaks++; h.breaks < breaksToQuiet {
		return 0
	}
	pause = h.pause.Fail()
	h.until = now.Add(pause)
	return pause
}
