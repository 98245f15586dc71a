package mqttbroker

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// pahoGo connects a client of paho.golang, which speaks 5.0 only.
func pahoGo(t *testing.T, b *broker, id string, clean bool) (*paho.Client, *paho.Connack, <-chan *paho.Publish) {
	t.Helper()
	nc, err := net.Dial("tcp", b.addr())
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *paho.Publish, 1000)
	c := paho.NewClient(paho.ClientConfig{
		Conn: packets.NewThreadSafeConn(nc),
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			got <- p.Packet
			return true, nil
		}},
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	expiry := uint32(3600)
	ack, err := c.Connect(ctx, &paho.Connect{ClientID: id, CleanStart: clean, KeepAlive: 30, Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry}})
	if err != nil {
		t.Fatalf("CONNECT of %s: %v", id, err)
	}
	return c, ack, got
}

func TestPahoGo(t *testing.T) {
	b := newBroker(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	sub, ack, got := pahoGo(t, b, "go-sub", false)
	if ack.SessionPresent {
		t.Error("session present on the first connection")
	}
	pub, _, _ := pahoGo(t, b, "go-pub", true)
	for qos := byte(0); qos <= 2; qos++ {
		filter := fmt.Sprintf("go/%d/+", qos)
		if s, err := sub.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: qos}}}); err != nil || s.Reasons[0] != qos {
			t.Fatalf("SUBSCRIBE %s: %v, %v", filter, s, err)
		}
		for i := range 100 {
			if _, err := pub.Publish(ctx, &paho.Publish{Topic: fmt.Sprintf("go/%d/x", qos), QoS: 2, Payload: fmt.Append(nil, i), Properties: &paho.PublishProperties{ContentType: "n"}}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 100 {
			select {
			case m := <-got:
				if string(m.Payload) != fmt.Sprint(i) || m.QoS != qos || m.Properties.ContentType != "n" {
					t.Fatalf("message %d is %q at qos %d", i, m.Payload, m.QoS)
				}
			case <-ctx.Done():
				t.Fatal("messages are missing")
			}
		}
	}
	if err := sub.Disconnect(&paho.Disconnect{}); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := pub.Publish(ctx, &paho.Publish{Topic: "go/1/x", QoS: 1, Payload: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	_, ack, got = pahoGo(t, b, "go-sub", false)
	if !ack.SessionPresent {
		t.Error("the session is gone")
	}
	for i := range 10 {
		select {
		case m := <-got:
			if string(m.Payload) != fmt.Sprint(i) {
				t.Fatalf("message %d is %q", i, m.Payload)
			}
		case <-ctx.Done():
			t.Fatal("queued messages are missing")
		}
	}
}
