package broker

import (
	"io"
	"net"
	"testing"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// FuzzConnection sends a stream of bytes, as it is and after a CONNECT of each version. The broker must
// end or survive the connection, without an internal error, and go on serving others; what the
// stream leaves behind must go.
func FuzzConnection(f *testing.F) {
	for _, s := range []string{
		"", "10 0d 0004 4d515454 05 02 0000 00 0000", "30 04 0001 61 00", "82 07 0001 00 0001 61 02 32 06 0001 61 0001 00",
		"82 02 0001", "34 06 0001 61 0001 00 62 02 0001", "82 0e 0001 00 0008 2473686172652f78 00", "e0 00", "c0 00 c0 00", "30 ff ff ff 7f",
		"82 06 0001 0001 61 02 34 05 0001 61 0001 62 02 0001 50 02 0001 70 02 0001 a2 05 0001 0001 61",
	} {
		for v := byte(0); v < 4; v++ {
			f.Add(v, unhex(s))
		}
	}
	b, err := New(Options{SysInterval: -1, Limits: Limits{ConnectTimeout: time.Second, QueuedMessages: 100}})
	if err != nil {
		f.Fatal(err)
	}
	watch := join(f, b, mqtt.V5, "watch")
	f.Fuzz(func(t *testing.T, how byte, stream []byte) {
		near, far := net.Pipe()
		b.ServeConn(far)
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			io.Copy(io.Discard, near)
		}()
		near.SetDeadline(time.Now().Add(patience))
		if v := mqtt.Version(how%4) + 2; v >= mqtt.V31 {
			c, err := (&packet.Connect{Version: v, ClientID: "fuzz", CleanStart: how < 128}).Append(nil, v)
			if err != nil {
				t.Fatal(err)
			}
			near.Write(c)
		}
		near.Write(stream) // fails where the broker has had enough
		near.Close()
		<-drained
		if n := b.Stats().Panics; n != 0 {
			t.Fatalf("%d internal errors", n)
		}
		watch.t = t
		watch.silence()
	})
}
