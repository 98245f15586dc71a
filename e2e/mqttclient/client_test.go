package mqttclient

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/e2e/rig"
	"gateway/mqtt"
	"gateway/mqtt/client"
	"gateway/mqtt/packet"
)

// patience is how long anything may take before a test fails.
const patience = rig.Patience

// A runner is a client under test and what it received.
type runner struct {
	*client.Client
	t      *testing.T
	stop   func()
	states chan client.State
	got    chan mqtt.Message
}

// start runs a client and waits until it is connected.
func start(t *testing.T, o client.Options) *runner {
	t.Helper()
	r := begin(t, o)
	r.connected()
	return r
}

func begin(t *testing.T, o client.Options) *runner {
	t.Helper()
	r := &runner{t: t, states: make(chan client.State, 10000), got: make(chan mqtt.Message, 100_000)}
	o.OnState = func(s client.State) { r.states <- s }
	if o.Handler == nil {
		o.Handler = func(m mqtt.Message) { r.got <- m }
	}
	o.Logger = testLogger(t)
	o.Backoff = client.Backoff{Min: 20 * time.Millisecond, Max: 200 * time.Millisecond, Healthy: time.Millisecond}
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.Client = c
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// connected waits for the next connection and returns its state.
func (r *runner) connected() client.State {
	r.t.Helper()
	limit := time.After(patience)
	for {
		select {
		case s := <-r.states:
			if s.Connected {
				return s
			}
		case <-limit:
			r.t.Fatal("not connected")
		}
	}
}

func (r *runner) subscribe(qos mqtt.QoS, filters ...string) {
	r.t.Helper()
	var subs []mqtt.Subscription
	for _, f := range filters {
		subs = append(subs, mqtt.Subscription{Filter: f, QoS: qos})
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	codes, err := r.Subscribe(ctx, subs...)
	if err != nil {
		r.t.Fatal(err)
	}
	for i, c := range codes {
		if c.IsError() || mqtt.QoS(c) != qos {
			r.t.Fatalf("%s: %v", filters[i], c)
		}
	}
}

// publish publishes payloads from first on and returns a function that waits until all are done.
func (r *runner) publish(topic string, qos mqtt.QoS, retain bool, first, n int) (wait func()) {
	r.t.Helper()
	done := make(chan error, n)
	for i := range n {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err := r.Publish(ctx, &mqtt.Message{Topic: topic, Payload: fmt.Appendf(nil, "%d", first+i), QoS: qos, Retain: retain}, func(err error) { done <- err })
		cancel()
		if err != nil {
			r.t.Fatal(err)
		}
	}
	return func() {
		r.t.Helper()
		limit := time.After(patience)
		for i := range n {
			select {
			case err := <-done:
				if err != nil {
					r.t.Fatal(err)
				}
			case <-limit:
				r.t.Fatalf("%d of %d are not done: %+v", n-i, n, r.Stats())
			}
		}
	}
}

// next returns the next received message.
func (r *runner) next() mqtt.Message {
	r.t.Helper()
	select {
	case m := <-r.got:
		return m
	case <-time.After(patience):
		r.t.Fatalf("nothing comes: %+v", r.Stats())
	}
	return mqtt.Message{}
}

// expect reads payloads 0 to n-1, each once, and in order where the broker keeps it.
func (r *runner) expect(p peer, topic string, n int) {
	r.t.Helper()
	seen := map[string]bool{}
	for i := range n {
		m := r.next()
		if m.Topic != topic || seen[string(m.Payload)] || p.ordered && string(m.Payload) != fmt.Sprint(i) {
			r.t.Fatalf("%s %s, want %s %d", m.Topic, m.Payload, topic, i)
		}
		seen[string(m.Payload)] = true
	}
}

func TestQoS(t *testing.T) {
	eachPeer(t, func(t *testing.T, p peer, url string) {
		sub := start(t, client.Options{URLs: []string{url}, Version: p.version, ClientID: "sub"})
		pub := start(t, client.Options{URLs: []string{url}, Version: p.version, ClientID: "pub"})
		for qos := range mqtt.QoS(3) {
			topic := fmt.Sprintf("q/%d", qos)
			sub.subscribe(qos, topic)
			wait := pub.publish(topic, qos, false, 0, 500)
			sub.expect(p, topic, 500)
			wait()
		}
		if s := pub.Stats(); s.Unacked != 0 || s.Inflight != 0 || s.Resent != 0 || s.Acked != 1500 {
			t.Errorf("%+v", s)
		}
	})
}

func TestRetained(t *testing.T) {
	eachPeer(t, func(t *testing.T, p peer, url string) {
		pub := start(t, client.Options{URLs: []string{url}, Version: p.version, ClientID: "pub"})
		pub.publish("r/a", 1, true, 7, 1)()
		pub.publish("r/b", 1, false, 8, 1)()
		sub := start(t, client.Options{URLs: []string{url}, Version: p.version, ClientID: "sub"})
		sub.subscribe(1, "r/#")
		if m := sub.next(); m.Topic != "r/a" || string(m.Payload) != "7" || !m.Retain {
			t.Errorf("%+v", m)
		}
		// A message that is new is not marked as retained.
		pub.publish("r/a", 1, true, 9, 1)()
		if m := sub.next(); string(m.Payload) != "9" || m.Retain {
			t.Errorf("%+v", m)
		}
	})
}

// killable dials connections that a test can break without a DISCONNECT.
type killable struct {
	mu sync.Mutex
	nc net.Conn
}

func (k *killable) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, network, addr)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.nc = nc
	return nc, err
}

func (k *killable) kill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.nc.(*net.TCPConn).SetLinger(0)
	k.nc.Close()
}

func TestWill(t *testing.T) {
	eachPeer(t, func(t *testing.T, p peer, url string) {
		watcher := start(t, client.Options{URLs: []string{url}, Version: p.version, ClientID: "watcher"})
		watcher.subscribe(1, "w/#")
		will := &client.Will{Message: mqtt.Message{Topic: "w/state", Payload: []byte("offline"), QoS: 1}}
		var k killable
		mortal := start(t, client.Options{URLs: []string{url}, Version: p.version, ClientID: "mortal", Will: will, Dial: k.dial})
		k.kill()
		if m := watcher.next(); string(m.Payload) != "offline" || m.Topic != "w/state" {
			t.Errorf("%+v", m)
		}
		mortal.connected()
		// After a DISCONNECT there is none.
		mortal.stop()
		watcher.publish("w/end", 1, false, 1, 1)()
		if m := watcher.next(); m.Topic != "w/end" {
			t.Errorf("will after DISCONNECT: %+v", m)
		}
	})
}

// What is published while a subscriber is away waits for it in its session.
func TestOfflineQueue(t *testing.T) {
	eachPeer(t, func(t *testing.T, p peer, url string) {
		o := client.Options{URLs: []string{url}, Version: p.version, ClientID: "sub", SessionExpiry: time.Hour}
		if !p.exact() {
			// mochi keeps messages with the aliases of their time and sends them in any order: those without a topic
			// before the one that has it, which no client can take.
			o.TopicAliasesIn = -1
		}
		sub := start(t, o)
		sub.subscribe(1, "o/#")
		sub.stop()
		pub := start(t, client.Options{URLs: []string{url}, Version: p.version, ClientID: "pub"})
		pub.publish("o/a", 1, false, 0, 50)()
		sub = begin(t, o)
		if s := sub.connected(); !s.SessionPresent {
			t.Error("session is not present")
		}
		sub.expect(p, "o/a", 50)
	})
}

// The connection of the publisher or of the subscriber is cut time and again while messages pass: at QoS 1 each
// arrives at least once and the first arrivals are in order, at QoS 2 each arrives exactly once.
func TestCutConnections(t *testing.T) {
	const n = 3000
	for _, side := range []string{"publisher", "subscriber"} {
		for _, qos := range []mqtt.QoS{1, 2} {
			t.Run(fmt.Sprintf("%s-qos%d", side, qos), func(t *testing.T) {
				for _, p := range peers {
					if !p.exact() {
						continue // mochi and NATS lose or repeat some themselves; see TestCutConnectionsOfOthers
					}
					t.Run(p.name, func(t *testing.T) { cutConnections(t, p, side, qos, n, qos == 2) })
				}
			})
		}
	}
}

// The others may repeat a QoS 2 message after a cut, but what our client publishes must all arrive.
func TestCutConnectionsOfOthers(t *testing.T) {
	for _, p := range peers {
		if !p.exact() {
			t.Run(p.name, func(t *testing.T) { cutConnections(t, p, "publisher", 1, 1000, false) })
		}
	}
}

func cutConnections(t *testing.T, p peer, side string, qos mqtt.QoS, n int, once bool) {
	url := p.start(t)
	// The messages fill more than three such connections, so at least three are cut; what a window of 200 holds is sent
	// again after each, and leaves most of the next one to new messages.
	const cuts, least = 10, 3
	c := newCutter(t, strings.TrimPrefix(url, "mqtt://"), int64(n)*4, cuts)
	subURL, pubURL := url, c.url()
	if side == "subscriber" {
		subURL, pubURL = c.url(), url
	}
	sub := start(t, client.Options{URLs: []string{subURL}, Version: p.version, ClientID: "sub", SessionExpiry: time.Hour, ReceiveMaximum: 60000})
	sub.subscribe(qos, "c/#")
	pub := start(t, client.Options{URLs: []string{pubURL}, Version: p.version, ClientID: "pub", SessionExpiry: time.Hour, MaxUnacked: 200})

	seen := map[string]int{}
	var firsts []string
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		pub.publish("c/x", qos, false, 0, n)()
	}()
	limit := time.After(patience)
	for len(seen) < n {
		select {
		case m := <-sub.got:
			if seen[string(m.Payload)]++; seen[string(m.Payload)] == 1 {
				firsts = append(firsts, string(m.Payload))
			}
		case <-limit:
			t.Fatalf("%d of %d arrived; publisher %+v, subscriber %+v", len(seen), n, pub.Stats(), sub.Stats())
		}
	}
	<-finished
	made := cuts - max(c.left.Load(), 0)
	if made < least {
		t.Errorf("only %d cuts", made)
	}
	repeated := 0
	for _, k := range seen {
		repeated += k - 1
	}
	t.Logf("%d cuts, %d resent, %d repeated, %d duplicates held back", made, pub.Stats().Resent, repeated, sub.Stats().Duplicates)
	if once && repeated > 0 {
		t.Errorf("%d messages of QoS 2 came again", repeated)
	}
	want := make([]string, n)
	for i := range want {
		want[i] = fmt.Sprint(i)
	}
	if p.version == mqtt.V311 || qos == 1 {
		if !slices.Equal(firsts, want) {
			for i := range want {
				if firsts[i] != want[i] {
					t.Fatalf("message %d is %s", i, firsts[i])
				}
			}
		}
	}
}

// The broker is stopped and started, and killed, while messages pass.
func TestBrokerRestarts(t *testing.T) {
	for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		for _, qos := range []mqtt.QoS{1, 2} {
			t.Run(fmt.Sprintf("version%d-qos%d", v, qos), func(t *testing.T) {
				m := rig.NewMosquitto(t, "")
				sub := start(t, client.Options{URLs: []string{m.URL()}, Version: v, ClientID: "sub", SessionExpiry: time.Hour})
				sub.subscribe(qos, "b/#")
				pub := start(t, client.Options{URLs: []string{m.URL()}, Version: v, ClientID: "pub", SessionExpiry: time.Hour})
				pub.publish("b/x", qos, false, 0, 200)()
				m.Stop()
				wait := pub.publish("b/x", qos, false, 200, 200) // while nobody is there
				m.Start()
				wait()
				if s := pub.connected(); !s.SessionPresent {
					t.Error("publisher's session is not present")
				}
				seen := map[string]int{}
				for len(seen) < 400 {
					k := string(sub.next().Payload)
					if seen[k]++; seen[k] > 1 && qos == 2 {
						t.Errorf("%s came again", k)
					}
				}
				// Killed, Mosquitto forgets the sessions: the client subscribes again and sends anew.
				m.Kill()
				wait = pub.publish("b/y", qos, false, 0, 100)
				m.Start()
				wait()
				if s := sub.connected(); !s.Connected {
					t.Error("not connected")
				}
				pub.publish("b/z", qos, false, 0, 1)
				for {
					if m := sub.next(); m.Topic == "b/z" {
						break
					}
				}
			})
		}
	}
}

// Version 0 finds out what the server speaks.
func TestVersionIsNegotiated(t *testing.T) {
	for _, c := range []struct {
		start func(*testing.T) string
		want  mqtt.Version
	}{{startMosquitto, mqtt.V5}, {startMochi, mqtt.V5}, {startNATS, mqtt.V311}} {
		r := begin(t, client.Options{URLs: []string{c.start(t)}})
		if s := r.connected(); s.Version != c.want || s.ClientID == "" {
			t.Errorf("%+v", s)
		}
	}
}

// Properties travel through a broker of 5.0 as they are; topic aliases are used.
func TestProperties(t *testing.T) {
	for _, p := range peers {
		if p.version != mqtt.V5 {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			r := start(t, client.Options{URLs: []string{p.start(t)}, Version: p.version, ClientID: "both"})
			r.subscribe(1, "properties/of/a/message")
			want := mqtt.Message{Topic: "properties/of/a/message", Payload: []byte("ü"), QoS: 1, PayloadUTF8: true, HasExpiry: true, Expiry: 100,
				ContentType: "text/plain", ResponseTopic: "answers", CorrelationData: []byte{0, 1}, User: []mqtt.UserProperty{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}}}
			for range 3 {
				if err := r.Publish(t.Context(), &want, nil); err != nil {
					t.Fatal(err)
				}
				got := r.next()
				if got.Expiry > 100 || got.Expiry < 90 {
					t.Errorf("expiry %d", got.Expiry)
				}
				got.Expiry = 100
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%+v", got)
				}
			}
		})
	}
}

// Two clients with one identifier: it is noticed, and told.
func TestEviction(t *testing.T) {
	for _, p := range peers {
		if !p.exact() {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			url := p.start(t)
			states := make(chan client.State, 1000)
			for range 2 {
				c, err := client.New(client.Options{URLs: []string{url}, Version: p.version, ClientID: "same", Backoff: client.Backoff{Min: 10 * time.Millisecond, Max: 50 * time.Millisecond},
					OnState: func(s client.State) { states <- s }})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(context.Background())
				ended := make(chan error, 1)
				go func() { ended <- c.Run(ctx) }()
				t.Cleanup(func() { cancel(); <-ended })
			}
			limit := time.After(patience)
			for {
				select {
				case s := <-states:
					// Ours says so in 5.0. Otherwise, and with Mosquitto 2.0.11 also there, it is a guess, for
					// which nobody stays away.
					told := s.Reason == mqtt.SessionTakenOver && s.RetryIn > 2*time.Second
					if s.Evicted > 0 && (told || p.name != "gateway-5.0") {
						return
					}
				case <-limit:
					t.Fatal("nobody noticed")
				}
			}
		})
	}
}

// Over WebSocket to those that have it.
func TestWebSocket(t *testing.T) {
	mosquitto := func(t *testing.T) string {
		port := rig.FreePort(t)
		rig.NewMosquitto(t, fmt.Sprintf("listener %d 127.0.0.1\nprotocol websockets\n", port))
		rig.AwaitTCP(t, fmt.Sprintf("127.0.0.1:%d", port), patience)
		return fmt.Sprintf("ws://127.0.0.1:%d/mqtt", port)
	}
	ours := func(t *testing.T) string {
		addr := fmt.Sprintf("127.0.0.1:%d", rig.FreePort(t))
		rig.Start(t, rig.Binary(t), "broker", "--listen", "ws://"+addr)
		rig.AwaitTCP(t, addr, patience)
		return "ws://" + addr + "/mqtt"
	}
	for name, begin := range map[string]func(*testing.T) string{"mosquitto": mosquitto, "gateway": ours} {
		t.Run(name, func(t *testing.T) {
			r := start(t, client.Options{URLs: []string{begin(t)}, ClientID: "both"})
			r.subscribe(2, "ws/#")
			for qos := range mqtt.QoS(3) {
				topic := fmt.Sprintf("ws/%d", qos)
				wait := r.publish(topic, qos, false, 0, 300)
				r.expect(peer{ordered: true}, topic, 300)
				wait()
			}
		})
	}
}

// A process that was killed in the middle of QoS 2 leaves half an exchange at the broker, under an identifier that the next
// one uses for something else. That must arrive, and not be taken for the old message again.
func TestSessionOfAnEarlierProcess(t *testing.T) {
	for _, p := range peers {
		if !p.exact() {
			continue // mochi leaves the second such message of a session unanswered
		}
		t.Run(p.name, func(t *testing.T) { afterAnEarlierProcess(t, p, p.start(t)) })
	}
}

func afterAnEarlierProcess(t *testing.T, p peer, url string) {
	sub := start(t, client.Options{URLs: []string{url}, Version: p.version, ClientID: "sub"})
	sub.subscribe(2, "e/#")
	for id := range uint16(20) {
		halfQoS2(t, strings.TrimPrefix(url, "mqtt://"), p.version, "pub", id+1)
	}
	pub := start(t, client.Options{URLs: []string{url}, Version: p.version, ClientID: "pub", SessionExpiry: time.Hour})
	pub.publish("e/new", 2, false, 0, 20)()
	seen := map[string]int{}
	for len(seen) < 20 {
		if m := sub.next(); m.Topic == "e/new" {
			seen[string(m.Payload)]++
		}
	}
	pub.publish("e/end", 2, false, 0, 1)()
	for m := sub.next(); m.Topic != "e/end"; m = sub.next() {
		if m.Topic == "e/new" {
			seen[string(m.Payload)]++
		}
	}
	for payload, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times", payload, n)
		}
	}
}

// halfQoS2 sends a message of QoS 2 under an identifier and hangs up once it has PUBREC.
func halfQoS2(t *testing.T, addr string, v mqtt.Version, client string, id uint16) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	connect := &packet.Connect{Version: v, ClientID: client}
	if v == mqtt.V5 {
		connect.Properties.SetSessionExpiry(3600)
	}
	r := packet.NewReader(nc, 0, nil)
	for _, step := range []struct {
		send packet.Packet
		want packet.Type
	}{
		{connect, packet.CONNACK},
		{&packet.Publish{Topic: "e/old", Payload: []byte("old"), QoS: 2, ID: id}, packet.PUBREC},
	} {
		b, err := step.send.Append(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Write(b); err != nil {
			t.Fatal(err)
		}
		for {
			f, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if f.Type == step.want {
				break
			}
		}
	}
}
