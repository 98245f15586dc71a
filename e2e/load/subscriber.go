package load

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"gateway/internal/verify"
	"gateway/mqtt"
	"gateway/mqtt/client"
)

// A Subscriber counts what arrives at a broker: by device which counts of a Meter, by topic what
// verify finds. It reads the JSON format, single or in arrays, compressed or not, and the format of one
// message per reading.
type Subscriber struct {
	// Arrived, if set, is told of each count when it comes for the first time.
	Arrived func(device string, count int, at time.Time)

	cl   *client.Client
	stop context.CancelFunc
	done chan error
	once sync.Once

	mu      sync.Mutex
	counts  map[string]map[int]int // times that each count of a device came
	checker *verify.Checker
	bytes   int64
	first   time.Time
	last    time.Time
}

// NewSubscriber subscribes to everything below the gateway's id, and keeps at it until Close.
func NewSubscriber(url, clientID, gateway string, arrived func(device string, count int, at time.Time)) (*Subscriber, error) {
	s := &Subscriber{Arrived: arrived, counts: map[string]map[int]int{}, checker: verify.NewChecker(), done: make(chan error, 1)}
	var err error
	s.cl, err = client.New(client.Options{
		URLs: []string{url}, ClientID: clientID, SessionExpiry: time.Hour, ReceiveMaximum: 1024,
		Backoff: client.Backoff{Min: 50 * time.Millisecond, Max: 200 * time.Millisecond},
		Handler: func(m mqtt.Message) { s.take(&m, gateway) },
	})
	if err != nil {
		return nil, err
	}
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	go func() { s.done <- s.cl.Run(ctx) }()
	limit, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := s.cl.Subscribe(limit, mqtt.Subscription{Filter: gateway + "/#", QoS: mqtt.AtLeastOnce}); err != nil {
		s.Close()
		return nil, fmt.Errorf("load: subscribing at %s: %w", url, err)
	}
	return s, nil
}

// Close ends the subscription's connection.
func (s *Subscriber) Close() {
	s.once.Do(func() {
		s.stop()
		<-s.done
	})
}

type sample struct {
	Values map[string]any `json:"values"`
}

func (s *Subscriber) take(m *mqtt.Message, gateway string) {
	now := time.Now()
	device, ok := strings.CutPrefix(m.Topic, gateway+"/")
	payload := m.Payload
	if bare, one := strings.CutSuffix(device, "/n"); one {
		device, payload = bare, []byte(`{"values":{"n":`+string(payload)+`}}`)
	}
	if !ok || strings.ContainsRune(device, '/') || device == "gateway" {
		if device == "gateway" {
			s.mu.Lock()
			_ = s.checker.Add(m) // loss records explain gaps; other announcements are not samples
			s.mu.Unlock()
		}
		return
	}
	payload = verify.Unpack(payload)
	var list []sample
	if strings.HasPrefix(string(payload), "[") {
		if json.Unmarshal(payload, &list) != nil {
			return
		}
	} else {
		var one sample
		if json.Unmarshal(payload, &one) != nil {
			return
		}
		list = append(list, one)
	}
	var fresh []int
	s.mu.Lock()
	_ = s.checker.Add(m) // what is no sample shows as a missing count
	s.bytes += int64(len(m.Payload))
	if s.first.IsZero() {
		s.first = now
	}
	s.last = now
	c := s.counts[device]
	if c == nil {
		c = map[int]int{}
		s.counts[device] = c
	}
	for _, x := range list {
		n, ok := x.Values["n"].(float64)
		if !ok {
			continue
		}
		if c[int(n)]++; c[int(n)] == 1 {
			fresh = append(fresh, int(n))
		}
	}
	s.mu.Unlock()
	if s.Arrived != nil {
		for _, n := range fresh {
			s.Arrived(device, n, now)
		}
	}
}

// Report returns what verify found.
func (s *Subscriber) Report() verify.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checker.Report()
}

// Tally returns how many of the counts 1 to n of a device came, how many came again, and when the
// first and the last message came.
func (s *Subscriber) Tally(device string, n int) (came, again int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 1; i <= n; i++ {
		if k := s.counts[device][i]; k > 0 {
			came++
			again += k - 1
		}
	}
	return came, again
}

// Came returns how many different counts came in all.
func (s *Subscriber) Came() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.counts {
		n += len(c)
	}
	return n
}

// Span returns when the first and the last sample came.
func (s *Subscriber) Span() (first, last time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first, s.last
}
