package packet

import (
	"testing"

	"gateway/mqtt"
)

// reference is the PUBLISH of the comparison with other codecs: 35 bytes of topic, 64 of payload.
func reference(v mqtt.Version, properties bool) *Publish {
	p := &Publish{Topic: "plant/hall-3/meters/feed-in/voltage", QoS: 1, ID: 4711, Payload: make([]byte, 64)}
	if properties {
		p.Properties.SetMessageExpiry(3600)
		p.Properties.SetContentType("application/json")
		p.Properties.SetUser([]mqtt.UserProperty{{Name: "seq", Value: "1842"}})
	}
	return p
}

func frame(t testing.TB, p Packet, v mqtt.Version) Frame {
	t.Helper()
	b, err := p.Append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	head := 2
	for b[head-1] >= 0x80 {
		head++
	}
	return Frame{Type: p.Type(), Flags: b[0] & 15, Body: b[head:]}
}

func TestPublishAllocates(t *testing.T) {
	for _, c := range []struct {
		name        string
		v           mqtt.Version
		props       bool
		fresh, same float64
	}{
		{"3.1.1", mqtt.V311, false, 1, 0},
		{"5.0", mqtt.V5, false, 1, 0},
		{"5.0 with properties", mqtt.V5, true, 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := reference(c.v, c.props)
			buf := make([]byte, 0, 512)
			if n := testing.AllocsPerRun(100, func() { buf, _ = p.Append(buf[:0], c.v) }); n != 0 {
				t.Errorf("encoding: %v allocations", n)
			}
			f := frame(t, p, c.v)
			if n := testing.AllocsPerRun(100, func() {
				var q Publish
				if err := q.Decode(f, c.v); err != nil {
					t.Fatal(err)
				}
			}); n > c.fresh {
				t.Errorf("decoding into a new packet: %v allocations", n)
			}
			var q Publish
			if n := testing.AllocsPerRun(100, func() {
				if err := q.Decode(f, c.v); err != nil {
					t.Fatal(err)
				}
			}); n > c.same {
				t.Errorf("decoding into the same packet: %v allocations", n)
			}
		})
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, c := range []struct {
		name  string
		v     mqtt.Version
		props bool
	}{{"3.1.1", mqtt.V311, false}, {"5.0", mqtt.V5, false}, {"5.0-properties", mqtt.V5, true}} {
		p := reference(c.v, c.props)
		b.Run("encode/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				buf, _ = p.Append(buf[:0], c.v)
			}
		})
		b.Run("template/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			t, _ := MakeTemplate(nil, p, c.v)
			var buf []byte
			for b.Loop() {
				buf = t.Append(buf[:0], 7, false)
			}
		})
		f := frame(b, p, c.v)
		b.Run("decode/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var q Publish
				if err := q.Decode(f, c.v); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("decode-again/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			var q Publish
			for b.Loop() {
				if err := q.Decode(f, c.v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
