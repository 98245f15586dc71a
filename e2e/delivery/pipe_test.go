package delivery

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gateway/adapters"
	"gateway/buffer"
	"gateway/e2e/load"
	"gateway/e2e/rig"
	"gateway/internal/clock"
	"gateway/internal/delivery"
	"gateway/internal/format"
	"gateway/internal/sample"
	"gateway/mqtt"
	"gateway/mqtt/client"
)

// The full length of the issue: go test ./delivery -run Live -backlog 1000000
var backlog = flag.Int("backlog", 50_000, "how many samples wait when the broker returns")

var drops = flag.Int("drops", 1000, "how often the connection is dropped")

// A pipe is the gateway's way from the queue to a broker, without sensors.
type pipe struct {
	t     *testing.T
	queue *buffer.Queue
	d     *delivery.Destination
	last  map[string]uint64
	dicts map[string]*buffer.Dict
	boot  uint32
	clk   *clock.Clock
	n     map[string]int
}

// newPipe opens a queue and delivers it to urls with a window.
func newPipe(t *testing.T, window int, order delivery.Order, urls ...string) *pipe {
	t.Helper()
	dir := t.TempDir()
	q, err := buffer.Open(buffer.Options{Dir: filepath.Join(dir, "queue"), MaxBytes: 1 << 30, SyncWindow: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	clk, err := clock.Open(clock.Options{Dir: dir, Trust: true})
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := q.Consumer("cloud", buffer.Oldest())
	if err != nil {
		t.Fatal(err)
	}
	p := &pipe{t: t, queue: q, last: map[string]uint64{}, dicts: map[string]*buffer.Dict{}, boot: clk.Boot(), clk: clk, n: map[string]int{}}
	cl, err := client.New(client.Options{
		URLs: urls, ClientID: fmt.Sprintf("plant-cloud-%d", rand.Uint32()), Backoff: client.Backoff{Min: time.Millisecond, Max: 20 * time.Millisecond},
		OnState: func(s client.State) {
			p.d.Link(delivery.Link{Connected: s.Connected, URL: s.URL, Window: int(s.ReceiveMaximum), Err: s.Err, RetryIn: s.RetryIn})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := format.New(format.Options{Gateway: "plant", QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	p.d, err = delivery.New(delivery.Options{Name: "cloud", Source: consumer, Publisher: cl, Formatter: f, Clock: clk, Window: window, Order: order})
	if err != nil {
		t.Fatal(err)
	}
	p.d.Link(delivery.Link{Connected: false})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 3)
	for _, run := range []func(context.Context) error{q.Run, cl.Run, p.d.Run} {
		go func() { ended <- run(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		for range 3 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// put queues the next sample of a device: twenty readings, of which n counts.
func (p *pipe) put(device string) {
	p.t.Helper()
	r := sample.Record{Boot: p.boot}
	r.Sample.Time = p.clk.Now()
	r.Prev, r.HasPrev = p.last[device], p.last[device] > 0
	p.n[device]++
	r.Sample.Readings = append(r.Sample.Readings, adapters.Reading{Value: adapters.IntValue(int64(p.n[device]))})
	for i := 1; i < 20; i++ {
		r.Sample.Readings = append(r.Sample.Readings, adapters.Reading{Point: i, Value: adapters.FloatValue(float64(p.n[device]%1000+i) / 10)})
	}
	if p.dicts[device] == nil {
		s := &adapters.Schema{Device: device, Points: []adapters.Point{{Name: "n"}}}
		for i := 1; i < 20; i++ {
			s.Points = append(s.Points, adapters.Point{Name: fmt.Sprintf("r%d", i)})
		}
		blob := sample.EncodeSchema(s)
		p.dicts[device] = &buffer.Dict{Hash: blob.Hash, Data: blob.Data}
	}
	id, err := p.queue.Append(sample.Append(nil, &r), p.dicts[device])
	if err != nil {
		p.t.Fatal(err)
	}
	p.last[device] = id.Seq
}

// putPairs queues n samples of each of two devices, over n milliseconds at least.
func (p *pipe) putPairs(n int) {
	p.t.Helper()
	for range n {
		p.put("a")
		p.put("b")
		time.Sleep(time.Millisecond)
	}
}

func (p *pipe) drain(limit time.Duration) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := p.d.Drain(ctx); err != nil {
		p.t.Fatalf("not delivered within %v: %+v", limit, p.d.Status())
	}
}

// whole fails the test where a sample is missing.
func (p *pipe) whole(s *load.Subscriber) {
	p.t.Helper()
	total := 0
	for _, n := range p.n {
		total += n
	}
	rig.Eventually(p.t, rig.Patience, fmt.Sprintf("arrival of %d samples", total), func() bool { return s.Came() >= total })
	r := s.Report()
	p.t.Log(&r)
	if len(r.Gaps) > 0 {
		p.t.Errorf("gaps: %+v", r.Gaps)
	}
	for device, n := range p.n {
		if came, _ := s.Tally(device, n); came != n {
			p.t.Errorf("%s: %d of %d came", device, came, n)
		}
	}
}

func proxyTo(t *testing.T, url string) *load.Proxy {
	t.Helper()
	p, err := load.NewProxy(strings.TrimPrefix(url, "mqtt://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestAThousandDropsOfTheConnectionLoseNothing(t *testing.T) {
	mosquitto := rig.NewMosquitto(t, "log_type none")
	s := subscribe(t, mosquitto.URL())
	proxy := proxyTo(t, mosquitto.URL())
	p := newPipe(t, 64, delivery.OldestFirst, proxy.URL())
	began := time.Now()
	for dropped := 0; dropped < *drops; {
		for range 20 {
			p.put("a")
			p.put("b")
		}
		before := proxy.Accepted()
		time.Sleep(time.Duration(rand.IntN(12)) * time.Millisecond)
		proxy.Drop(dropped%2 == 0)
		rig.Eventually(t, rig.Patience, "new connection", func() bool { return proxy.Accepted() > before })
		dropped++
	}
	p.drain(rig.Patience)
	st := p.d.Status()
	t.Logf("%d drops in %v, %d connections, %d messages may have come twice, limit %d", *drops, time.Since(began).Round(time.Second), proxy.Accepted(), st.Retransmitted, st.Limit)
	p.whole(s)
	if r := s.Report(); r.Duplicates > st.Retransmitted {
		t.Errorf("%d came twice, only %d are accounted for", r.Duplicates, st.Retransmitted)
	}
	if st.Aside > 0 {
		t.Errorf("%d set aside", st.Aside)
	}
}

func TestAWindowFillsALinkOf200Milliseconds(t *testing.T) {
	mosquitto := rig.NewMosquitto(t, "log_type none\nmax_inflight_messages 1000")
	// pace returns how long a window takes from one round trip to the next: what it mostly takes, for the machine may
	// stand still at times.
	pace := func(window int) time.Duration {
		const trips = 20
		arrivals := make(chan time.Time, trips*window)
		s, err := load.NewSubscriber(mosquitto.URL(), "counter", "plant", func(_ string, _ int, at time.Time) { arrivals <- at })
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		proxy := proxyTo(t, mosquitto.URL())
		proxy.Delay = 100 * time.Millisecond
		p := newPipe(t, window, delivery.OldestFirst, proxy.URL())
		rig.Eventually(t, rig.Patience, "connection", func() bool { return p.d.Status().Connected })
		for range trips * window {
			p.put(fmt.Sprintf("w%d", window))
		}
		p.drain(rig.Patience)
		p.whole(s)
		var took []time.Duration
		last := <-arrivals
		for i := 1; i < trips*window; i++ {
			if at := <-arrivals; i%window == 0 {
				took = append(took, at.Sub(last))
				last = at
			}
		}
		slices.Sort(took)
		return took[len(took)/2]
	}
	one, many := pace(1), pace(64)
	times := 64 * one.Seconds() / many.Seconds()
	t.Logf("%v a sample with a window of 1, %v for 64 of them with 64: %.0f times as fast", one, many, times)
	if times < 50 {
		t.Errorf("%.0f times, not 50", times)
	}
}

func TestLiveSamplesArriveWhileABacklogDrains(t *testing.T) {
	mosquitto := rig.NewMosquitto(t, "log_type none")
	s := subscribe(t, mosquitto.URL())
	// Another one takes the live samples alone: its connection has no backlog that they would stand behind.
	pauses, began := rig.WatchPauses(t), time.Now()
	var worst atomic.Int64
	sent := make([]atomic.Int64, 10_001) // since it began
	watcher, err := client.New(client.Options{URLs: []string{mosquitto.URL()}, Handler: func(m mqtt.Message) {
		var live struct{ Values struct{ N int } }
		if err := json.Unmarshal(m.Payload, &live); err != nil || live.Values.N == 0 {
			t.Errorf("%s: %v", m.Payload, err)
			return
		}
		late := pauses.Between(began.Add(time.Duration(sent[live.Values.N].Load())), time.Now())
		worst.Store(max(worst.Load(), int64(late))) // one message at a time is told of
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- watcher.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	if _, err := watcher.Subscribe(ctx, mqtt.Subscription{Filter: "plant/live", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	proxy := proxyTo(t, mosquitto.URL())
	proxy.Stall(true)
	p := newPipe(t, 64, delivery.LiveFirst, proxy.URL())
	for range *backlog {
		p.put("old")
	}
	proxy.Stall(false)
	rig.Eventually(t, rig.Patience, "connection", func() bool { return p.d.Status().Connected })
	n := 0
	for backfill := int64(1); n < 10_000 && backfill > 0; {
		n++
		sent[n].Store(int64(time.Since(began)))
		p.put("live")
		time.Sleep(20 * time.Millisecond)
		backfill = p.d.Status().Backfill
		if testing.Verbose() && n%10 == 1 {
			t.Logf("%d live, %d of the backlog left, %d came", n, backfill, s.Came())
		}
	}
	p.drain(rig.Patience)
	p.whole(s)
	t.Logf("%d live samples during the drain, the latest %v behind", n, time.Duration(worst.Load()).Round(time.Millisecond))
	if worst.Load() > int64(time.Second) {
		t.Errorf("a live sample came %v late", time.Duration(worst.Load()))
	}
	if n < 20 {
		t.Errorf("only %d live samples: the backlog was too short to tell", n)
	}
}
