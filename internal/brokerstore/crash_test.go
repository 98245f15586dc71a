package brokerstore

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway/buffer/buffertest"
	"gateway/mqtt"
	"gateway/mqtt/broker"
	"gateway/mqtt/packet"
)

// A world is a publisher and a subscriber with persistent sessions, who know what the broker has promised them and what
// they have had, over any number of crashes. They keep their own states, as clients must [MQTT-4.4.0-1].
type world struct {
	t     *testing.T
	cut   atomic.Bool // the power is gone
	conns []net.Conn

	subscribed   bool            // SUBACK came
	unsubscribed bool            // from "gone", UNSUBACK came
	taken        map[string]bool // messages whose PUBACK or PUBREC came; what was published at all is in it
	got          map[string]int  // messages that the subscriber took for new
	last         map[string]int  // the highest number per topic that it had
	seen         map[uint16]bool // the subscriber's QoS 2 identifiers between PUBREC and PUBREL
	pending      *packet.Publish // what the publisher sends until it is acknowledged
	released     bool            // it has had its PUBREC
	promised     bool            // the publisher's session was there before something that was synced
	retained     map[string]bool // what the retained message of "r" may be; "" is none
}

func newWorld(t *testing.T) *world {
	return &world{t: t, taken: map[string]bool{}, got: map[string]int{}, last: map[string]int{}, seen: map[uint16]bool{}, retained: map[string]bool{"": true}}
}

// gone is the panic of who speaks with a broker whose power is gone.
type gone struct{}

// client is one connection.
type client struct {
	w  *world
	nc net.Conn
	rd *packet.Reader
}

func (w *world) connect(b *broker.Broker, id string) (c *client, present bool) {
	near, far := net.Pipe()
	w.conns = append(w.conns, near)
	b.ServeConn(far)
	near.SetDeadline(time.Now().Add(patience)) // what waits for a disk without power waits for ever
	c = &client{w: w, nc: near, rd: packet.NewReader(near, 0, nil)}
	p := &packet.Connect{Version: mqtt.V5, ClientID: id}
	p.Properties.SetSessionExpiry(0xFFFFFFFF)
	c.send(p)
	return c, next[*packet.Connack](c).SessionPresent
}

func (c *client) fail(what any, err error) {
	c.w.t.Helper()
	if c.w.cut.Load() {
		panic(gone{})
	}
	c.w.t.Fatalf("%T: %v", what, err)
}

func (c *client) send(p packet.Packet) {
	c.w.t.Helper()
	b, err := p.Append(nil, mqtt.V5)
	if err == nil {
		_, err = c.nc.Write(b)
	}
	if err != nil {
		c.fail(p, err)
	}
}

func (c *client) read() packet.Packet {
	c.w.t.Helper()
	f, err := c.rd.Next()
	var p packet.Packet
	if err == nil {
		p, err = packet.Decode(f, mqtt.V5)
	}
	if err != nil {
		c.fail(p, err)
	}
	return p
}

func next[P packet.Packet](c *client) P {
	c.w.t.Helper()
	p := c.read()
	got, ok := p.(P)
	if !ok {
		c.w.t.Fatalf("got %T %+v, want %T", p, p, *new(P))
	}
	return got
}

func (c *client) leave() {
	c.send(&packet.Disconnect{})
	if _, err := c.rd.Next(); err == nil {
		c.w.t.Fatal("a packet after DISCONNECT")
	}
}

// publish goes through a message's handshake. Each payload is a topic and a number, and is published once.
func (c *client) publish(topic string, n int, qos mqtt.QoS) {
	c.w.t.Helper()
	payload := fmt.Sprint(topic, " ", n)
	c.w.taken[payload] = false
	c.w.pending, c.w.released = &packet.Publish{Topic: topic, Payload: []byte(payload), QoS: qos, ID: 7}, false
	c.finish()
}

// retain publishes a retained message, "" for none.
func (c *client) retain(payload string) {
	c.w.t.Helper()
	c.w.retained[payload] = true
	c.w.pending, c.w.released = &packet.Publish{Topic: "r", Payload: []byte(payload), QoS: 1, ID: 7, Retain: true}, false
	c.finish()
	c.w.retained = map[string]bool{payload: true}
}

// finish goes on with the handshake that is under way.
func (c *client) finish() {
	c.w.t.Helper()
	p := c.w.pending
	if !c.w.released {
		c.send(p)
	}
	if p.QoS == 1 {
		next[*packet.Puback](c)
		c.acknowledged(p)
	} else {
		if !c.w.released {
			next[*packet.Pubrec](c)
			c.acknowledged(p)
			c.w.released = true
		}
		c.send(&packet.Pubrel{ID: p.ID})
		next[*packet.Pubcomp](c)
	}
	c.w.pending = nil
}

func (c *client) acknowledged(p *packet.Publish) {
	if !p.Retain && p.Topic != "gone" {
		c.w.taken[string(p.Payload)] = true
		c.w.promised = true
	}
}

// take is what the subscriber does with one packet; it returns false for a PINGRESP.
func (c *client) take() bool {
	c.w.t.Helper()
	switch p := c.read().(type) {
	case *packet.Publish:
		payload := string(p.Payload)
		again := p.QoS == 2 && c.w.seen[p.ID]
		if !again {
			c.w.got[payload]++
			var n int
			fmt.Sscanf(payload[strings.LastIndexByte(payload, ' ')+1:], "%d", &n)
			if c.w.got[payload] == 1 && n < c.w.last[p.Topic] { // [MQTT-4.6.0-6]
				c.w.t.Errorf("%q came after number %d", payload, c.w.last[p.Topic])
			}
			c.w.last[p.Topic] = max(c.w.last[p.Topic], n)
		}
		if p.QoS == 2 {
			c.w.seen[p.ID] = true
			c.send(&packet.Pubrec{ID: p.ID})
		} else {
			c.send(&packet.Puback{ID: p.ID})
		}
	case *packet.Pubrel:
		delete(c.w.seen, p.ID)
		c.send(&packet.Pubcomp{ID: p.ID})
	case *packet.Pingresp:
		return false
	default:
		c.w.t.Fatalf("got %T", p)
	}
	return true
}

// drain takes all that there is.
func (c *client) drain() {
	c.w.t.Helper()
	for quiet := false; !quiet; {
		synctest.Wait()
		time.Sleep(10 * time.Millisecond) // syncs that something waits for are over
		c.send(&packet.Pingreq{})
		quiet = true
		for c.take() {
			quiet = false
		}
	}
}

// live is the first life, which the power cut ends somewhere.
func (w *world) live(b *broker.Broker) {
	sub, _ := w.connect(b, "sub")
	s := &packet.Subscribe{ID: 1}
	for _, f := range []string{"one", "two", "gone"} {
		s.Subscriptions = append(s.Subscriptions, mqtt.Subscription{Filter: f, QoS: 2})
	}
	sub.send(s)
	next[*packet.Suback](sub)
	w.subscribed = true
	pub, _ := w.connect(b, "pub")

	pub.publish("one", 1, 1)
	sub.take()
	pub.publish("two", 1, 2) // identifier 7 from here on again and again
	sub.take()
	sub.take()
	pub.retain("first")
	pub.retain("second")
	pub.publish("two", 2, 2)
	sub.take() // and is left between PUBREC and PUBCOMP
	pub.publish("gone", 1, 1)
	sub.take()
	sub.send(&packet.Unsubscribe{ID: 2, Filters: []string{"gone"}})
	for unsubscribed := false; !unsubscribed; {
		switch p := sub.read().(type) {
		case *packet.Pubrel:
			delete(w.seen, p.ID)
			sub.send(&packet.Pubcomp{ID: p.ID})
		case *packet.Unsuback:
			unsubscribed = true
		default:
			w.t.Fatalf("got %T", p)
		}
	}
	w.unsubscribed = true
	pub.publish("gone", 2, 1)
	sub.leave()
	pub.publish("one", 2, 1)
	pub.publish("two", 3, 2)
	pub.retain("")
	pub.publish("one", 3, 1)
	sub, _ = w.connect(b, "sub")
	sub.take()
	pub.publish("two", 4, 2)
	pub.retain("third")
	sub.take()
	pub.publish("one", 4, 1)
	pub.leave()
}

// goOn is the life after the power cut, without another: both come back and finish what was under way.
func (w *world) goOn(b *broker.Broker) {
	w.cut.Store(false)
	pub, present := w.connect(b, "pub")
	if !present && w.promised {
		w.t.Error("the publisher's session is lost")
	}
	if p := w.pending; p != nil {
		if !present {
			w.pending = nil // a client whose session is gone forgets it, too [MQTT-3.2.2-4]
		} else {
			p.Dup = true
			pub.finish()
			if p.Topic == "r" {
				w.retained = map[string]bool{string(p.Payload): true}
			}
		}
	}
	sub, present := w.connect(b, "sub")
	if !present {
		if w.subscribed {
			w.t.Error("the subscriber's session is lost")
		}
		clear(w.seen)
		return
	}
	sub.drain()
	pub.publish("one", 5, 1)
	pub.publish("two", 5, 2)
	pub.publish("gone", 3, 1)
	sub.drain()
	for payload, taken := range w.taken {
		n := w.got[payload]
		switch {
		case taken && n == 0 && w.subscribed:
			w.t.Errorf("%q was acknowledged and is lost", payload)
		case n > 1 && strings.HasPrefix(payload, "two"):
			w.t.Errorf("%q came %d times", payload, n)
		}
	}
	if w.unsubscribed && (w.got["gone 2"] > 0 || w.got["gone 3"] > 0) {
		w.t.Error("an ended subscription is back")
	}
	if len(w.seen) > 0 {
		w.t.Errorf("PUBREL never came for %v", w.seen)
	}
}

// look is a last life after a proper end: nothing comes again, and what is retained is what was acknowledged last.
func (w *world) look(b *broker.Broker) {
	if sub, present := w.connect(b, "sub"); present {
		before := fmt.Sprint(w.got)
		sub.drain()
		if after := fmt.Sprint(w.got); after != before {
			w.t.Errorf("after a stop came again: %s, before %s", after, before)
		}
	}
	late, _ := w.connect(b, "late")
	late.send(&packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "r"}}})
	next[*packet.Suback](late)
	synctest.Wait()
	late.send(&packet.Pingreq{})
	have := ""
	p := late.read()
	if m, ok := p.(*packet.Publish); ok {
		have = string(m.Payload)
	}
	if !w.retained[have] {
		w.t.Errorf("retained is %q, which is none of %v", have, w.retained)
	}
}

// An eager store wants a snapshot after each sync.
type eager struct{ *Store }

func (eager) Size() int64 { return 1 << 40 }

// run runs a broker on a disk while f works with it.
func (w *world) run(disk *buffertest.Disk, snapshots bool, f func(b *broker.Broker)) {
	w.t.Helper()
	store := New("/broker", disk, nil)
	o := broker.Options{Store: store, SysInterval: -1}
	if snapshots {
		o.Store = eager{store}
	}
	b, err := broker.New(o)
	if err != nil {
		if w.cut.Load() {
			return
		}
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	defer func() {
		p := recover()
		for _, nc := range w.conns {
			nc.Close()
		}
		cancel()
		err := <-ended
		store.Close()
		if _, cut := p.(gone); p != nil && !cut {
			panic(p)
		}
		if err != nil && !w.cut.Load() {
			w.t.Error(err)
		}
	}()
	f(b)
}

// The power goes at each operation on the disk in turn, in the middle of a life of all that there is of QoS 1 and 2, and
// each time what was not synced is lost, kept or torn: what was acknowledged is there, at QoS 2 once, in its order, and
// what was ended stays so.
func TestEveryPowerCut(t *testing.T) {
	for _, snapshots := range []bool{false, true} {
		t.Run(fmt.Sprint("snapshots ", snapshots), func(t *testing.T) {
			last := false
			for at := 1; !last && !t.Failed(); at++ {
				for fate := buffertest.Fate(at % 2); fate < buffertest.Chance+2; fate += 2 { // each of them at every other
					synctest.Test(t, func(t *testing.T) {
						disk := buffertest.NewDisk(uint64(at))
						w := newWorld(t)
						disk.Trace(func(n int, _ buffertest.Op, _ string) {
							if n == at {
								w.cut.Store(true)
							}
						})
						disk.CutAt(at)
						w.run(disk, snapshots, w.live)
						if !w.cut.Load() {
							last = true
						}
						found := disk.Crash(min(fate, buffertest.Chance), uint64(at)*7+uint64(fate))
						w.cut.Store(false)
						w.run(found, snapshots, w.goOn)
						w.run(found, snapshots, w.look)
						if t.Failed() {
							t.Fatalf("power cut at operation %d, fate %d", at, fate)
						}
					})
				}
			}
		})
	}
}
