package load

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"gateway/internal/verify"
	"gateway/mqtt"
	"gateway/mqtt/client"
)

// A Subscriber counts what arrives at a broker: by device which counts of a Meter, by topic what
// verify finds. It reads the formats JSON and CBOR, single or in arrays, compressed or not, and the format of
// one message per reading.
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
	reader  verify.Reader
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
	limit, cancel := context.WithTimeout(ctx, 2*time.Minute)
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

func (s *Subscriber) take(m *mqtt.Message, gateway string) {
	now := time.Now()
	below, ok := strings.CutPrefix(m.Topic, gateway+"/")
	if !ok {
		return
	}
	device, fresh := s.count(m, below, now)
	if s.Arrived != nil {
		for _, n := range fresh {
			s.Arrived(device, n, now)
		}
	}
}

// count returns which of the counts in a message came for the first time, and from which device. below is the
// topic below the gateway's id.
func (s *Subscriber) count(m *mqtt.Message, below string, now time.Time) (device string, fresh []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	device, bare := strings.CutSuffix(below, "/n")
	switch {
	case device == "gateway" || strings.Contains(device, "/schema/"):
		_, _ = s.reader.Read(m)
		_ = s.checker.Add(m) // loss records explain gaps, schemas name values; other announcements are not samples
		return "", nil
	case strings.ContainsRune(device, '/'):
		return "", nil
	}
	var counts []int
	if bare {
		n, err := strconv.Atoi(string(m.Payload))
		if err != nil {
			return "", nil
		}
		counts = append(counts, n)
	} else {
		samples, err := s.reader.Read(m)
		if err != nil {
			return "", nil // it shows as a missing count
		}
		for _, x := range samples {
			if n, ok := x.Values["n"].(float64); ok {
				counts = append(counts, int(n))
			}
		}
	}
	_ = s.checker.Add(m)
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
	for _, n := range counts {
		if c[n]++; c[n] == 1 {
			fresh = append(fresh, n)
		}
	}
	return device, fresh
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
