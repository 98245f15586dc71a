package packet

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"gateway/mqtt"
)

// Every malformed packet that the specifications name, with the reason code to answer with and the
// statement that it breaks. A name that starts with the statement is what the conformance table counts.
var malformed = []struct {
	name string
	v    mqtt.Version
	wire string
	code mqtt.ReasonCode
	stmt string
}{
	// 1.5.4: strings.
	{"surrogate in a topic", 5, "30 06 0003 eda080 00", mqtt.MalformedPacket, "MQTT-1.5.4-1"},
	{"overlong UTF-8", 4, "30 04 0002 c080", mqtt.MalformedPacket, "MQTT-1.5.4-1"},
	{"null in a topic", 4, "30 05 0003 610062", mqtt.MalformedPacket, "MQTT-1.5.4-2"},
	{"null in a client identifier", 5, "10 10 0004 4d515454 05 02 0000 00 0003 610062", mqtt.MalformedPacket, "MQTT-1.5.4-2"},
	{"null in a filter", 4, "82 08 0001 0003 610062 00", mqtt.MalformedPacket, "MQTT-1.5.4-2"},
	{"ill-formed user property", 5, "30 0d 0001 61 09 26 0001 61 0003 61ff63", mqtt.MalformedPacket, "MQTT-1.5.4-1"},
	{"null in a user property", 5, "30 0d 0001 61 09 26 0001 00 0003 616263", mqtt.MalformedPacket, "MQTT-1.5.4-2"},
	// 1.5.5: variable byte integers.
	{"property length longer than needed", 5, "30 05 0001 61 8000", mqtt.MalformedPacket, "MQTT-1.5.5-1"},
	{"property length of five bytes", 5, "30 08 0001 61 8080808001", mqtt.MalformedPacket, "MQTT-1.5.5-1"},
	{"remaining length longer than needed", 4, "c0 8000", mqtt.MalformedPacket, "MQTT-1.5.5-1"},
	{"remaining length of five bytes", 4, "30 8080808001", mqtt.MalformedPacket, "MQTT-1.5.5-1"},
	// 2.1: the fixed header.
	{"reserved type", 4, "00 00", mqtt.MalformedPacket, ""},
	{"AUTH before 5.0", 4, "f0 00", mqtt.ProtocolError, ""},
	{"flags of CONNECT", 4, "11 0d 0004 4d515454 04 02 0000 0001 61", mqtt.MalformedPacket, "MQTT-2.1.3-1"},
	{"flags of CONNACK", 4, "21 02 0000", mqtt.MalformedPacket, "MQTT-2.1.3-1"},
	{"flags of PUBACK", 4, "42 02 0001", mqtt.MalformedPacket, "MQTT-2.1.3-1"},
	{"flags of PUBREL", 4, "60 02 0001", mqtt.MalformedPacket, "MQTT-3.6.1-1"},
	{"flags of SUBSCRIBE", 5, "80 07 0001 00 0001 61 00", mqtt.MalformedPacket, "MQTT-3.8.1-1"},
	{"flags of UNSUBSCRIBE", 4, "a0 05 0001 0001 61", mqtt.MalformedPacket, "MQTT-3.10.1-1"},
	{"flags of PINGREQ", 4, "c1 00", mqtt.MalformedPacket, "MQTT-2.1.3-1"},
	{"flags of DISCONNECT", 4, "e1 00", mqtt.MalformedPacket, "MQTT-3.14.1-1"},
	{"flags of AUTH", 5, "f1 00", mqtt.MalformedPacket, "MQTT-3.15.1-1"},
	{"CONNACK of two bytes that is no refusal of 5.0", 5, "20 02 00 00", mqtt.MalformedPacket, ""},
	{"CONNACK of two bytes with a reason code", 5, "20 02 00 87", mqtt.MalformedPacket, ""},
	{"CONNACK with a reserved return code", 4, "20 02 00 06", mqtt.ProtocolError, ""},
	{"PINGREQ with a body", 4, "c0 01 00", mqtt.MalformedPacket, ""},
	{"DISCONNECT with a body before 5.0", 4, "e0 01 00", mqtt.MalformedPacket, ""},
	// 2.2.1: packet identifiers.
	{"PUBLISH with identifier 0", 4, "32 05 0001 61 0000", mqtt.ProtocolError, "MQTT-2.2.1-3"},
	{"SUBSCRIBE with identifier 0", 4, "82 06 0000 0001 61 00", mqtt.ProtocolError, "MQTT-2.2.1-3"},
	{"UNSUBSCRIBE with identifier 0", 4, "a2 05 0000 0001 61", mqtt.ProtocolError, "MQTT-2.2.1-3"},
	{"PUBACK with identifier 0", 4, "40 02 0000", mqtt.ProtocolError, "MQTT-2.2.1-3"},
	// 2.2.2: properties.
	{"unknown property", 5, "30 06 0001 61 02 7f00", mqtt.MalformedPacket, ""},
	{"property of another packet", 5, "30 08 0001 61 04 120001 61", mqtt.MalformedPacket, ""},
	{"property twice", 5, "30 08 0001 61 04 01000101", mqtt.ProtocolError, ""},
	{"subscription identifier twice in SUBSCRIBE", 5, "82 0b 0001 04 0b010b02 0001 61 00", mqtt.ProtocolError, ""},
	{"subscription identifier 0", 5, "82 09 0001 02 0b00 0001 61 00", mqtt.ProtocolError, ""},
	{"properties beyond the packet", 5, "30 04 0001 61 05", mqtt.MalformedPacket, ""},
	{"property cut short by the property length", 5, "30 09 0001 61 03 0200000001", mqtt.MalformedPacket, ""},
	{"payload format 2", 5, "30 06 0001 61 02 0102", mqtt.ProtocolError, ""},
	{"topic alias 0", 5, "30 07 0001 61 03 230000", mqtt.TopicAliasInvalid, "MQTT-3.3.2-8"},
	{"response topic with a wildcard", 5, "30 08 0001 61 04 080001 23", mqtt.MalformedPacket, "MQTT-3.3.2-14"},
	{"receive maximum 0", 5, "10 10 0004 4d515454 05 02 0000 03 210000 0000", mqtt.ProtocolError, ""},
	{"maximum packet size 0", 5, "10 12 0004 4d515454 05 02 0000 05 2700000000 0000", mqtt.ProtocolError, ""},
	{"request problem information 2", 5, "10 0f 0004 4d515454 05 02 0000 02 1702 0000", mqtt.ProtocolError, ""},
	{"authentication data without a method", 5, "10 11 0004 4d515454 05 02 0000 04 160001 00 0000", mqtt.ProtocolError, ""},
	{"will delay outside of the will", 5, "10 12 0004 4d515454 05 02 0000 05 1800000001 0000", mqtt.MalformedPacket, ""},
	{"maximum QoS 2", 5, "20 05 0000 02 2402", mqtt.ProtocolError, ""},
	// 3.1: CONNECT.
	{"another protocol name", 4, "10 0d 0004 4d515455 04 02 0000 0001 61", mqtt.UnsupportedVersion, "MQTT-3.1.2-1"},
	{"protocol name in small letters", 4, "10 0d 0004 6d717474 04 02 0000 0001 61", mqtt.UnsupportedVersion, "MQTT-3.1.2-1"},
	{"version 6", 4, "10 0d 0004 4d515454 06 02 0000 0001 61", mqtt.UnsupportedVersion, "MQTT-3.1.2-2"},
	{"version 3 under the new name", 4, "10 0d 0004 4d515454 03 02 0000 0001 61", mqtt.UnsupportedVersion, "MQTT-3.1.2-2"},
	{"version 4 under the old name", 4, "10 0f 0006 4d5149736470 04 02 0000 0001 61", mqtt.UnsupportedVersion, "MQTT-3.1.2-2"},
	{"reserved connect flag", 4, "10 0d 0004 4d515454 04 03 0000 0001 61", mqtt.MalformedPacket, "MQTT-3.1.2-3"},
	{"will QoS without a will", 4, "10 0d 0004 4d515454 04 0a 0000 0001 61", mqtt.MalformedPacket, "MQTT-3.1.2-11"},
	{"will QoS 3", 4, "10 12 0004 4d515454 04 1e 0000 0001 61 0001 77 0000", mqtt.MalformedPacket, "MQTT-3.1.2-12"},
	{"will retain without a will", 4, "10 0d 0004 4d515454 04 22 0000 0001 61", mqtt.MalformedPacket, "MQTT-3.1.2-13"},
	{"password without a user name in 3.1.1", 4, "10 10 0004 4d515454 04 42 0000 0001 61 0001 70", mqtt.MalformedPacket, "MQTT-3.1.2-22 of 3.1.1"},
	{"no user name although its flag is set", 4, "10 0d 0004 4d515454 04 82 0000 0001 61", mqtt.MalformedPacket, ""},
	{"a password although its flag is not set", 4, "10 10 0004 4d515454 04 02 0000 0001 61 0001 70", mqtt.MalformedPacket, ""},
	{"will topic with a wildcard", 4, "10 12 0004 4d515454 04 06 0000 0001 61 0001 23 0000", mqtt.MalformedPacket, "MQTT-4.7.1-1"},
	{"empty will topic", 4, "10 11 0004 4d515454 04 06 0000 0001 61 0000 0000", mqtt.MalformedPacket, "MQTT-4.7.3-1"},
	{"no client identifier for a session to be kept", 4, "10 0c 0004 4d515454 04 00 0000 0000", mqtt.ClientIDNotValid, "MQTT-3.1.3-8 of 3.1.1"},
	{"no client identifier in 3.1", 3, "10 0e 0006 4d5149736470 03 02 0000 0000", mqtt.ClientIDNotValid, "MQTT-3.1.3-8 of 3.1.1"},
	// 3.2: CONNACK.
	{"reserved acknowledge flags", 5, "20 03 0200 00", mqtt.MalformedPacket, "MQTT-3.2.2-1"},
	{"session present with a refusal", 4, "20 02 0105", mqtt.ProtocolError, "MQTT-3.2.2-6"},
	{"return code 6 in 3.1.1", 4, "20 02 0006", mqtt.ProtocolError, ""},
	{"reason code of another packet in CONNACK", 5, "20 03 0010 00", mqtt.ProtocolError, "MQTT-3.2.2-8"},
	// 3.3: PUBLISH.
	{"QoS 3", 4, "36 05 0001 61 0001", mqtt.MalformedPacket, "MQTT-3.3.1-4"},
	{"duplicate flag at QoS 0", 4, "38 03 0001 61", mqtt.MalformedPacket, "MQTT-3.3.1-2"},
	{"wildcard + in a topic", 4, "30 05 0003 612f2b", mqtt.MalformedPacket, "MQTT-3.3.2-2"},
	{"wildcard # in a topic", 5, "30 06 0003 612f23 00", mqtt.MalformedPacket, "MQTT-3.3.2-2"},
	{"empty topic", 4, "30 02 0000", mqtt.MalformedPacket, "MQTT-4.7.3-1"},
	{"empty topic without an alias", 5, "30 03 0000 00", mqtt.ProtocolError, ""},
	{"topic longer than the packet", 4, "30 03 0005 61", mqtt.MalformedPacket, ""},
	{"no room for the identifier", 4, "32 04 0001 61 00", mqtt.MalformedPacket, ""},
	// 3.4 to 3.7: the acknowledgements.
	{"reason code of another packet in PUBACK", 5, "40 03 0001 01", mqtt.ProtocolError, "MQTT-3.4.2-1"},
	{"reason code of another packet in PUBREC", 5, "50 03 0001 92", mqtt.ProtocolError, "MQTT-3.5.2-1"},
	{"reason code of another packet in PUBREL", 5, "62 03 0001 10", mqtt.ProtocolError, "MQTT-3.6.2-1"},
	{"reason code of another packet in PUBCOMP", 5, "70 03 0001 80", mqtt.ProtocolError, "MQTT-3.7.2-1"},
	{"PUBACK too long before 5.0", 4, "40 03 0001 00", mqtt.MalformedPacket, ""},
	{"PUBACK too short", 4, "40 01 00", mqtt.MalformedPacket, ""},
	// 3.8, 3.10: SUBSCRIBE and UNSUBSCRIBE.
	{"SUBSCRIBE without a filter", 4, "82 02 0001", mqtt.ProtocolError, "MQTT-3.8.3-2"},
	{"SUBSCRIBE without options (mochi#501)", 5, "82 06 0001 00 0001 61", mqtt.MalformedPacket, ""},
	{"SUBSCRIBE cut in its properties (mochi#501)", 5, "82 03 0001 0b", mqtt.MalformedPacket, ""},
	{"reserved subscription options", 5, "82 07 0001 00 0001 61 40", mqtt.MalformedPacket, "MQTT-3.8.3-5"},
	{"options of 5.0 in 3.1.1", 4, "82 06 0001 0001 61 04", mqtt.MalformedPacket, "MQTT-3.8.3-5"},
	{"maximum QoS 3", 4, "82 06 0001 0001 61 03", mqtt.ProtocolError, "MQTT-3.8.3-4 of 3.1.1"},
	{"retain handling 3", 5, "82 07 0001 00 0001 61 30", mqtt.ProtocolError, ""},
	{"no local on a shared subscription", 5, "82 10 0001 00 000a 2473686172652f672f61 04", mqtt.ProtocolError, "MQTT-3.8.3-4"},
	{"empty filter", 4, "82 05 0001 0000 00", mqtt.MalformedPacket, "MQTT-4.7.3-1"},
	{"# not last", 4, "82 08 0001 0003 232f61 00", mqtt.MalformedPacket, "MQTT-4.7.1-1"},
	{"+ beside a character", 4, "82 07 0001 0002 612b 00", mqtt.MalformedPacket, "MQTT-4.7.1-2"},
	{"wildcard in a share name", 5, "82 10 0001 00 000a 2473686172652f2b2f61 00", mqtt.MalformedPacket, "MQTT-4.8.2-1"},
	{"share name without a filter", 5, "82 0f 0001 00 0009 2473686172652f672f 00", mqtt.MalformedPacket, "MQTT-4.8.2-2"},
	{"UNSUBSCRIBE without a filter", 4, "a2 02 0001", mqtt.ProtocolError, "MQTT-3.10.3-2"},
	{"UNSUBSCRIBE with a bad filter", 4, "a2 06 0001 0002 6123", mqtt.MalformedPacket, "MQTT-4.7.1-1"},
	// 3.9, 3.11: their answers.
	{"SUBACK without a code", 4, "90 02 0001", mqtt.ProtocolError, ""},
	{"reserved return code in SUBACK", 4, "90 03 0001 03", mqtt.ProtocolError, "MQTT-3.9.3-2 of 3.1.1"},
	{"reason code of another packet in SUBACK", 5, "90 04 0001 00 10", mqtt.ProtocolError, "MQTT-3.9.3-2"},
	{"UNSUBACK without a code", 5, "b0 03 0001 00", mqtt.ProtocolError, ""},
	{"reason code of another packet in UNSUBACK", 5, "b0 04 0001 00 01", mqtt.ProtocolError, "MQTT-3.11.3-2"},
	// 3.14, 3.15.
	{"reason code of another packet in DISCONNECT", 5, "e0 01 01", mqtt.ProtocolError, "MQTT-3.14.2-1"},
	{"AUTH without a property length", 5, "f0 01 18", mqtt.MalformedPacket, ""},
	{"reason code of another packet in AUTH", 5, "f0 02 04 00", mqtt.ProtocolError, "MQTT-3.15.2-1"},
}

// Every string of a packet is checked, also the halves of a pair [MQTT-1.5.7-1], client identifier, will topic and
// user name [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12], filters [MQTT-3.8.3-1] [MQTT-3.10.3-1], response topic
// and content type [MQTT-3.3.2-13] [MQTT-3.3.2-19].
func TestEveryStringIsChecked(t *testing.T) {
	bad := "\xff"
	connect := func(set func(c *Connect)) *Connect {
		c := &Connect{Version: mqtt.V5, ClientID: "c"}
		set(c)
		return c
	}
	publish := func(set func(p *Properties)) *Publish { return &Publish{Topic: "t", Properties: props(set)} }
	for i, p := range []Packet{
		connect(func(c *Connect) { c.ClientID = bad }),
		connect(func(c *Connect) { c.Will = &Will{Topic: bad} }),
		connect(func(c *Connect) { c.HasUsername, c.Username = true, bad }),
		connect(func(c *Connect) { c.Properties.SetAuthMethod(bad) }),
		&Publish{Topic: bad},
		publish(func(p *Properties) { p.SetContentType(bad) }),
		publish(func(p *Properties) { p.SetResponseTopic(bad) }),
		publish(func(p *Properties) { p.SetUser([]mqtt.UserProperty{{Name: bad}}) }),
		publish(func(p *Properties) { p.SetUser([]mqtt.UserProperty{{Value: bad}}) }),
		&Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: bad}}},
		&Unsubscribe{ID: 1, Filters: []string{bad}},
	} {
		b, err := p.Append(nil, mqtt.V5)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readOne(b, mqtt.V5); Code(err) != mqtt.MalformedPacket {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestMalformed(t *testing.T) {
	for _, c := range malformed {
		name := c.name
		if c.stmt != "" {
			name = strings.ReplaceAll(c.stmt, " ", "_") + "/" + c.name
		}
		t.Run(name, func(t *testing.T) {
			p, err := readOne(unhex(t, c.wire), c.v)
			e, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("%v, %v", p, err)
			}
			if e.Code != c.code || e.Statement != c.stmt {
				t.Errorf("%v", err)
			}
		})
	}
}

// Each packet knows the reason codes of its table (tables 3-1 to 3-11) and no others. Bad authentication method is
// DISCONNECT's by table 2-6 only.
// [MQTT-3.2.2-8] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1] [MQTT-3.9.3-2] [MQTT-3.11.3-2] [MQTT-3.14.2-1] [MQTT-3.15.2-1]
func TestReasonCodesOfEachPacket(t *testing.T) {
	for typ, list := range map[Type]string{
		CONNACK:    "00 80 81 82 83 84 85 86 87 88 89 8a 8c 90 95 97 99 9a 9b 9c 9d 9f",
		PUBACK:     "00 10 80 83 87 90 91 97 99",
		PUBREC:     "00 10 80 83 87 90 91 97 99",
		PUBREL:     "00 92",
		PUBCOMP:    "00 92",
		SUBACK:     "00 01 02 80 83 87 8f 91 97 9e a1 a2",
		UNSUBACK:   "00 11 80 83 87 8f 91",
		DISCONNECT: "00 04 80 81 82 83 87 89 8b 8c 8d 8e 8f 90 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f a0 a1 a2",
		AUTH:       "00 18 19",
	} {
		own := unhex(t, list)
		for c := range 256 {
			var f Frame
			switch code := byte(c); typ {
			case CONNACK:
				f.Body = []byte{0, code, 0}
			case SUBACK, UNSUBACK:
				f.Body = []byte{0, 1, 0, code}
			case DISCONNECT, AUTH:
				f.Body = []byte{code, 0}
			case PUBREL:
				f.Flags, f.Body = 2, []byte{0, 1, code}
			default:
				f.Body = []byte{0, 1, code}
			}
			f.Type = typ
			_, err := Decode(f, mqtt.V5)
			if want := bytes.IndexByte(own, byte(c)) >= 0; want != (err == nil) || !want && Code(err) != mqtt.ProtocolError {
				t.Errorf("%s with %#x: %v", typ, c, err)
			}
		}
	}
}

// An error says what, where and with which reason.
func TestErrorText(t *testing.T) {
	_, err := readOne(unhex(t, "36 05 0001 61 0001"), mqtt.V311)
	if got := err.Error(); got != "mqtt packet: PUBLISH: qos is 3 (malformed packet, MQTT-3.3.1-4)" {
		t.Error(got)
	}
	if Code(errors.New("x")) != mqtt.UnspecifiedError || Code(err) != mqtt.MalformedPacket {
		t.Error("Code")
	}
}

// A server must know how to answer a version that it does not speak.
func TestUnknownVersionIsTold(t *testing.T) {
	var p Connect
	f, _ := NewReader(strings.NewReader(string(unhex(t, "10 0d 0004 4d515454 06 02 0000 0001 61"))), 0, nil).Next()
	if err := p.Decode(f, 0); Code(err) != mqtt.UnsupportedVersion || p.Version != 6 {
		t.Errorf("%v, version %d", err, p.Version)
	}
}

// Old devices speak 3.1, where SUBSCRIBE and PUBREL may carry the duplicate flag, the fixed flags of CONNECT are
// not used, those of a will are disregarded without one, and what a flag announces may be missing at the end.
func TestLeniencyFor31(t *testing.T) {
	const old, new = "0006 4d5149736470 03", "0004 4d515454 04"
	for _, wire := range []string{
		"8a 06 0001 0001 61 00", "6a 02 0001", "38 03 0001 61",
		"14 0f " + old + " 02 0000 0001 61",
		"10 0f " + old + " 03 0000 0001 61",
		"10 0f " + old + " 3a 0000 0001 61",
		"10 0f " + old + " 82 0000 0001 61",
		"10 12 " + old + " c2 0000 0001 61 0001 75",
	} {
		if _, err := readOne(unhex(t, wire), mqtt.V31); err != nil {
			t.Errorf("%s: %v", wire, err)
		}
		// The name of 3.1.1 is two bytes shorter, and so is its CONNECT.
		now := strings.NewReplacer(old, new, " 0f ", " 0d ", " 12 ", " 10 ").Replace(wire)
		if _, err := readOne(unhex(t, now), mqtt.V311); err == nil {
			t.Errorf("%s passes in 3.1.1", now)
		}
	}
	// What is there still has to be right.
	for _, wire := range []string{
		"10 0f " + old + " 42 0000 0001 61",              // a password's flag without a user name's
		"10 14 " + old + " 1e 0000 0001 61 0001 77 0000", // will qos 3
		"10 10 " + old + " 82 0000 0001 61 00",           // half of a length
		"10 11 " + old + " 02 0000 0001 61 0000",         // something after the end
	} {
		if _, err := readOne(unhex(t, wire), mqtt.V31); Code(err) != mqtt.MalformedPacket {
			t.Errorf("%s: %v", wire, err)
		}
	}
}
