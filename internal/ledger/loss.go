package ledger

import (
	"slices"

	"gateway/adapters"
	"gateway/buffer"
)

// A Moment is a running time of a boot.
type Moment struct {
	Boot uint32           `json:"boot"`
	At   adapters.Instant `json:"at"`
}

// Before tells whether m was earlier.
func (m Moment) Before(other Moment) bool {
	return m.Boot < other.Boot || m.Boot == other.Boot && m.At < other.At
}

// A Loss is samples that a destination did not get.
type Loss struct {
	Destination string    `json:"destination,omitempty"` // empty: it reaches none, for it was never queued
	Device      string    `json:"device,omitempty"`      // where one device is concerned
	Reason      string    `json:"reason"`
	Count       uint64    `json:"count"`
	First       buffer.ID `json:"first,omitzero"` // of the range; zero where nothing was queued
	Last        buffer.ID `json:"last,omitzero"`
	Open        bool      `json:"open,omitempty"` // First on, nobody knows how many: what a power cut took
	From        Moment    `json:"from,omitzero"`  // when the samples were measured, at the earliest and
	To          Moment    `json:"to,omitzero"`    // at the latest; zero where not known
}

func (l *Loss) kin(x *Loss) bool {
	return l.Destination == x.Destination && l.Device == x.Device && l.Reason == x.Reason
}

// joins tells whether x and l lie side by side, without a gap that somebody could fall into. The
// sequence goes on from one epoch to the next, so a range may span several.
func (l *Loss) joins(x *Loss) bool {
	switch {
	case !l.kin(x) || l.Open || x.Open:
		return false
	case l.First.Seq == 0 || x.First.Seq == 0:
		return l.First.Seq == x.First.Seq
	}
	return x.First.Seq == l.Last.Seq+1 || x.Last.Seq+1 == l.First.Seq
}

// join makes l the range that holds both.
func (l *Loss) join(x *Loss) {
	l.Count += x.Count
	l.Open = l.Open || x.Open
	if x.First.Seq > 0 && (l.First.Seq == 0 || x.First.Seq < l.First.Seq) {
		l.First = x.First
	}
	if x.Last.Seq > l.Last.Seq {
		l.Last = x.Last
	}
	if (x.From != Moment{}) && (l.From == Moment{} || x.From.Before(l.From)) {
		l.From = x.From
	}
	if l.To.Before(x.To) {
		l.To = x.To
	}
}

// covers tells whether the record id is one of those lost.
func (l *Loss) covers(id buffer.ID) bool {
	switch {
	case l.First.Seq == 0 || id.Seq < l.First.Seq:
		return false
	case l.Open:
		return id.Epoch == l.First.Epoch
	}
	return id.Seq <= l.Last.Seq && (l.First.Epoch != l.Last.Epoch || id.Epoch == l.First.Epoch)
}

// holds tells whether every sample of x is one of l's. Of a range with gaps nobody can tell.
func (l *Loss) holds(x *Loss) bool {
	if !l.kin(x) || l.First.Seq == 0 || x.First.Seq == 0 || l.Open != x.Open {
		return false
	}
	if l.Open {
		return l.First == x.First
	}
	return l.Count == l.Last.Seq-l.First.Seq+1 && l.covers(x.First) && l.covers(x.Last)
}

// losses are ranges in the order in which they were noted.
type losses []Loss

// maxRanges is how many ranges of one kind are told apart: a storm of single losses must not fill the
// queue that it came from. Beyond it they are one range with the count inside.
const maxRanges = 20

func (l *losses) add(x Loss) {
	n, last := 0, -1
	for i := range *l {
		have := &(*l)[i]
		if have.joins(&x) {
			have.join(&x)
			return
		}
		if have.kin(&x) {
			n, last = n+1, i
		}
	}
	if n >= maxRanges {
		(*l)[last].join(&x)
		return
	}
	*l = append(*l, x)
}

// A record is a loss that was told, and the sample that tells it.
type record struct {
	Loss
	Record buffer.ID `json:"record"`
}

// maxTold is how many records of a destination are remembered.
const maxTold = 64

// remember keeps a record in mind as long as it may be lost itself. Of too many the two oldest
// become one, to be told again as a whole when the first of them is lost.
func (l *Ledger) remember(r record) {
	l.told = append(l.told, r)
	var of []int
	for i := range l.told {
		if l.told[i].Destination == r.Destination {
			of = append(of, i)
		}
	}
	if len(of) <= maxTold {
		return
	}
	drop := of[0]
	if a, b := &l.told[of[0]].Loss, &l.told[of[1]].Loss; a.joins(b) {
		a.join(b)
		drop = of[1]
	}
	l.told = slices.Delete(l.told, drop, drop+1)
}

// knows tells whether a loss of the queue was noted before.
func (l *Ledger) knows(x *Loss) bool {
	for i := range l.told {
		if l.told[i].holds(x) {
			return true
		}
	}
	holds := func(have Loss) bool { return have.holds(x) }
	return slices.ContainsFunc(l.untold, holds) || slices.ContainsFunc(l.offered, holds)
}

// untell returns what the records tell that are among the lost samples of x, for their destination
// will not hear of it otherwise; own is true where there is nothing else in x.
func (l *Ledger) untell(x *Loss) (retold losses, own bool) {
	l.told = slices.DeleteFunc(l.told, func(r record) bool {
		if r.Destination != x.Destination || !x.covers(r.Record) {
			return false
		}
		retold.add(r.Loss)
		return true
	})
	return retold, len(retold) > 0 && x.Count == 1 && !x.Open
}
