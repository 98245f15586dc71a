package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// script is a connection whose server says what it says and hangs up; what the client writes is lost.
type script struct {
	net.Conn // nil: deadlines and addresses are not asked for
	r        io.Reader
}

func (s *script) Read(p []byte) (int, error)       { return s.r.Read(p) }
func (s *script) Write(p []byte) (int, error)      { return len(p), nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) Close() error                     { return nil }

// FuzzServer: whatever a server sends after CONNACK, the client neither panics nor hangs, every message is done
// exactly once, and no identifier is kept when the client has ended.
func FuzzServer(f *testing.F) {
	five := func(ps ...packet.Packet) (b []byte) {
		for _, p := range ps {
			b, _ = p.Append(b, mqtt.V5)
		}
		return b
	}
	f.Add(five(&packet.Puback{ID: 1}, &packet.Pubrec{ID: 2}, &packet.Pubcomp{ID: 2}), true)
	f.Add(five(pub(1, 1, "a"), pub(2, 2, "b"), &packet.Pubrel{ID: 2}, again(pub(2, 2, "b"))), false)
	f.Add(five(&packet.Suback{ID: 3, Codes: []mqtt.ReasonCode{0}}, &packet.Unsuback{ID: 3, Codes: []mqtt.ReasonCode{0}}, &packet.Disconnect{Code: mqtt.ServerBusy}), true)
	f.Add(five(&packet.Pubrec{ID: 1}, &packet.Puback{ID: 2}, &packet.Pubrec{ID: 2, Code: mqtt.QuotaExceeded}, &packet.Auth{}, &packet.Pingresp{}), true)
	f.Fuzz(func(t *testing.T, stream []byte, present bool) {
		// In a bubble, for a client that is told to stay away does.
		synctest.Test(t, func(t *testing.T) { serverSays(t, stream, present) })
	})
}

func serverSays(t *testing.T, stream []byte, present bool) {
	hello, _ := (&packet.Connack{SessionPresent: present}).Append(nil, mqtt.V5)
	dials := 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c, err := New(Options{
		URLs: []string{"mqtt://server"}, Version: mqtt.V5, SessionExpiry: time.Hour, Proxy: noProxy, KeepAlive: -1, MaxPacket: 1 << 16,
		Backoff: Backoff{Min: 1, Max: 1}, Handler: func(mqtt.Message) {},
		Dial: func(context.Context, string, string) (net.Conn, error) {
			if dials++; dials > 3 {
				cancel()
				return nil, errors.New("enough")
			}
			return &script{r: io.MultiReader(bytes.NewReader(hello), bytes.NewReader(stream))}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	const n = 6
	done := make([]int, n)
	for i := range n {
		if err := c.Publish(ctx, &mqtt.Message{Topic: "t", QoS: mqtt.QoS(i % 3)}, func(error) { done[i]++ }); err != nil {
			t.Fatal(err)
		}
	}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		c.Subscribe(ctx, mqtt.Subscription{Filter: "a"})
	}()
	if err := c.Run(ctx); err != nil {
		t.Fatal(err)
	}
	<-asked
	for i, k := range done {
		if k != 1 {
			t.Errorf("message %d was done %d times", i, k)
		}
	}
	if s := c.Stats(); s.Unacked != 0 {
		t.Errorf("%+v", s)
	}
}
