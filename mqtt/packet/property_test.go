package packet

import (
	"bytes"
	"io"
	"math"
	"reflect"
	"testing"

	"gateway/mqtt"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var (
	text  = rapid.StringN(0, 20, 60).Filter(mqtt.ValidString)
	topic = rapid.StringMatching(`[a-zä$ ]{1,5}(/[a-z]{0,3}){0,3}`)
	blob  = rapid.SliceOfN(rapid.Byte(), 0, 40)
	users = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) mqtt.UserProperty {
		return mqtt.UserProperty{Name: text.Draw(t, "name"), Value: text.Draw(t, "value")}
	}), 1, 3)
	ident = rapid.Uint16Min(1)
	qos   = rapid.Custom(func(t *rapid.T) mqtt.QoS { return mqtt.QoS(rapid.IntRange(0, 2).Draw(t, "qos")) })
)

// drawProperties draws some of the properties that a packet may have.
func drawProperties(t *rapid.T, typ Type) (p Properties) {
	for id, in := range where {
		if in>>typ&1 == 0 || !rapid.Bool().Draw(t, "has") {
			continue
		}
		switch Property(id) {
		case PropPayloadFormat:
			p.SetPayloadFormat(rapid.Uint8Range(0, 1).Draw(t, "format"))
		case PropMessageExpiry:
			p.SetMessageExpiry(rapid.Uint32().Draw(t, "expiry"))
		case PropContentType:
			p.SetContentType(text.Draw(t, "content type"))
		case PropResponseTopic:
			p.SetResponseTopic(topic.Draw(t, "response topic"))
		case PropCorrelationData:
			p.SetCorrelationData(blob.Draw(t, "correlation"))
		case PropSubscriptionID:
			n := 1
			if typ == PUBLISH {
				n = 3
			}
			p.SetSubscriptionID(rapid.SliceOfN(rapid.Uint32Range(1, maxRemaining), 1, n).Draw(t, "ids")...)
		case PropSessionExpiry:
			p.SetSessionExpiry(rapid.Uint32().Draw(t, "expiry"))
		case PropAssignedClientID:
			p.SetAssignedClientID(text.Draw(t, "client"))
		case PropServerKeepAlive:
			p.SetServerKeepAlive(rapid.Uint16().Draw(t, "keep alive"))
		case PropAuthMethod:
			p.SetAuthMethod(text.Draw(t, "method"))
		case PropAuthData:
			if p.Has(PropAuthMethod) {
				p.SetAuthData(blob.Draw(t, "data"))
			}
		case PropRequestProblemInfo:
			p.SetRequestProblemInfo(rapid.Bool().Draw(t, "bool"))
		case PropWillDelay:
			p.SetWillDelay(rapid.Uint32().Draw(t, "delay"))
		case PropRequestResponseInfo:
			p.SetRequestResponseInfo(rapid.Bool().Draw(t, "bool"))
		case PropResponseInfo:
			p.SetResponseInfo(text.Draw(t, "info"))
		case PropServerReference:
			p.SetServerReference(text.Draw(t, "reference"))
		case PropReasonString:
			p.SetReasonString(text.Draw(t, "reason"))
		case PropReceiveMaximum:
			p.SetReceiveMaximum(ident.Draw(t, "maximum"))
		case PropTopicAliasMaximum:
			p.SetTopicAliasMaximum(rapid.Uint16().Draw(t, "maximum"))
		case PropTopicAlias:
			p.SetTopicAlias(ident.Draw(t, "alias"))
		case PropMaximumQoS:
			p.SetMaximumQoS(mqtt.QoS(rapid.IntRange(0, 1).Draw(t, "qos")))
		case PropRetainAvailable:
			p.SetRetainAvailable(rapid.Bool().Draw(t, "bool"))
		case PropUser:
			p.SetUser(users.Draw(t, "user"))
		case PropMaximumPacketSize:
			p.SetMaximumPacketSize(rapid.Uint32Range(1, math.MaxUint32).Draw(t, "size"))
		case PropWildcardAvailable:
			p.SetWildcardAvailable(rapid.Bool().Draw(t, "bool"))
		case PropSubscriptionIDsAvail:
			p.SetSubscriptionIDsAvailable(rapid.Bool().Draw(t, "bool"))
		case PropSharedSubscriptionsAvl:
			p.SetSharedAvailable(rapid.Bool().Draw(t, "bool"))
		default:
			t.Fatalf("property %d is not drawn", id)
		}
	}
	return p
}

func drawCode(t *rapid.T, typ Type) mqtt.ReasonCode {
	return rapid.Custom(func(t *rapid.T) mqtt.ReasonCode { return mqtt.ReasonCode(rapid.Byte().Draw(t, "code")) }).
		Filter(func(c mqtt.ReasonCode) bool { return validCode(typ, c) }).Draw(t, "code")
}

func drawPacket(t *rapid.T, typ Type, v mqtt.Version) Packet {
	five := v == mqtt.V5
	var props Properties
	if five && typ != PINGREQ && typ != PINGRESP {
		props = drawProperties(t, typ)
	}
	code := mqtt.Success
	if five && validCode(typ, mqtt.Success) {
		code = drawCode(t, typ)
	}
	codes := func() (out []mqtt.ReasonCode) {
		for range rapid.IntRange(1, 4).Draw(t, "codes") {
			if c := drawCode(t, typ); five || typ == SUBACK && (c <= 2 || c == 0x80) {
				out = append(out, c)
			} else {
				out = append(out, mqtt.Success)
			}
		}
		return out
	}
	id := ident.Draw(t, "id")
	switch typ {
	case CONNECT:
		p := &Connect{Version: v, CleanStart: rapid.Bool().Draw(t, "clean"), Bridge: !five && rapid.Bool().Draw(t, "bridge"), KeepAlive: rapid.Uint16().Draw(t, "keep alive"), ClientID: "c" + text.Draw(t, "client"), Properties: props}
		if rapid.Bool().Draw(t, "will") {
			p.Will = &Will{Topic: topic.Draw(t, "topic"), Payload: blob.Draw(t, "payload"), QoS: qos.Draw(t, "qos"), Retain: rapid.Bool().Draw(t, "retain")}
			if five {
				p.Will.Properties = drawProperties(t, will)
			}
		}
		if p.HasUsername = rapid.Bool().Draw(t, "user"); p.HasUsername {
			p.Username = text.Draw(t, "user")
		}
		if p.HasPassword = (p.HasUsername || five) && rapid.Bool().Draw(t, "password"); p.HasPassword {
			p.Password = blob.Draw(t, "password")
		}
		return p
	case CONNACK:
		return &Connack{SessionPresent: v != mqtt.V31 && code == 0 && rapid.Bool().Draw(t, "present"), Code: code, Properties: props}
	case PUBLISH:
		p := &Publish{QoS: qos.Draw(t, "qos"), Retain: rapid.Bool().Draw(t, "retain"), Topic: topic.Draw(t, "topic"), Payload: blob.Draw(t, "payload"), Properties: props}
		if p.QoS > 0 {
			p.ID, p.Dup = id, rapid.Bool().Draw(t, "dup")
		}
		return p
	case PUBACK:
		return &Puback{id, code, props}
	case PUBREC:
		return &Pubrec{id, code, props}
	case PUBREL:
		return &Pubrel{id, code, props}
	case PUBCOMP:
		return &Pubcomp{id, code, props}
	case SUBSCRIBE:
		p := &Subscribe{ID: id, Properties: props}
		for range rapid.IntRange(1, 4).Draw(t, "filters") {
			s := mqtt.Subscription{Filter: rapid.SampledFrom([]string{"", "+/", "a/+/"}).Draw(t, "prefix") + topic.Draw(t, "filter") + rapid.SampledFrom([]string{"", "/#", "/+"}).Draw(t, "suffix"), QoS: qos.Draw(t, "qos")}
			if five {
				s.NoLocal, s.RetainAsPublished = rapid.Bool().Draw(t, "no local"), rapid.Bool().Draw(t, "rap")
				s.RetainHandling = mqtt.RetainHandling(rapid.IntRange(0, 2).Draw(t, "handling"))
			}
			p.Subscriptions = append(p.Subscriptions, s)
		}
		return p
	case SUBACK:
		return &Suback{id, codes(), props}
	case UNSUBSCRIBE:
		return &Unsubscribe{id, rapid.SliceOfN(topic, 1, 4).Draw(t, "filters"), props}
	case UNSUBACK:
		p := &Unsuback{ID: id, Properties: props}
		if five {
			p.Codes = codes()
		}
		return p
	case PINGREQ:
		return &Pingreq{}
	case PINGRESP:
		return &Pingresp{}
	case DISCONNECT:
		return &Disconnect{code, props}
	}
	return &Auth{code, props}
}

// What is encoded decodes to the same packet, in every version, also into a packet that held another before.
func TestRoundTrip(t *testing.T) {
	for typ := CONNECT; typ <= AUTH; typ++ {
		t.Run(typ.String(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				v := rapid.SampledFrom([]mqtt.Version{mqtt.V31, mqtt.V311, mqtt.V5}).Draw(t, "version")
				if typ == AUTH {
					v = mqtt.V5
				}
				used := New(typ)
				for range 2 {
					want := drawPacket(t, typ, v)
					b, err := want.Append(nil, v)
					if err != nil {
						t.Fatal(err)
					}
					f, err := NewReader(bytes.NewReader(b), len(b), nil).Next()
					if err != nil {
						t.Fatal(err)
					}
					if err := used.Decode(f, v); err != nil {
						t.Fatalf("%x: %v", b, err)
					}
					if d := cmp.Diff(want, used, equal); d != "" {
						t.Fatalf("%x: %s", b, d)
					}
					// What it was decoded from may be overwritten: strings are its own.
					again, err := used.Append(nil, v)
					if err != nil || !bytes.Equal(b, again) {
						t.Fatalf("%x became %x, %v", b, again, err)
					}
				}
			})
		})
	}
}

// The quick look at a string lets nothing pass that the slow one would not.
func TestPlain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.OneOf(rapid.ByteRange('a', 'z'), rapid.Byte(), rapid.SampledFrom([]byte("\x00\x01#+\x7f\x80\"*,$"))), 0, 40).Draw(t, "b")
		want := true
		for _, x := range b {
			want = want && x != 0 && x != '#' && x != '+' && x < 0x80
		}
		// A borrow may reach a neighbour and call a plain string odd, which costs only the slow look.
		if got := plain(b); got && !want {
			t.Fatalf("%q is plain", b)
		}
	})
	for _, s := range []string{"", "a", "plant/hall-3/meters/feed-in/voltage", "~!\"$%&'()*,-./"} {
		if !plain([]byte(s)) {
			t.Errorf("%q needs the slow look", s)
		}
	}
}

// FuzzDecode: no bytes make the decoder panic, read beyond the frame or accept what it cannot encode again.
func FuzzDecode(f *testing.F) {
	for _, g := range golden {
		f.Add(unhex(f, g.wire), uint8(g.v))
	}
	for _, m := range malformed {
		f.Add(unhex(f, m.wire), uint8(m.v))
	}
	f.Fuzz(func(t *testing.T, b []byte, version uint8) {
		v := []mqtt.Version{mqtt.V31, mqtt.V311, mqtt.V5}[version%3]
		r := NewReader(bytes.NewReader(b), 1<<16, nil)
		for {
			fr, err := r.Next()
			if err != nil {
				return
			}
			p, err := Decode(fr, v)
			if err != nil {
				if _, ok := err.(*Error); !ok {
					t.Fatalf("%T: %v", err, err)
				}
				continue
			}
			again, err := p.Append(nil, v)
			if err != nil {
				t.Fatalf("%x decodes to %+v, which does not encode: %v", b, p, err)
			}
			q, err := readOne(again, v)
			if err != nil {
				t.Fatalf("%x encodes to %x, which does not decode: %v", b, again, err)
			}
			if !cmp.Equal(p, q, equal) {
				t.Fatalf("%+v became %+v", p, q)
			}
		}
	})
}

// FuzzReader: however a stream is cut into reads, the frames are the same.
func FuzzReader(f *testing.F) {
	f.Add(unhex(f, "c000 3003000161 e000"), 1)
	f.Add(bytes.Repeat(unhex(f, "300a0001610001020304050607"), 200), 700)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		if step < 1 || step > 1<<20 {
			return
		}
		type result struct {
			frames []Frame
			err    string
		}
		read := func(src io.Reader) (out result) {
			r := NewReader(src, 1<<20, new(Pool))
			for {
				fr, err := r.Next()
				if err != nil {
					out.err = err.Error()
					return out
				}
				fr.Body = append([]byte{}, fr.Body...)
				out.frames = append(out.frames, fr)
			}
		}
		if a, b := read(bytes.NewReader(b)), read(&stepper{b: b, step: step}); !reflect.DeepEqual(a, b) {
			t.Fatalf("%+v, %+v", a, b)
		}
	})
}
