package packet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gateway/mqtt"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// equal compares packets as the wire sees them: which properties are there counts, an empty slice
// is a nil one.
var equal = cmp.Options{cmpopts.EquateEmpty(), cmp.AllowUnexported(Properties{})}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(strings.ReplaceAll(s, " ", ""), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// props builds properties by setters.
func props(set func(p *Properties)) Properties {
	var p Properties
	set(&p)
	return p
}

// golden are packets and what they look like on the wire, worked out by hand from the specifications.
var golden = []struct {
	name string
	v    mqtt.Version
	p    Packet
	wire string
}{
	{"connect 3.1", mqtt.V31, &Connect{Version: mqtt.V31, CleanStart: true, KeepAlive: 60, ClientID: "a"}, "10 0f 0006 4d5149736470 03 02 003c 0001 61"},
	{"connect 3.1, a bridge", mqtt.V31, &Connect{Version: mqtt.V31, Bridge: true, CleanStart: true, KeepAlive: 60, ClientID: "a"}, "10 0f 0006 4d5149736470 83 02 003c 0001 61"},
	{"connect 3.1.1, a bridge", mqtt.V311, &Connect{Version: mqtt.V311, Bridge: true, CleanStart: true, KeepAlive: 60, ClientID: "a"}, "10 0d 0004 4d515454 84 02 003c 0001 61"},
	{"connect 3.1.1", mqtt.V311, &Connect{Version: mqtt.V311, CleanStart: true, KeepAlive: 10, ClientID: "ab",
		Will: &Will{Topic: "w", Payload: []byte("x"), QoS: 1, Retain: true}, HasUsername: true, Username: "u", HasPassword: true, Password: []byte{0}},
		"10 1a 0004 4d515454 04 ee 000a 0002 6162 0001 77 0001 78 0001 75 0001 00"},
	{"connect 5.0", mqtt.V5, &Connect{Version: mqtt.V5, KeepAlive: 0, ClientID: "",
		Properties: props(func(p *Properties) { p.SetSessionExpiry(10); p.SetReceiveMaximum(20) }),
		Will:       &Will{Topic: "w", Properties: props(func(p *Properties) { p.SetWillDelay(5) })}},
		"10 20 0004 4d515454 05 04 0000 08 11 0000000a 21 0014 0000 05 18 00000005 0001 77 0000"},
	{"connack 3.1.1", mqtt.V311, &Connack{SessionPresent: true}, "20 02 01 00"},
	{"connack 3.1.1 refused", mqtt.V311, &Connack{Code: mqtt.NotAuthorized}, "20 02 00 05"},
	{"connack 5.0", mqtt.V5, &Connack{Code: mqtt.Success, Properties: props(func(p *Properties) { p.SetAssignedClientID("x"); p.SetMaximumQoS(1); p.SetRetainAvailable(false) })},
		"20 0b 00 00 08 12 0001 78 24 01 25 00"},
	{"connect 5.0 with every property", mqtt.V5, &Connect{Version: mqtt.V5, CleanStart: true, KeepAlive: 60, ClientID: "a", Properties: props(func(p *Properties) {
		p.SetSessionExpiry(1)
		p.SetAuthMethod("m")
		p.SetAuthData([]byte{1})
		p.SetRequestProblemInfo(true)
		p.SetRequestResponseInfo(true)
		p.SetReceiveMaximum(5)
		p.SetTopicAliasMaximum(6)
		p.SetUser([]mqtt.UserProperty{{Name: "k", Value: "v"}})
		p.SetMaximumPacketSize(256)
	})}, "10 31 0004 4d515454 05 02 003c 23 11 00000001 15 0001 6d 16 0001 01 17 01 19 01 21 0005 22 0006 26 0001 6b 0001 76 27 00000100 0001 61"},
	{"connect 5.0 with every property of a will", mqtt.V5, &Connect{Version: mqtt.V5, CleanStart: true, KeepAlive: 60, ClientID: "a", Will: &Will{Topic: "w", Properties: props(func(p *Properties) {
		p.SetPayloadFormat(1)
		p.SetMessageExpiry(60)
		p.SetContentType("t")
		p.SetResponseTopic("r")
		p.SetCorrelationData([]byte("c"))
		p.SetWillDelay(5)
		p.SetUser([]mqtt.UserProperty{{Name: "k", Value: "v"}})
	})}}, "10 33 0004 4d515454 05 06 003c 00 0001 61 1f 01 01 02 0000003c 03 0001 74 08 0001 72 09 0001 63 18 00000005 26 0001 6b 0001 76 0001 77 0000"},
	{"connack 5.0 with every property", mqtt.V5, &Connack{Properties: props(func(p *Properties) {
		p.SetSessionExpiry(1)
		p.SetAssignedClientID("a")
		p.SetServerKeepAlive(60)
		p.SetAuthMethod("m")
		p.SetAuthData([]byte{1})
		p.SetResponseInfo("r")
		p.SetServerReference("s")
		p.SetReasonString("t")
		p.SetReceiveMaximum(5)
		p.SetTopicAliasMaximum(6)
		p.SetMaximumQoS(1)
		p.SetRetainAvailable(true)
		p.SetUser([]mqtt.UserProperty{{Name: "k", Value: "v"}})
		p.SetMaximumPacketSize(256)
		p.SetWildcardAvailable(true)
		p.SetSubscriptionIDsAvailable(true)
		p.SetSharedAvailable(true)
	})}, "20 3f 00 00 3c 11 00000001 12 0001 61 13 003c 15 0001 6d 16 0001 01 1a 0001 72 1c 0001 73 1f 0001 74 21 0005 22 0006 24 01 25 01 26 0001 6b 0001 76 27 00000100 28 01 29 01 2a 01"},
	{"publish qos 0", mqtt.V311, &Publish{Topic: "a/b", Payload: []byte("hi")}, "30 07 0003 612f62 6869"},
	{"publish qos 2", mqtt.V311, &Publish{Topic: "a", QoS: 2, Dup: true, Retain: true, ID: 0x1234}, "3d 05 0001 61 1234"},
	{"publish 5.0", mqtt.V5, &Publish{Topic: "a", QoS: 1, ID: 10, Payload: []byte("x")}, "32 07 0001 61 000a 00 78"},
	{"publish 5.0 with properties", mqtt.V5, &Publish{Topic: "a", Properties: props(func(p *Properties) {
		p.SetPayloadFormat(1)
		p.SetMessageExpiry(60)
		p.SetTopicAlias(7)
		p.SetSubscriptionID(1, 128)
		p.SetUser([]mqtt.UserProperty{{Name: "k", Value: "v"}, {Name: "k", Value: "w"}})
	})}, "30 21 0001 61 1d 01 01 02 0000003c 0b 01 0b 8001 23 0007 26 0001 6b 0001 76 26 0001 6b 0001 77"},
	{"puback", mqtt.V311, &Puback{ID: 258}, "40 02 0102"},
	{"puback 5.0 success", mqtt.V5, &Puback{ID: 1}, "40 02 0001"},
	{"puback 5.0 refused", mqtt.V5, &Puback{ID: 1, Code: mqtt.QuotaExceeded}, "40 03 0001 97"},
	{"puback 5.0 with a reason", mqtt.V5, &Puback{ID: 1, Code: mqtt.NotAuthorized, Properties: props(func(p *Properties) { p.SetReasonString("no") })}, "40 09 0001 87 05 1f 0002 6e6f"},
	{"pubrec", mqtt.V311, &Pubrec{ID: 1}, "50 02 0001"},
	{"pubrel", mqtt.V311, &Pubrel{ID: 1}, "62 02 0001"},
	{"pubrel 5.0 unknown", mqtt.V5, &Pubrel{ID: 1, Code: mqtt.PacketIDNotFound}, "62 03 0001 92"},
	{"pubcomp", mqtt.V311, &Pubcomp{ID: 65535}, "70 02 ffff"},
	{"subscribe", mqtt.V311, &Subscribe{ID: 10, Subscriptions: []mqtt.Subscription{{Filter: "a/#", QoS: 1}, {Filter: "+", QoS: 2}}}, "82 0c 000a 0003 612f23 01 0001 2b 02"},
	{"subscribe 5.0", mqtt.V5, &Subscribe{ID: 10, Subscriptions: []mqtt.Subscription{{Filter: "a", QoS: 1, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}},
		Properties: props(func(p *Properties) { p.SetSubscriptionID(268435455) })}, "82 0c 000a 05 0b ffffff7f 0001 61 2d"},
	{"suback", mqtt.V311, &Suback{ID: 10, Codes: []mqtt.ReasonCode{0, 1, 2, 0x80}}, "90 06 000a 00 01 02 80"},
	{"suback 5.0", mqtt.V5, &Suback{ID: 10, Codes: []mqtt.ReasonCode{mqtt.WildcardsNotSupported}}, "90 04 000a 00 a2"},
	{"unsubscribe", mqtt.V311, &Unsubscribe{ID: 11, Filters: []string{"a", "b"}}, "a2 08 000b 0001 61 0001 62"},
	{"unsubscribe 5.0", mqtt.V5, &Unsubscribe{ID: 11, Filters: []string{"a"}}, "a2 06 000b 00 0001 61"},
	{"unsuback", mqtt.V311, &Unsuback{ID: 11}, "b0 02 000b"},
	{"unsuback 5.0", mqtt.V5, &Unsuback{ID: 11, Codes: []mqtt.ReasonCode{0, mqtt.NoSubscriptionExisted}}, "b0 05 000b 00 00 11"},
	{"pingreq", mqtt.V311, &Pingreq{}, "c0 00"},
	{"pingresp", mqtt.V5, &Pingresp{}, "d0 00"},
	{"disconnect", mqtt.V311, &Disconnect{}, "e0 00"},
	{"disconnect 5.0", mqtt.V5, &Disconnect{}, "e0 00"},
	{"disconnect 5.0 with will", mqtt.V5, &Disconnect{Code: mqtt.DisconnectWithWill}, "e0 01 04"},
	{"disconnect 5.0 with expiry", mqtt.V5, &Disconnect{Properties: props(func(p *Properties) { p.SetSessionExpiry(1) })}, "e0 07 00 05 11 00000001"},
	{"auth", mqtt.V5, &Auth{Code: mqtt.ContinueAuthentication, Properties: props(func(p *Properties) { p.SetAuthMethod("m"); p.SetAuthData([]byte{1}) })}, "f0 0a 18 08 15 0001 6d 16 0001 01"},
	{"auth success", mqtt.V5, &Auth{}, "f0 00"},
}

// On the wire: no identifier at QoS 0 [MQTT-2.2.1-2]; a property length of 0 for none [MQTT-2.2.2-1]; CONNECT's
// fields in their order, each where its flag is and nowhere else [MQTT-3.1.2-9] [MQTT-3.1.2-16] [MQTT-3.1.2-17]
// [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.3-1] [MQTT-3.1.3-3]; the topic name first [MQTT-3.3.2-1].
func TestGolden(t *testing.T) {
	for _, g := range golden {
		t.Run(g.name, func(t *testing.T) {
			want := unhex(t, g.wire)
			got, err := g.p.Append([]byte{0xAA}, g.v)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got[1:], want) {
				t.Errorf("encoded\n%x, want\n%x", got[1:], want)
			}
			p, err := readOne(want, g.v)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(g.p, p, equal); d != "" {
				t.Error(d)
			}
			// Every shorter packet is malformed or means something else; none may pass as this one.
			for i := range want {
				if q, err := readOne(want[:i], g.v); err == nil {
					t.Errorf("%x: accepted as %v", want[:i], q)
				}
			}
		})
	}
}

func readOne(wire []byte, v mqtt.Version) (Packet, error) {
	f, err := NewReader(bytes.NewReader(wire), 0, nil).Next()
	if err != nil {
		return nil, err
	}
	return Decode(f, v)
}

// What another implementation may send though ours does not: the long forms.
func TestLongForms(t *testing.T) {
	for _, c := range []struct {
		wire string
		want Packet
	}{
		{"40 03 0001 00", &Puback{ID: 1}},
		{"40 04 0001 00 00", &Puback{ID: 1}},
		{"62 04 0001 92 00", &Pubrel{ID: 1, Code: mqtt.PacketIDNotFound}},
		{"e0 02 8e 00", &Disconnect{Code: mqtt.SessionTakenOver}},
		{"f0 02 00 00", &Auth{}},
		{"20 02 00 01", &Connack{Code: mqtt.UnsupportedVersion}},
	} {
		p, err := readOne(unhex(t, c.wire), mqtt.V5)
		if err != nil {
			t.Errorf("%s: %v", c.wire, err)
		} else if d := cmp.Diff(c.want, p, equal); d != "" {
			t.Errorf("%s: %s", c.wire, d)
		}
	}
}

func TestReturnCodesOf311(t *testing.T) {
	for code, want := range map[mqtt.ReasonCode]byte{
		mqtt.Success: 0, mqtt.UnsupportedVersion: 1, mqtt.ClientIDNotValid: 2, mqtt.ServerUnavailable: 3, mqtt.ServerBusy: 3,
		mqtt.BadUserNameOrPassword: 4, mqtt.NotAuthorized: 5, mqtt.Banned: 5, mqtt.QuotaExceeded: 3,
	} {
		b, err := (&Connack{Code: code}).Append(nil, mqtt.V311)
		if err != nil || b[3] != want {
			t.Errorf("%v: %x %v, want %d", code, b, err, want)
		}
	}
	b, _ := (&Suback{ID: 1, Codes: []mqtt.ReasonCode{mqtt.QuotaExceeded}}).Append(nil, mqtt.V311)
	if b[4] != 0x80 {
		t.Errorf("suback failure is %x", b[4])
	}
}

func TestTemplate(t *testing.T) {
	for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		for _, qos := range []mqtt.QoS{0, 1, 2} {
			p := &Publish{Topic: "a/b", Payload: []byte("payload"), QoS: qos, Retain: true}
			p.Properties.SetContentType("text/plain")
			tm, err := MakeTemplate(nil, p, v)
			if err != nil {
				t.Fatal(err)
			}
			p.ID, p.Dup = 0x4321, true
			want, _ := p.Append([]byte("before"), v)
			if got := tm.Append([]byte("before"), p.ID, p.Dup); !bytes.Equal(got, want) {
				t.Errorf("%d qos %d: %x, want %x", v, qos, got, want)
			}
			if tm.Size() != len(want)-6 {
				t.Errorf("size %d", tm.Size())
			}
		}
	}
}

func TestWhatCannotBeEncoded(t *testing.T) {
	long := strings.Repeat("x", 65536)
	big := make([]byte, maxRemaining)
	for _, c := range []struct {
		name string
		p    Packet
		want error
	}{
		{"topic", &Publish{Topic: long}, ErrTooLong},
		{"publish without id", &Publish{Topic: "a", QoS: 1}, ErrNoID},
		{"puback without id", &Puback{}, ErrNoID},
		{"subscribe without id", &Subscribe{}, ErrNoID},
		{"subscribe without filter", &Subscribe{ID: 1}, ErrEmpty},
		{"unsubscribe without filter", &Unsubscribe{ID: 1}, ErrEmpty},
		{"filter", &Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: long}}}, ErrTooLong},
		{"client identifier", &Connect{Version: mqtt.V5, ClientID: long}, ErrTooLong},
		{"user name", &Connect{Version: mqtt.V5, HasUsername: true, Username: long}, ErrTooLong},
		{"password", &Connect{Version: mqtt.V5, HasPassword: true, Password: []byte(long)}, ErrTooLong},
		{"will topic", &Connect{Version: mqtt.V5, Will: &Will{Topic: long}}, ErrTooLong},
		{"property of a will", &Connect{Version: mqtt.V5, Will: &Will{Topic: "a", Properties: props(func(p *Properties) { p.SetContentType(long) })}}, ErrTooLong},
		{"property of CONNECT", &Connect{Version: mqtt.V5, Properties: props(func(p *Properties) { p.SetAuthMethod(long) })}, ErrTooLong},
		{"property of DISCONNECT", &Disconnect{Properties: props(func(p *Properties) { p.SetReasonString(long) })}, ErrTooLong},
		{"suback without id", &Suback{Codes: []mqtt.ReasonCode{0}}, ErrNoID},
		{"unsuback without id", &Unsuback{Codes: []mqtt.ReasonCode{0}}, ErrNoID},
		{"unsubscribe without id", &Unsubscribe{Filters: []string{"a"}}, ErrNoID},
		{"filter to unsubscribe", &Unsubscribe{ID: 1, Filters: []string{long}}, ErrTooLong},
		{"subscription identifier 0 of SUBSCRIBE", &Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a"}}, Properties: props(func(p *Properties) { p.SetSubscriptionID(0) })}, ErrSubID},
		{"will payload", &Connect{Version: mqtt.V5, Will: &Will{Topic: "a", Payload: []byte(long)}}, ErrTooLong},
		{"user property", &Publish{Topic: "a", Properties: props(func(p *Properties) { p.SetUser([]mqtt.UserProperty{{Value: long}}) })}, ErrTooLong},
		{"payload", &Publish{Topic: "a", Payload: big}, ErrTooLarge},
		{"qos 3", &Publish{Topic: "a", QoS: 3, ID: 1}, ErrQoS},
		{"qos 3 of a will", &Connect{Version: mqtt.V5, Will: &Will{Topic: "a", QoS: 3}}, ErrQoS},
		{"qos 3 of a subscription", &Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a", QoS: 3}}}, ErrQoS},
		{"subscription identifier 0", &Publish{Topic: "a", Properties: props(func(p *Properties) { p.SetSubscriptionID(1, 0) })}, ErrSubID},
		{"subscription identifier of five bytes", &Publish{Topic: "a", Properties: props(func(p *Properties) { p.SetSubscriptionID(1 << 28) })}, ErrSubID},
	} {
		dst := []byte("kept")
		out, err := c.p.Append(dst, mqtt.V5)
		if !errors.Is(err, c.want) || string(out) != "kept" {
			t.Errorf("%s: %d bytes, %v", c.name, len(out), err)
		}
	}
	if _, err := (&Auth{}).Append(nil, mqtt.V311); !errors.Is(err, ErrVersion) {
		t.Error(err)
	}
}

// What is as long as a string can be (1.5.4) is sent.
func TestTheLongestStrings(t *testing.T) {
	long := strings.Repeat("x", mqtt.MaxString)
	for _, p := range []Packet{
		&Connect{Version: mqtt.V5, ClientID: long, HasUsername: true, Username: long, HasPassword: true, Password: []byte(long), Will: &Will{Topic: long, Payload: []byte(long)}},
		&Publish{Topic: long, Properties: props(func(p *Properties) { p.SetUser([]mqtt.UserProperty{{Name: long, Value: long}}) })},
		&Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: long}}},
		&Unsubscribe{ID: 1, Filters: []string{long}},
	} {
		b, err := p.Append(nil, mqtt.V5)
		if err != nil {
			t.Errorf("%s: %v", p.Type(), err)
		} else if q, err := readOne(b, mqtt.V5); err != nil {
			t.Errorf("%s: %v", p.Type(), err)
		} else if again, err := q.Append(nil, mqtt.V5); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s came back as another: %v", p.Type(), err)
		}
	}
}

// Acknowledgements before 5.0 are an identifier and nothing else.
func TestAcknowledgementsBefore5HaveNoReason(t *testing.T) {
	reason := props(func(p *Properties) { p.SetReasonString("no") })
	for _, v := range []mqtt.Version{mqtt.V31, mqtt.V311} {
		for want, p := range map[string]Packet{
			"40 02 0001": &Puback{ID: 1, Code: mqtt.NotAuthorized, Properties: reason},
			"50 02 0001": &Pubrec{ID: 1, Code: mqtt.NotAuthorized, Properties: reason},
			"62 02 0001": &Pubrel{ID: 1, Code: mqtt.PacketIDNotFound, Properties: reason},
			"70 02 0001": &Pubcomp{ID: 1, Code: mqtt.PacketIDNotFound, Properties: reason},
			"b0 02 0001": &Unsuback{ID: 1, Codes: []mqtt.ReasonCode{mqtt.NotAuthorized}, Properties: reason},
			"e0 00":      &Disconnect{Code: mqtt.DisconnectWithWill, Properties: reason},
		} {
			if got, err := p.Append(nil, v); err != nil || !bytes.Equal(got, unhex(t, want)) {
				t.Errorf("%s: %x %v, want %s", p.Type(), got, err, want)
			}
		}
	}
}

// An application message is the same before and after (3.3.2.3), and nothing of the packet's last one stays.
func TestMessages(t *testing.T) {
	full := mqtt.Message{
		Topic: "a", Payload: []byte("x"), QoS: 2, Retain: true, PayloadUTF8: true, HasExpiry: true, Expiry: 60, ContentType: "t",
		ResponseTopic: "r", CorrelationData: []byte("c"), User: []mqtt.UserProperty{{Name: "k", Value: "v"}},
	}
	p := Publish{ID: 7, Dup: true, Properties: props(func(p *Properties) { p.SetTopicAlias(3) })}
	for _, m := range []mqtt.Message{full, {Topic: "b"}} {
		p.SetMessage(&m)
		if d := cmp.Diff(m, p.Message(), equal); d != "" {
			t.Error(d)
		}
		if p.ID != 0 || p.Dup || p.Properties.Has(PropTopicAlias) || m.Topic == "b" && !p.Properties.None() {
			t.Errorf("left of the packet: %+v", p)
		}
		var q Publish
		p.ID = 1
		if b, err := p.Append(nil, mqtt.V5); err != nil {
			t.Error(err)
		} else if f, err := NewReader(bytes.NewReader(b), 0, nil).Next(); err != nil {
			t.Error(err)
		} else if err := q.Decode(f, mqtt.V5); err != nil {
			t.Error(err)
		} else if d := cmp.Diff(m, q.Message(), equal); d != "" {
			t.Error(d)
		}
	}
}

// Acknowledge flags of a refusal say no session [MQTT-3.2.2-6].
func TestNoSessionWithARefusal(t *testing.T) {
	for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		b, err := (&Connack{SessionPresent: true, Code: mqtt.NotAuthorized}).Append(nil, v)
		if err != nil || b[2] != 0 {
			t.Errorf("%x %v", b, err)
		}
	}
}

// A string keeps U+FEFF [MQTT-1.5.4-3].
func TestByteOrderMarkIsKept(t *testing.T) {
	p, err := readOne(unhex(t, "30 05 0003 efbbbf"), mqtt.V311)
	if err != nil || p.(*Publish).Topic != "\ufeff" {
		t.Errorf("%+v %v", p, err)
	}
}

// A property that does not belong into a packet is left out, not sent to be refused.
func TestForeignPropertiesAreLeftOut(t *testing.T) {
	p := &Publish{Topic: "a"}
	p.Properties.SetWillDelay(3)
	p.Properties.SetReasonString("x")
	b, err := p.Append(nil, mqtt.V5)
	if err != nil || !bytes.Equal(b, unhex(t, "30 04 0001 61 00")) {
		t.Errorf("%x %v", b, err)
	}
}

func TestReader(t *testing.T) {
	var stream []byte
	for _, g := range golden {
		stream = append(stream, unhex(t, g.wire)...)
	}
	big, _ := (&Publish{Topic: "big", Payload: bytes.Repeat([]byte("0123456789"), 20_000)}).Append(nil, mqtt.V311)
	stream = append(stream, big...)
	stream = append(stream, 0xc0, 0)
	for _, step := range []int{1, 3, 511, 512, 513, 1 << 14, 1 << 20} {
		var pool Pool
		r := NewReader(&stepper{b: stream, step: step}, 0, &pool)
		var got []byte
		for {
			f, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got, _ = header(got, byte(f.Type)<<4|f.Flags, len(f.Body))
			got = append(got, f.Body...)
		}
		if !bytes.Equal(got, stream) {
			t.Errorf("step %d: stream differs", step)
		}
		if len(r.buf) > largeBuffer {
			t.Errorf("step %d: keeps %d bytes", step, len(r.buf))
		}
		r.Close()
		if _, err := r.Next(); err == nil {
			t.Error("reads on after Close")
		}
	}
}

// A connection that was busy and goes quiet gives its large buffer to others.
func TestQuietReadersHoldLittle(t *testing.T) {
	burst := bytes.Repeat(unhex(t, "c000"), largeBuffer)
	src := io.MultiReader(bytes.NewReader(burst), &stepper{b: bytes.Repeat(unhex(t, "c000"), 100), step: 2})
	var pool Pool
	r := NewReader(src, 0, &pool)
	for i := range largeBuffer {
		if _, err := r.Next(); err != nil {
			t.Fatal(i, err)
		}
	}
	if len(r.buf) != largeBuffer {
		t.Errorf("holds %d bytes while much comes", len(r.buf))
	}
	for range 100 {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.buf) != smallBuffer {
		t.Errorf("holds %d bytes after a hundred small packets", len(r.buf))
	}
}

type stepper struct {
	b    []byte
	step int
}

func (s *stepper) Read(p []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.step)], s.b)
	s.b = s.b[n:]
	return n, nil
}

func TestReaderRefuses(t *testing.T) {
	for _, c := range []struct {
		wire string
		max  int
		want error
	}{
		{"", 0, io.EOF},
		{"30", 0, io.ErrUnexpectedEOF},
		{"30 05 00", 0, io.ErrUnexpectedEOF},
		{"30 ff ff ff ff", 0, &Error{Code: mqtt.MalformedPacket}},
		{"30 80 00", 0, &Error{Code: mqtt.MalformedPacket}},
		{"00 00", 0, &Error{Code: mqtt.MalformedPacket}},
		{"0a", 0, &Error{Code: mqtt.MalformedPacket}}, // nothing more is waited for
		{"30 7f", 100, &Error{Code: mqtt.PacketTooLarge}},
		{"30 ff ff ff 7f", 1000, &Error{Code: mqtt.PacketTooLarge}},
	} {
		_, err := NewReader(bytes.NewReader(unhex(t, c.wire)), c.max, nil).Next()
		want, ok := c.want.(*Error)
		if ok && Code(err) != want.Code || !ok && err != c.want {
			t.Errorf("%s: %v", c.wire, err)
		}
	}
}

// A client that announces 256 MiB and then trickles costs what it has sent, not what it announced.
func TestAnnouncedLengthAllocatesNothing(t *testing.T) {
	r := NewReader(io.MultiReader(bytes.NewReader(unhex(t, "30 ff ff ff 7f")), bytes.NewReader(make([]byte, 40_000))), 0, nil)
	if _, err := r.Next(); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	if len(r.buf) > 128<<10 {
		t.Errorf("%d bytes for 40,005 received", len(r.buf))
	}
}

// What large packets take while they arrive is of a budget that Readers share, and is given back with the packet, at
// its end or the Reader's.
func TestReadersShareABudget(t *testing.T) {
	large := append(unhex(t, "30 80 80 02"), make([]byte, 32<<10)...)
	const all = 70_000 // for one packet and its copy while it grows
	budget := NewBudget(all)
	reader := func(b []byte) *Reader {
		r := NewReader(bytes.NewReader(b), 0, nil)
		r.Limit(0, budget, func() { t.Error("a packet that is whole made room") })
		return r
	}
	first := reader(append(slices.Clone(large), 0xc0, 0))
	if _, err := first.Next(); err != nil {
		t.Fatal(err)
	}
	second := reader(large)
	if _, err := second.Next(); Code(err) != mqtt.QuotaExceeded {
		t.Errorf("beyond the budget: %v", err)
	}
	second.Close()
	if _, err := reader(large[:8<<10]).Next(); err != io.ErrUnexpectedEOF {
		t.Errorf("a packet that has not outgrown the small buffers: %v", err)
	}
	if _, err := first.Next(); err != nil {
		t.Fatal(err)
	}
	cut := reader(large[:len(large)-1])
	if _, err := cut.Next(); err != io.ErrUnexpectedEOF {
		t.Errorf("the first packet's bytes were not given back: %v", err)
	}
	// Bytes are of the budget that they were taken from, whatever is to come.
	cut.Limit(0, NewBudget(0), nil)
	cut.Close()
	first.Close()
	if budget.left != all || len(budget.loans) != 0 {
		t.Errorf("%d bytes are left in the end and %d loans, want all and none", budget.left, len(budget.loans))
	}
}

// Packets that are never finished keep nobody out: the one that comes most slowly makes room, whoever came first.
func TestTheSlowestPacketMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := append(unhex(t, "30 80 80 04"), make([]byte, 64<<10)...)
		budget := NewBudget(200_000) // for three, or two and a copy
		type stream struct {
			io.Writer
			ended error
			over  chan struct{}
		}
		open := func() *stream {
			in, out := io.Pipe()
			s := &stream{Writer: out, over: make(chan struct{})}
			r := NewReader(in, 0, nil)
			r.Limit(0, budget, func() { in.Close() })
			go func() {
				defer close(s.over)
				_, s.ended = r.Next()
				r.Close()
			}()
			return s
		}
		send := func(s *stream, b []byte) {
			t.Helper()
			if _, err := s.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		trickling, stalled := open(), open()
		send(trickling, large[:40<<10])
		send(stalled, large[:50<<10])
		for range 30 { // the one goes on, the other does not
			time.Sleep(time.Second)
			send(trickling, large[40<<10:][:500])
		}
		honest := open()
		send(honest, large)
		<-honest.over
		if honest.ended != nil {
			t.Errorf("a packet that came at once: %v", honest.ended)
		}
		<-stalled.over
		if stalled.ended == nil {
			t.Error("the stalled packet made no room")
		}
		send(trickling, large[40<<10:][:20])
		select {
		case <-trickling.over:
			t.Errorf("the faster of the two has ended: %v", trickling.ended)
		default:
		}
		var fast []*stream
		for range 2 {
			s := open()
			send(s, large[:60<<10])
			fast = append(fast, s)
		}
		<-trickling.over
		if trickling.ended == nil {
			t.Error("beyond the budget")
		}
		for _, s := range fast {
			send(s, large[60<<10:])
			if <-s.over; s.ended != nil {
				t.Errorf("a fast packet: %v", s.ended)
			}
		}
		if budget.left != 200_000 || len(budget.loans) != 0 {
			t.Errorf("%d bytes and %d loans are left", budget.left, len(budget.loans))
		}
	})
}

func TestReaderReady(t *testing.T) {
	r := NewReader(bytes.NewReader(unhex(t, "c000 c000 30")), 0, nil)
	if r.Ready() {
		t.Error("ready before anything was read")
	}
	for _, ready := range []bool{true, false} {
		if _, err := r.Next(); err != nil || r.Ready() != ready {
			t.Errorf("%v, ready %t", err, r.Ready())
		}
	}
}
