package client

import (
	"context"
	"net"
	"testing"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// acker answers CONNECT, and every PUBLISH of QoS 1 with PUBACK, one write for what one read brought.
func acker(nc net.Conn) {
	defer nc.Close()
	r := packet.NewReader(nc, 0, nil)
	v := mqtt.V5
	var out []byte
	var p packet.Publish
	for {
		f, err := r.Next()
		if err != nil {
			return
		}
		switch f.Type {
		case packet.CONNECT:
			var c packet.Connect
			if c.Decode(f, 0) != nil {
				return
			}
			v = c.Version
			out, _ = (&packet.Connack{}).Append(out, v)
		case packet.PUBLISH:
			if p.Decode(f, v) != nil {
				return
			}
			if p.QoS > 0 {
				out, _ = (&packet.Puback{ID: p.ID}).Append(out, v)
			}
		}
		if !r.Ready() && len(out) > 0 {
			if _, err := nc.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
	}
}

// BenchmarkPublish is the client's own cost: messages of 64 bytes over loopback to a server that only
// acknowledges.
func BenchmarkPublish(b *testing.B) {
	for _, c := range []struct {
		name string
		v    mqtt.Version
		qos  mqtt.QoS
	}{{"3.1.1/qos0", mqtt.V311, 0}, {"3.1.1/qos1", mqtt.V311, 1}, {"5.0/qos1", mqtt.V5, 1}} {
		b.Run(c.name, func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			served := make(chan struct{})
			go func() {
				defer close(served)
				if nc, err := l.Accept(); err == nil {
					acker(nc)
				}
			}()
			cl, err := New(Options{URLs: []string{"mqtt://" + l.Addr().String()}, Version: c.v, Proxy: noProxy})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan struct{})
			go func() { cl.Run(ctx); close(ended) }()
			defer func() { cancel(); <-ended; l.Close(); <-served }()
			m := &mqtt.Message{Topic: "plant/hall-3/meters/feed-in/voltage", Payload: make([]byte, 64), QoS: c.qos}
			all := make(chan struct{})
			left := b.N
			done := func(err error) {
				if err != nil {
					b.Error(err)
				}
				if left--; left == 0 {
					close(all)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if err := cl.Publish(ctx, m, done); err != nil {
					b.Fatal(err)
				}
			}
			<-all
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}
