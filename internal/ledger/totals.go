package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

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

// Totals are the account over all runs of the gateway. What was delivered between the last writing
// of the file and a crash is missing in it; losses are also in the records.
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

// Watch makes a destination's counts part of the totals.
func (l *Ledger) Watch(destination string, counts func() Counts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sources[destination] = counts
}

// Totals returns the account up to now.
func (l *Ledger) Totals() Totals {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := newTotals()
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
	for name, counts := range l.sources {
		c, sum := counts(), t.destination(name)
		sum.Delivered += c.Delivered
		sum.Messages += c.Messages
		sum.Retransmitted += c.Retransmitted
		sum.Waiting = c.Waiting
	}
	return t
}

// JSON returns the totals as they are published.
func (t Totals) JSON() []byte {
	b, err := json.Marshal(t)
	if err != nil {
		panic(err) // maps of strings to numbers
	}
	return b
}

func (l *Ledger) save() error {
	if l.o.Path == "" {
		return nil
	}
	l.mu.Lock()
	news := l.unsaved
	l.unsaved = false // what is counted from here on is perhaps not in data
	l.mu.Unlock()
	data := l.Totals().JSON()
	if string(data) == l.saved {
		return nil
	}
	if err := atomicfile.Write(l.o.Path, data); err != nil {
		l.mu.Lock()
		l.unsaved = l.unsaved || news
		l.mu.Unlock()
		return fmt.Errorf("ledger: %w", err)
	}
	l.saved = string(data)
	return nil
}

func readTotals(path string) (Totals, error) {
	t := newTotals()
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		if err = json.Unmarshal(data, &t); err == nil && t.Version > totalsVersion {
			err = fmt.Errorf("written by a later version (%d)", t.Version)
		}
	}
	whole := t.Lost != nil && t.Destinations != nil
	for _, a := range t.Destinations {
		whole = whole && a != nil
	}
	if err != nil || !whole {
		err = errors.Join(err, os.Rename(path, path+".unreadable"))
		return newTotals(), fmt.Errorf("ledger: %s cannot be read, kept as %[1]s.unreadable and begun anew: %w", path, err)
	}
	return t, nil
}
