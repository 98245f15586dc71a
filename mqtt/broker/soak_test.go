package broker

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// The soak runs for a second with the other tests; 60 s by
//
//	go test ./mqtt/broker -run Soak -soak 60s
var soakTime = flag.Duration("soak", time.Second, "how long TestSoak runs")

// How many of each there are.
const (
	soakPublishers  = 50
	soakSubscribers = 50
	soakRestless    = 100
)

func soakOptions(store Store) Options {
	return Options{
		Store: store, SysInterval: -1,
		Limits: Limits{QueuedMessages: 1 << 20, QueuedBytes: 1 << 30, QueuedBytesTotal: 1 << 30},
	}
}

// TestSoak has 200 clients connect, take over, drop half-open and come back. Publishers send numbered
// messages at QoS 1 and 2, resending what was not acknowledged; persistent subscribers must get all of them:
// in order of first arrival per publisher and topic, at QoS 2 exactly once.
// [MQTT-4.6.0-5] [MQTT-4.6.0-6]
func TestSoak(t *testing.T) {
	o := soakOptions(&memStore{})
	o.Logger = logTo(nil)
	b, stop := startStop(t, o)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go b.Serve(ln)
	total := runSoak(t, ln.Addr().String())
	until(t, "all connections have ended", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.conns) == 0
	})
	if st := b.Stats(); st.Panics != 0 || st.Dropped != 0 {
		t.Errorf("panics %d, dropped %d", st.Panics, st.Dropped)
	}
	t.Logf("%d messages published, %d take-overs", total, b.Stats().TakeOvers)
	stop()
}

// The same while the broker crashes again and again, at any moment: what it acknowledged it has.
func TestSoakOverCrashes(t *testing.T) {
	for _, power := range []bool{false, true} {
		t.Run(map[bool]string{false: "kill -9", true: "power cut"}[power], func(t *testing.T) {
			c := newCrashing(t, power)
			over := make(chan struct{})
			var crashes int
			var crasher sync.WaitGroup
			crasher.Go(func() {
				rng := rand.New(rand.NewPCG(4, 0))
				for {
					select {
					case <-over:
						return
					case <-time.After(time.Duration(20+rng.IntN(200)) * time.Millisecond):
						if rng.IntN(3) == 0 {
							c.snapshot()
						}
						c.crash()
						crashes++
					}
				}
			})
			time.AfterFunc(*soakTime, func() { close(over) })
			total := runSoak(t, c.ln.Addr().String())
			crasher.Wait()
			c.close()
			t.Logf("%d messages published over %d crashes", total, crashes)
		})
	}
}

// A crashing broker is replaced, behind one address, by one that has what its store held at the crash.
type crashing struct {
	t     *testing.T
	power bool
	ln    net.Listener
	wait  sync.WaitGroup

	disk *time.Ticker

	mu    sync.Mutex
	store *memStore
	b     *Broker
	end   func()
	conns []net.Conn
}

func newCrashing(t *testing.T, power bool) *crashing {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &crashing{t: t, power: power, ln: ln, store: &memStore{}, disk: time.NewTicker(10 * time.Millisecond)}
	c.boot()
	c.wait.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.conns = append(c.conns, nc)
			c.b.ServeConn(nc)
			c.mu.Unlock()
		}
	})
	return c
}

// boot needs mu, but for the first time.
func (c *crashing) boot() {
	c.store.turns = c.disk.C
	o := soakOptions(c.store)
	o.Logger = slog.New(slog.NewTextHandler(writerFunc(func(line []byte) (int, error) {
		if strings.Contains(string(line), "unreadable") {
			c.t.Error(string(line))
		}
		return len(line), nil
	}), nil))
	b, err := New(o)
	if err != nil {
		c.t.Error(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.b, c.end = b, cancel
	c.wait.Go(func() { b.Run(ctx) }) // it fails where the store was taken from it
}

func (c *crashing) crash() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, nc := range c.conns { // nothing may be said that the store does not know of
		nc.(*net.TCPConn).SetLinger(0)
		nc.Close()
	}
	c.conns = nil
	c.store = c.store.die(c.power)
	c.end()
	c.boot()
}

// snapshot takes one while the clients work.
func (c *crashing) snapshot() {
	c.mu.Lock()
	b := c.b
	c.mu.Unlock()
	if err := b.journal.snapshot(); err != nil {
		c.t.Error(err)
	}
}

func (c *crashing) close() {
	c.ln.Close()
	c.mu.Lock()
	c.end()
	c.mu.Unlock()
	c.wait.Wait()
	c.disk.Stop()
}

// runSoak lets the clients work on a broker and checks what they got. It returns how many messages were published.
func runSoak(t *testing.T, addr string) (total uint64) {
	s := &soak{t: t, addr: addr, done: make(chan struct{})}
	var subs, rest, pubs sync.WaitGroup
	counts := make([]atomic.Uint64, soakPublishers)
	got := make([]*tally, soakSubscribers)
	ready := make(chan struct{}, soakSubscribers)
	for i := range soakSubscribers {
		got[i] = newTally(soakPublishers)
		subs.Go(func() { s.subscriber(i, got[i], ready) })
	}
	for range soakSubscribers {
		<-ready
	}
	for i := range soakPublishers {
		pubs.Go(func() { s.publisher(i, &counts[i]) })
	}
	for i := range soakRestless {
		rest.Go(func() { s.restless(i) })
	}
	time.AfterFunc(*soakTime, func() { close(s.done) })
	pubs.Wait()
	rest.Wait()
	// Everything that was acknowledged must arrive.
	for i, g := range got {
		until(t, fmt.Sprintf("subscriber %d has everything", i), func() bool { return g.complete(i, counts) })
	}
	s.over.Store(true)
	s.closeAll()
	subs.Wait()
	for i := range counts {
		total += counts[i].Load()
	}
	for i, g := range got {
		if err := g.fault(); err != "" {
			t.Errorf("subscriber %d: %s", i, err)
		}
	}
	return total
}

type soak struct {
	t    *testing.T
	addr string
	done chan struct{} // publishers end
	over atomic.Bool   // everybody ends

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func (s *soak) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for nc := range s.conns {
		nc.Close()
	}
}

// connect returns nil when there is no connection to be had, because somebody takes it over at once.
func (s *soak) connect(id string, clean bool) (net.Conn, *packet.Reader) {
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		return nil, nil
	}
	s.mu.Lock()
	if s.conns == nil {
		s.conns = make(map[net.Conn]struct{})
	}
	s.conns[nc] = struct{}{}
	s.mu.Unlock()
	c := &packet.Connect{Version: mqtt.V311, ClientID: id, CleanStart: clean, KeepAlive: 60}
	out, _ := c.Append(nil, mqtt.V311)
	rd := packet.NewReader(nc, 0, nil)
	nc.SetDeadline(time.Now().Add(patience))
	if _, err := nc.Write(out); err != nil {
		s.close(nc)
		return nil, nil
	}
	f, err := rd.Next()
	var ack packet.Connack
	if err != nil || ack.Decode(f, mqtt.V311) != nil || ack.Code != mqtt.Success {
		s.close(nc)
		return nil, nil
	}
	return nc, rd
}

func (s *soak) close(nc net.Conn) {
	nc.Close()
	s.mu.Lock()
	delete(s.conns, nc)
	s.mu.Unlock()
}

// publisher sends numbered messages to a topic of its own, breaking its connection now and then.
func (s *soak) publisher(i int, count *atomic.Uint64) {
	qos := mqtt.QoS(1 + i%2)
	topic := fmt.Sprintf("soak/%d", i)
	rng := rand.New(rand.NewPCG(1, uint64(i)))
	next := uint64(1)
	var half bool // PUBREC came for next
	for {
		select {
		case <-s.done:
			// What is half way is finished first.
			if !half {
				return
			}
		default:
		}
		nc, rd := s.connect(fmt.Sprintf("publisher-%d", i), false)
		if nc == nil {
			continue
		}
		first := true
		for range 1 + rng.IntN(200) {
			payload := binary.BigEndian.AppendUint64(nil, next)
			var out []byte
			if half {
				out, _ = (&packet.Pubrel{ID: uint16(1 + next%1000)}).Append(nil, mqtt.V311)
			} else {
				out, _ = (&packet.Publish{Topic: topic, QoS: qos, ID: uint16(1 + next%1000), Payload: payload, Dup: first}).Append(nil, mqtt.V311)
			}
			first = false
			if _, err := nc.Write(out); err != nil {
				break
			}
			if rng.IntN(100) == 0 {
				break // half-open: the acknowledgement is not waited for
			}
			f, err := rd.Next()
			if err != nil {
				break
			}
			if f.Type == packet.PUBREC {
				half = true
				continue
			}
			half = false
			count.Store(next)
			next++
			select {
			case <-s.done:
				s.close(nc)
				return
			default:
			}
		}
		s.close(nc)
	}
}

// subscriber keeps a persistent session on everything, breaking its connection now and then.
func (s *soak) subscriber(i int, g *tally, ready chan<- struct{}) {
	qos := mqtt.QoS(1 + i%2)
	rng := rand.New(rand.NewPCG(2, uint64(i)))
	subscribed := false
	for !s.over.Load() {
		nc, rd := s.connect(fmt.Sprintf("subscriber-%d", i), false)
		if nc == nil {
			continue
		}
		if !subscribed {
			// Each publisher's messages go to a tenth of the subscribers.
			sub := &packet.Subscribe{ID: 1}
			for k := i % 10; k < len(g.last); k += 10 {
				sub.Subscriptions = append(sub.Subscriptions, mqtt.Subscription{Filter: fmt.Sprintf("soak/%d", k), QoS: qos})
			}
			out, _ := sub.Append(nil, mqtt.V311)
			nc.Write(out)
		}
		for range 1 + rng.IntN(500) {
			nc.SetDeadline(time.Now().Add(time.Second))
			f, err := rd.Next()
			if err != nil {
				break
			}
			var out []byte
			switch f.Type {
			case packet.SUBACK:
				if !subscribed {
					subscribed = true
					ready <- struct{}{}
				}
			case packet.PUBLISH:
				var p packet.Publish
				if err := p.Decode(f, mqtt.V311); err != nil {
					s.t.Error(err)
				}
				var from int
				fmt.Sscanf(p.Topic, "soak/%d", &from)
				g.take(from, binary.BigEndian.Uint64(p.Payload), p.QoS, p.ID)
				if p.QoS == 2 {
					out, _ = (&packet.Pubrec{ID: p.ID}).Append(nil, mqtt.V311)
				} else {
					out, _ = (&packet.Puback{ID: p.ID}).Append(nil, mqtt.V311)
				}
			case packet.PUBREL:
				var p packet.Pubrel
				if err := p.Decode(f, mqtt.V311); err != nil {
					s.t.Error(err)
				}
				g.release(p.ID)
				out, _ = (&packet.Pubcomp{ID: p.ID}).Append(nil, mqtt.V311)
			}
			if _, err := nc.Write(out); err != nil {
				break
			}
		}
		s.close(nc)
	}
}

// restless takes sessions over, says nothing, and goes without a word.
func (s *soak) restless(i int) {
	rng := rand.New(rand.NewPCG(3, uint64(i)))
	for {
		select {
		case <-s.done:
			return
		default:
		}
		nc, rd := s.connect(fmt.Sprintf("restless-%d", i%40), rng.IntN(2) == 0)
		if nc == nil {
			continue
		}
		sub, _ := (&packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: fmt.Sprintf("soak/%d", rng.IntN(50)), QoS: 1}}}).Append(nil, mqtt.V311)
		nc.Write(sub)
		nc.SetDeadline(time.Now().Add(100 * time.Millisecond))
		for range rng.IntN(20) {
			if _, err := rd.Next(); err != nil {
				break
			}
		}
		s.close(nc)
	}
}

// A tally is what one subscriber got.
type tally struct {
	mu      sync.Mutex
	last    []uint64            // the highest number of each publisher
	seen    map[uint16]struct{} // QoS 2 identifiers between PUBLISH and PUBREL
	problem string
}

func newTally(publishers int) *tally {
	return &tally{last: make([]uint64, publishers), seen: make(map[uint16]struct{})}
}

func (g *tally) take(from int, n uint64, qos mqtt.QoS, id uint16) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if qos == mqtt.ExactlyOnce {
		if _, again := g.seen[id]; again {
			return // the same delivery once more: that is what the identifier is for
		}
		g.seen[id] = struct{}{}
	}
	switch last := g.last[from]; {
	case n == last+1:
		g.last[from] = n
	case n <= last && qos == mqtt.AtLeastOnce:
		// Once more, as QoS 1 may.
	default:
		g.problem = fmt.Sprintf("publisher %d at qos %d: message %d after %d", from, qos, n, last)
	}
}

func (g *tally) release(id uint16) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.seen, id)
}

func (g *tally) complete(i int, counts []atomic.Uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for k := i % 10; k < len(counts); k += 10 {
		if g.last[k] < counts[k].Load() {
			return g.problem != ""
		}
	}
	return true
}

func (g *tally) fault() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.problem
}
