package client

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// A model is a server that keeps a session by the book and whose connections break at any byte. It checks what the client
// sends against that session.
type model struct {
	t     *testing.T
	rnd   *rand.Rand
	v     mqtt.Version
	loses bool // now and then, the session

	known map[uint16]string // by identifier, what the client sent and may send again; nil: there is no session yet
	two   map[uint16]bool   // of QoS 2, and not released
	got   []string

	owed []*parcel  // to the client, in order
	sent []mqtt.QoS // to the client, of each message ever
}

// A parcel is a message on its way to the client.
type parcel struct {
	id       uint16 // and the name, so that none is used twice
	qos      mqtt.QoS
	sent     bool
	released bool // PUBREC came
}

const modelMessages = 40 // each way

// connection serves one connection until it has read the given number of packets, and then, having said some bytes of its
// last answer, hangs up; negative: until everything is done.
func (m *model) connection(s *fakeConn, packets int, done func() bool) {
	defer s.close()
	s.v = m.v
	s.next()
	ack := packet.Connack{SessionPresent: m.known != nil}
	if m.loses && m.rnd.IntN(3) == 0 {
		ack.SessionPresent = false
	}
	if !ack.SessionPresent {
		m.known, m.two = map[uint16]string{}, map[uint16]bool{}
		for _, p := range m.owed {
			p.sent, p.released = false, false
		}
	}
	window := 1 + m.rnd.IntN(8)
	if m.v == mqtt.V5 {
		ack.Properties.SetReceiveMaximum(uint16(window))
	}
	s.send(&ack)
	// What is owed goes again, in order.
	var first []packet.Packet
	for _, p := range m.owed {
		if p.released {
			first = append(first, &packet.Pubrel{ID: p.id})
		} else {
			first = append(first, m.parcel(p))
		}
	}
	if _, err := s.nc.Write(encoded(m.v, first...)); err != nil {
		return
	}
	open := 0
	for ; packets != 0; packets-- {
		f, err := s.r.Next()
		if err != nil {
			return
		}
		p, err := packet.Decode(f, m.v)
		if err != nil {
			m.t.Errorf("the client sends: %v", err)
			return
		}
		var answers []packet.Packet
		switch p := p.(type) {
		case *packet.Publish:
			// One that is marked as a duplicate need not have arrived the first time.
			if name, known := m.known[p.ID]; known && (!p.Dup || name != string(p.Payload)) {
				m.t.Errorf("%s under identifier %d, duplicate %t, which is that of %s", p.Payload, p.ID, p.Dup, name)
			}
			m.known[p.ID] = string(p.Payload)
			if open++; m.v == mqtt.V5 && open > window {
				m.t.Errorf("%d messages at once, and the receive maximum is %d", open, window)
			}
			if p.QoS == mqtt.AtLeastOnce {
				m.got = append(m.got, string(p.Payload))
				answers = append(answers, &packet.Puback{ID: p.ID})
				delete(m.known, p.ID)
				open--
				break
			}
			if !m.two[p.ID] {
				m.two[p.ID] = true
				m.got = append(m.got, string(p.Payload))
			}
			answers = append(answers, &packet.Pubrec{ID: p.ID})
		case *packet.Pubrel:
			if m.two[p.ID] {
				open = max(0, open-1) // on an earlier connection it may have been counted
			}
			delete(m.two, p.ID)
			delete(m.known, p.ID)
			answers = append(answers, &packet.Pubcomp{ID: p.ID})
		case *packet.Puback:
			m.arrived(p.ID)
		case *packet.Pubrec:
			for _, o := range m.owed {
				if o.id == p.ID {
					o.released = true
				}
			}
			answers = append(answers, &packet.Pubrel{ID: p.ID})
		case *packet.Pubcomp:
			m.arrived(p.ID)
		case *packet.Disconnect:
			return
		}
		if len(m.sent) < modelMessages && m.rnd.IntN(2) == 0 {
			o := &parcel{id: uint16(len(m.sent) + 1), qos: mqtt.QoS(1 + m.rnd.IntN(2))}
			m.sent = append(m.sent, o.qos)
			m.owed = append(m.owed, o)
			answers = append(answers, m.parcel(o))
		}
		b := encoded(m.v, answers...)
		if packets == 1 {
			b = b[:m.rnd.IntN(len(b)+1)]
		}
		if _, err := s.nc.Write(b); err != nil || done() {
			return
		}
	}
}

func (m *model) parcel(p *parcel) *packet.Publish {
	out := pub(p.qos, p.id, fmt.Sprint(p.id))
	out.Dup, p.sent = p.sent, true
	return out
}

func (m *model) arrived(id uint16) {
	m.owed = slices.DeleteFunc(m.owed, func(p *parcel) bool { return p.id == id })
}

// inOrder checks that all messages came, those of one QoS in the order of their numbers where each comes for the first time, and
// those of QoS 2 once where that can be.
func inOrder(t *testing.T, what string, got []string, qos []mqtt.QoS, exactly bool) {
	t.Helper()
	seen := map[string]int{}
	var last [3]int
	for _, name := range got {
		n, err := strconv.Atoi(name)
		if err != nil || n < 1 || n > len(qos) {
			t.Fatalf("%s: %q is no message", what, name)
		}
		q := qos[n-1]
		switch seen[name]++; {
		case seen[name] > 1:
			if exactly && q == mqtt.ExactlyOnce {
				t.Errorf("%s: %s came twice", what, name)
			}
		case n < last[q]:
			t.Errorf("%s: %s came after %d", what, name, last[q])
		default:
			last[q] = n
		}
	}
	if len(seen) != modelMessages {
		t.Errorf("%s: %d of %d messages", what, len(seen), modelMessages)
	}
}

// Connections that break at any byte: every message arrives, both ways, those of one QoS in order, those of QoS 2 once where
// the session is kept; each is done once; identifiers, the duplicate flag and the receive maximum are right throughout; and
// nothing is left over. [MQTT-3.3.1-1] [MQTT-3.3.4-7] [MQTT-4.3.3-6] [MQTT-4.4.0-1] [MQTT-4.6.0-1]
func TestEverythingArrivesWhateverBreaks(t *testing.T) {
	for seed := range uint64(30) {
		for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
			for _, loses := range []bool{false, true} {
				t.Run(fmt.Sprintf("seed %d, version %d, session is lost %t", seed, v, loses), func(t *testing.T) {
					breaks(t, &model{t: t, rnd: rand.New(rand.NewPCG(seed, 0)), v: v, loses: loses})
				})
			}
		}
	}
}

func breaks(t *testing.T, m *model) {
	var received []string
	qos := make([]mqtt.QoS, modelMessages)
	pauses := make([]time.Duration, modelMessages)
	for i := range qos {
		qos[i] = mqtt.QoS(1 + m.rnd.IntN(2))
		pauses[i] = time.Duration(m.rnd.IntN(300)) * time.Millisecond
	}
	o := Options{Version: m.v, SessionExpiry: time.Hour, Handler: func(m mqtt.Message) { received = append(received, string(m.Payload)) }}
	run(t, o, func(t *testing.T, b *bench) {
		go func() {
			for i, q := range qos {
				b.publish(q, strconv.Itoa(i+1))
				time.Sleep(pauses[i])
			}
		}()
		answers := map[string]int{}
		done := func() bool {
			for len(b.dones) > 0 {
				answers[<-b.dones]++
			}
			return len(answers) == modelMessages && len(m.sent) == modelMessages && len(m.owed) == 0
		}
		for n := 0; !done(); n++ {
			packets := m.rnd.IntN(12)
			if n > 300 {
				packets = -1
			}
			m.connection(<-b.conns, packets, done)
			synctest.Wait()
		}
		for i := range qos {
			if n := answers[strconv.Itoa(i+1)]; n != 1 {
				t.Errorf("%d was done %d times", i+1, n)
			}
		}
		b.c.mu.Lock()
		defer b.c.mu.Unlock()
		if o := &b.c.out; len(o.byID) != 0 || o.n != 0 || o.inflight != 0 || o.head != nil || o.unsent != nil {
			t.Errorf("left over: %+v", o)
		}
	})
	inOrder(t, "to the server", m.got, qos, !m.loses)
	inOrder(t, "from the server", received, m.sent, !m.loses)
}
