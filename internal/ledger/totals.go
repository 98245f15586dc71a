package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"gateway/internal/atomicfile"
)

// Counts is what a destination delivered in this run.
type Counts struct {
	Delivered     uint64 `json:"delivered"`     // samples
	Messages      uint64 `json:"messages"`      // acknowledged
	Retransmitted uint64 `json:"retransmitted"` // messages that may have arrived twice
	Waiting       int64  `json:"waiting"`       // samples, now
}

// A Destination's account over all runs.
type Account struct {
	Counts
	Lost map[string]uint64 `json:"lost"` // samples by reason
}

// Totals are the account over all runs of the gateway. No loss is ever missing in it, nor what was delivered
// before a crash: that the queue counts with its cursors. Of Retransmitted the last minute may be.
type Totals struct {
	Version      int                 `json:"version"`
	Lost         map[string]uint64   `json:"lost"` // samples that were never queued, by reason
	Destinations map[string]*Account `json:"destinations"`
}

const totalsVersion = 1

func newTotals() Totals {
	return Totals{Version: totalsVersion, Lost: map[string]uint64{}, Destinations: map[string]*Account{}}
}

func (t *Totals) destination(name string) *Account {
	a := t.Destinations[name]
	if a == nil {
		a = &Account{}
		t.Destinations[name] = a
	}
	if a.Lost == nil {
		a.Lost = map[string]uint64{}
	}
	return a
}

func (t *Totals) add(x Loss) {
	lost := t.Lost
	if x.Destination != "" {
		lost = t.destination(x.Destination).Lost
	}
	lost[x.Reason] += x.Count
}

// A Tally is what a queue says that it delivered to a destination, in all runs.
type Tally struct {
	Delivered uint64 `json:"delivered"`
	Messages  uint64 `json:"messages"`
}

// source is where the counts of this run come from.
type source struct {
	found  Tally // at the start of it
	counts func() Counts
}

// Watch makes a destination's counts of this run part of the totals. Found is what the queue had counted
// before: a crash may have come after that was last written to the file of the totals, and the cursor that
// the queue keeps it with may be a little behind what is there. A queue that knows of nothing was begun anew.
func (l *Ledger) Watch(destination string, found Tally, counts func() Counts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sources[destination] = source{found, counts}
	if known := l.tallies[destination]; found != (Tally{}) {
		a := l.base.destination(destination)
		a.Delivered += found.Delivered - known.Delivered
		a.Messages += found.Messages - known.Messages
	}
}

// Totals returns the account up to now.
func (l *Ledger) Totals() Totals {
	t, _ := l.totals()
	return t
}

// totals returns the account, and the queue's tallies that it contains.
func (l *Ledger) totals() (Totals, map[string]Tally) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, tallies := newTotals(), map[string]Tally{}
	for _, part := range []*Totals{&l.base, &l.lost} {
		for reason, n := range part.Lost {
			t.Lost[reason] += n
		}
		for name, a := range part.Destinations {
			sum := t.destination(name)
			sum.Delivered += a.Delivered
			sum.Messages += a.Messages
			sum.Retransmitted += a.Retransmitted
			for reason, n := range a.Lost {
				sum.Lost[reason] += n
			}
		}
	}
	for name, s := range l.sources {
		c, sum := s.counts(), t.destination(name)
		sum.Delivered += c.Delivered
		sum.Messages += c.Messages
		sum.Retransmitted += c.Retransmitted
		sum.Waiting = c.Waiting
		tallies[name] = Tally{s.found.Delivered + c.Delivered, s.found.Messages + c.Messages}
	}
	return t, tallies
}

// JSON returns the totals as they are published.
func (t Totals) JSON() []byte {
	b, err := json.Marshal(t)
	if err != nil {
		panic(err) // maps of strings to numbers
	}
	return b
}

// content is what the file holds: the totals, the tallies of the queue that are in them, and what remains
// to be told.
type content struct {
	Totals
	Tallies map[string]Tally `json:"tallies,omitempty"`
	Untold  losses           `json:"untold,omitempty"`
	Told    []record         `json:"told,omitempty"`
}

// Keep writes the file where something changed. What was noted before it is called is durable when it
// returns nil.
func (l *Ledger) Keep() error {
	if l.o.Path == "" {
		return nil
	}
	l.saving.Lock()
	defer l.saving.Unlock()
	totals, tallies := l.totals()
	l.mu.Lock()
	news := l.unsaved
	l.unsaved = false
	// What became of the records on offer is not known: rather twice than never.
	c := content{totals, tallies, append(slices.Clone(losses(l.offered)), l.untold...), l.told}
	data, err := json.Marshal(&c)
	l.mu.Unlock()
	if err == nil && string(data) == l.saved {
		return nil
	}
	if err == nil {
		err = atomicfile.Write(l.o.Path, data)
	}
	if err != nil {
		l.mu.Lock()
		l.unsaved = l.unsaved || news
		l.mu.Unlock()
		return fmt.Errorf("ledger: %w", err)
	}
	l.saved = string(data)
	return nil
}

func readFile(path string) (content, error) {
	c := content{Totals: newTotals()}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		if err = json.Unmarshal(data, &c); err == nil && c.Version > totalsVersion {
			err = fmt.Errorf("written by a later version (%d)", c.Version)
		}
	}
	whole := c.Lost != nil && c.Destinations != nil
	for _, a := range c.Destinations {
		whole = whole && a != nil
	}
	if err != nil || !whole {
		err = errors.Join(err, os.Rename(path, path+".unreadable"))
		return content{Totals: newTotals()}, fmt.Errorf("ledger: %s cannot be read, kept as %[1]s.unreadable and begun anew: %w", path, err)
	}
	return c, nil
}
