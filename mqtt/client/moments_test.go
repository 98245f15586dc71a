package client

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// stays is no reason code of a DISCONNECT: the connection goes on. ends: it is closed without a word.
const stays, ends mqtt.ReasonCode = 0xfe, 0xff

// encoded are packets as a server that knows the protocol, if not its manners, sends them.
func encoded(v mqtt.Version, ps ...packet.Packet) (b []byte) {
	for _, p := range ps {
		var err error
		if b, err = p.Append(b, v); err != nil {
			panic(err)
		}
	}
	return b
}

// Every packet that a server can send, well-formed and not, in place of CONNACK and after it, is answered as the
// specification says: what only a client sends, or is sent twice, is a protocol error, as is anything but CONNACK before
// CONNACK [MQTT-3.2.0-1]; an answer to nothing is let pass. What was published is sent on the next connection
// [MQTT-4.13.1-1] [MQTT-4.13.2-1].
func TestEveryPacketAtEveryMoment(t *testing.T) {
	type row struct {
		name         string
		stream       []byte
		after, early mqtt.ReasonCode // what follows after CONNACK, and in its place; 0: a protocol error
	}
	rows := func(v mqtt.Version) []row {
		codes := []mqtt.ReasonCode{0}
		all := []row{
			{"CONNECT", encoded(v, &packet.Connect{Version: v, ClientID: "x"}), mqtt.ProtocolError, 0},
			{"PUBLISH 0", encoded(v, pub(0, 0, "x")), stays, 0},
			{"PUBLISH 1", encoded(v, pub(1, 9, "x")), stays, 0},
			{"PUBLISH 2", encoded(v, pub(2, 9, "x")), stays, 0},
			{"PUBACK", encoded(v, &packet.Puback{ID: 9}), stays, 0},
			{"PUBREC", encoded(v, &packet.Pubrec{ID: 9}), stays, 0},
			{"PUBREL", encoded(v, &packet.Pubrel{ID: 9}), stays, 0},
			{"PUBCOMP", encoded(v, &packet.Pubcomp{ID: 9}), stays, 0},
			{"SUBSCRIBE", encoded(v, &packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a"}}}), mqtt.ProtocolError, 0},
			{"SUBACK", encoded(v, &packet.Suback{ID: 9, Codes: codes}), stays, 0},
			{"UNSUBSCRIBE", encoded(v, &packet.Unsubscribe{ID: 1, Filters: []string{"a"}}), mqtt.ProtocolError, 0},
			{"UNSUBACK", encoded(v, &packet.Unsuback{ID: 9, Codes: codes}), stays, 0},
			{"PINGREQ", encoded(v, &packet.Pingreq{}), mqtt.ProtocolError, 0},
			{"PINGRESP", encoded(v, &packet.Pingresp{}), stays, 0},
			{"DISCONNECT", encoded(mqtt.V5, &packet.Disconnect{Code: mqtt.ServerBusy}), ends, 0},
			{"DISCONNECT with an expiry", []byte{0xe0, 7, 0, 5, 0x11, 0, 0, 0, 1}, mqtt.ProtocolError, 0}, // 3.14.2.2.2
			{"AUTH", encoded(mqtt.V5, &packet.Auth{Code: mqtt.ContinueAuthentication}), mqtt.ProtocolError, 0},
			{"type 0", []byte{0x00, 0}, mqtt.MalformedPacket, mqtt.MalformedPacket},                                       // 2.1.2
			{"length of five bytes", []byte{0x30, 0xff, 0xff, 0xff, 0xff, 1}, mqtt.MalformedPacket, mqtt.MalformedPacket}, // 1.5.5
			{"flags of PUBACK", []byte{0x41, 2, 0, 9}, mqtt.MalformedPacket, 0},                                           // 2.1.3
			{"flags of PUBREL", []byte{0x60, 2, 0, 9}, mqtt.MalformedPacket, 0},                                           // 3.6.1
			{"PINGRESP with a body", []byte{0xd0, 1, 0}, mqtt.MalformedPacket, 0},                                         // 3.13
			{"PUBREC that is cut", []byte{0x50, 1, 0}, mqtt.MalformedPacket, 0},
			{"PUBREL that is cut", []byte{0x62, 1, 0}, mqtt.MalformedPacket, 0},
			{"PUBCOMP that is cut", []byte{0x70, 1, 0}, mqtt.MalformedPacket, 0},
			{"SUBACK that is cut", []byte{0x90, 1, 0}, mqtt.MalformedPacket, 0},
			{"UNSUBACK that is cut", []byte{0xb0, 1, 0}, mqtt.MalformedPacket, 0},
			{"PUBACK that is cut", []byte{0x40, 1, 0}, mqtt.MalformedPacket, 0},                 // 3.4.2
			{"qos 3", []byte{0x36, 5, 0, 1, 't', 0, 9}, mqtt.MalformedPacket, 0},                // 3.3.1.2
			{"duplicate at qos 0", []byte{0x38, 4, 0, 1, 't', 0}, mqtt.MalformedPacket, 0},      // 3.3.1.1
			{"topic beyond the packet", []byte{0x30, 3, 0, 9, 't'}, mqtt.MalformedPacket, 0},    // 1.5.4
			{"topic with U+0000", []byte{0x30, 4, 0, 1, 0, 0}, mqtt.MalformedPacket, 0},         // 1.5.4
			{"topic that is no UTF-8", []byte{0x30, 4, 0, 1, 0xff, 0}, mqtt.MalformedPacket, 0}, // 1.5.4
			{"topic with a wildcard", []byte{0x30, 4, 0, 1, '#', 0}, mqtt.MalformedPacket, 0},   // 3.3.2.1
		}
		if v != mqtt.V5 {
			return append(all, row{"no topic", []byte{0x30, 2, 0, 0}, mqtt.MalformedPacket, 0}) // 4.7.3
		}
		return append(all, []row{
			{"packet beyond our maximum", []byte{0x30, 0xff, 0xff, 0x7f}, mqtt.PacketTooLarge, mqtt.PacketTooLarge}, // 3.1.2.11.4
			{"flags of DISCONNECT", []byte{0xe1, 0}, mqtt.MalformedPacket, 0},
			{"packet identifier 0", []byte{0x32, 6, 0, 1, 't', 0, 0, 0}, mqtt.ProtocolError, 0},     // 2.2.1
			{"topic alias 0", []byte{0x30, 7, 0, 1, 't', 3, 0x23, 0, 0}, mqtt.TopicAliasInvalid, 0}, // 3.3.2.3.4
			{"topic alias above our maximum", []byte{0x30, 7, 0, 1, 't', 3, 0x23, 0, 65}, mqtt.TopicAliasInvalid, 0},
			{"topic alias that is not known", []byte{0x30, 6, 0, 0, 3, 0x23, 0, 1}, mqtt.ProtocolError, 0},
			{"topic alias twice", []byte{0x30, 10, 0, 1, 't', 6, 0x23, 0, 1, 0x23, 0, 1}, mqtt.ProtocolError, 0},  // 2.2.2.2
			{"neither topic nor alias", []byte{0x30, 3, 0, 0, 0}, mqtt.ProtocolError, 0},                          // 3.3.2.1
			{"property of another packet", []byte{0x30, 7, 0, 1, 't', 3, 0x21, 0, 1}, mqtt.MalformedPacket, 0},    // 2.2.2.2
			{"AUTH that asks for it", encoded(v, &packet.Auth{Code: mqtt.ReAuthenticate}), mqtt.ProtocolError, 0}, // 3.15.2.1
		}...)
	}
	for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		for _, r := range append(rows(v), row{name: "CONNACK", stream: encoded(v, &packet.Connack{}), after: mqtt.ProtocolError}) {
			t.Run(fmt.Sprintf("%d, after CONNACK, %s", v, r.name), func(t *testing.T) { serverSaysAt(t, v, false, r.stream, r.after) })
		}
		for _, r := range rows(v) {
			t.Run(fmt.Sprintf("%d, for CONNACK, %s", v, r.name), func(t *testing.T) {
				serverSaysAt(t, v, true, r.stream, cmp.Or(r.early, mqtt.ProtocolError))
			})
		}
	}
}

// serverSaysAt plays a server that sends a stream too early or once it has let us in, and then, on the next connection,
// behaves.
func serverSaysAt(t *testing.T, v mqtt.Version, early bool, stream []byte, want mqtt.ReasonCode) {
	if v != mqtt.V5 && want != stays {
		want = ends // there is no word for it
	}
	run(t, Options{Version: v, SessionExpiry: time.Hour, MaxPacket: 2000}, func(t *testing.T, b *bench) {
		b.publish(1, "kept")
		kept := pub(1, 1, "kept")
		s := <-b.conns
		s.v = v
		s.next()
		if !early {
			s.send(&packet.Connack{})
			s.expect(kept)
		}
		go s.nc.Write(stream) // it may not be read to its end
		if want == stays {
			s.sync()
			s.close()
		} else {
			if want != ends {
				s.expect(&packet.Disconnect{Code: want})
			}
			s.gone()
			if st := b.state(); st.Connected || st.Err == nil || strings.Contains(st.Err.Error(), "closed") {
				t.Errorf("%+v", st)
			}
			s.close()
		}
		s, _ = b.accept(packet.Connack{SessionPresent: !early})
		if !early {
			again(kept)
		}
		s.expect(kept)
		s.send(&packet.Puback{ID: 1})
		b.expectDone("kept")
	})
}

// sync sees that the client has read all that was sent, and lives: it answers what has no other meaning.
func (c *fakeConn) sync() {
	c.t.Helper()
	b, err := (&packet.Pubrel{ID: 777}).Append(nil, c.v)
	if err != nil {
		c.t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() { // the client may have to write before it reads on
		_, err := c.nc.Write(b)
		sent <- err
	}()
	for {
		if p, ok := c.next().(*packet.Pubcomp); ok && p.ID == 777 {
			break
		}
	}
	if err := <-sent; err != nil {
		c.t.Fatalf("writing to the client: %v", err)
	}
}

// What CONNACK must not say is told to the server and held against it: nothing goes over that connection, and what waits
// goes over the next [MQTT-3.2.2-1] [MQTT-3.2.2-6] [MQTT-3.2.2-8].
func TestConnackThatCannotBe(t *testing.T) {
	// set makes a CONNACK of 5.0 with the properties that are given as bytes.
	set := func(p ...byte) []byte { return append([]byte{0x20, byte(3 + len(p)), 0, 0, byte(len(p))}, p...) }
	for name, c := range map[string]struct {
		stream []byte
		want   mqtt.ReasonCode
	}{
		"receive maximum 0":            {set(0x21, 0, 0), mqtt.ProtocolError},       // 3.2.2.3.3
		"maximum qos 2":                {set(0x24, 2), mqtt.ProtocolError},          // 3.2.2.3.4
		"retain available 2":           {set(0x25, 2), mqtt.ProtocolError},          // 3.2.2.3.5
		"maximum packet size 0":        {set(0x27, 0, 0, 0, 0), mqtt.ProtocolError}, // 3.2.2.3.6
		"receive maximum twice":        {set(0x21, 0, 1, 0x21, 0, 1), mqtt.ProtocolError},
		"property of another packet":   {set(0x01, 1), mqtt.MalformedPacket},
		"properties beyond the packet": {[]byte{0x20, 3, 0, 0, 9}, mqtt.MalformedPacket},
		"reserved flags":               {[]byte{0x20, 3, 2, 0, 0}, mqtt.MalformedPacket},
		"session present, refused":     {[]byte{0x20, 3, 1, 0x87, 0}, mqtt.ProtocolError},
		"reason that it has not":       {[]byte{0x20, 3, 0, 0x42, 0}, mqtt.ProtocolError},
		"cut":                          {[]byte{0x20, 1, 0}, mqtt.MalformedPacket},
		// Two bytes are the least that any packet has, and five the most that our answers have.
		"maximum packet size 1": {set(0x27, 0, 0, 0, 1), ends},
		"maximum packet size 4": {set(0x27, 0, 0, 0, 4), ends},
	} {
		t.Run(name, func(t *testing.T) { serverSaysAt(t, mqtt.V5, true, c.stream, c.want) })
	}
	t.Run("maximum packet size 5", func(t *testing.T) {
		ack := packet.Connack{}
		ack.Properties.SetMaximumPacketSize(5)
		run(t, Options{Version: mqtt.V5}, func(t *testing.T, b *bench) {
			s, _ := b.accept(ack)
			b.publish(1, "x")
			b.expectDone("x: mqtt client: mqtt: publish refused: packet too large")
			s.sync()
		})
	})
}
