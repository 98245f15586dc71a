package client

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// Opcodes of frames (RFC 6455, 5.2).
const (
	continuation, text, binaryData = 0, 1, 2
	closing, ping                  = 8, 9
)

// frames is the server's end of a WebSocket, frame by frame: what the client's data frames carry is read as a stream, what
// is written goes out as one frame.
type frames struct {
	net.Conn
	r       *bufio.Reader
	left    int64
	mask    [4]byte
	at      int
	control chan string // control frames of the client: opcode and payload
}

// upgrade answers the request that opens a WebSocket.
func (c *fakeConn) upgrade() *frames {
	c.t.Helper()
	w := &frames{Conn: c.nc, r: bufio.NewReader(c.nc), control: make(chan string, 100)}
	req, err := http.ReadRequest(w.r)
	if err != nil {
		c.t.Fatal(err)
	}
	sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(c.nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	c.nc, c.r = w, packet.NewReader(w, 0, nil)
	return w
}

// frame is a frame that a server sends: unmasked, the whole of a message unless more is to follow.
func frame(opcode byte, payload []byte, more bool) []byte {
	if !more {
		opcode |= 0x80
	}
	head := []byte{opcode, byte(len(payload))}
	if len(payload) > 125 {
		head = binary.BigEndian.AppendUint64([]byte{opcode, 127}, uint64(len(payload)))
	}
	return append(head, payload...)
}

func (w *frames) Write(b []byte) (int, error) {
	if _, err := w.Conn.Write(frame(binaryData, b, false)); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (w *frames) Read(p []byte) (int, error) {
	for w.left == 0 {
		var head [14]byte
		if _, err := io.ReadFull(w.r, head[:2]); err != nil {
			return 0, err
		}
		if head[1]&0x80 == 0 {
			return 0, fmt.Errorf("a frame of the client is not masked")
		}
		w.left = int64(head[1] & 0x7f)
		switch w.left {
		case 126:
			io.ReadFull(w.r, head[2:4])
			w.left = int64(binary.BigEndian.Uint16(head[2:]))
		case 127:
			io.ReadFull(w.r, head[2:10])
			w.left = int64(binary.BigEndian.Uint64(head[2:]))
		}
		if _, err := io.ReadFull(w.r, w.mask[:]); err != nil {
			return 0, err
		}
		w.at = 0
		switch op := head[0] & 0x0f; op {
		case continuation, binaryData:
		default:
			payload := make([]byte, w.left)
			io.ReadFull(w.r, payload)
			w.unmask(payload)
			w.left = 0
			w.control <- fmt.Sprintf("%d %s", op, payload)
		}
	}
	n, err := w.r.Read(p[:min(int64(len(p)), w.left)])
	w.unmask(p[:n])
	w.left -= int64(n)
	return n, err
}

func (w *frames) unmask(b []byte) {
	for i := range b {
		b[i] ^= w.mask[w.at%4]
		w.at++
	}
}

// A message of several frames, with a ping between, and packets across their borders, are what they would be in one
// [MQTT-6.0.0-2]; a ping is answered.
func TestWebSocketFrames(t *testing.T) {
	run(t, Options{URLs: []string{"ws://server/mqtt"}, Version: mqtt.V5}, func(t *testing.T, b *bench) {
		s := <-b.conns
		s.v = mqtt.V5
		w := s.upgrade()
		s.next()
		var got []string
		b.c.Handle("#", func(m mqtt.Message) { got = append(got, string(m.Payload)) })
		stream := encoded(mqtt.V5, &packet.Connack{}, pub(1, 1, "a"), pub(1, 2, "b"))
		go func() { // the client answers the ping at once, and a pipe has no buffer
			for i := range stream {
				op := byte(continuation)
				if i == 0 {
					op = binaryData
				}
				w.Conn.Write(frame(op, stream[i:i+1], i < len(stream)-1))
				if i == 3 {
					w.Conn.Write(frame(ping, []byte("there?"), false))
				}
			}
		}()
		s.expect(&packet.Puback{ID: 1}, &packet.Puback{ID: 2})
		if c := <-w.control; c != "10 there?" { // pong
			t.Errorf("answer to a ping: %q", c)
		}
		// Nor is there a limit but that of MQTT.
		large := strings.Repeat("c", 1<<20)
		s.send(pub(1, 3, large))
		s.expect(&packet.Puback{ID: 3})
		if g := strings.Join(got, ""); g != "ab"+large {
			t.Errorf("%d bytes", len(g))
		}
	})
}

// What is no binary frame ends the connection [MQTT-6.0.0-1], and what is no frame; the reason is told, and what was
// published goes over the next.
func TestWebSocketThatBreaksTheProtocol(t *testing.T) {
	for name, c := range map[string]struct {
		frame []byte
		says  string
	}{
		"text":            {frame(text, encoded(mqtt.V5, pub(0, 0, "x")), false), "MessageText"},
		"close":           {frame(closing, append([]byte{1008 >> 8, 1008 & 0xff}, "no more"...), false), "no more"},
		"normal close":    {frame(closing, []byte{1000 >> 8, 1000 & 0xff}, false), "EOF"},
		"reserved opcode": {frame(3, []byte("x"), false), "opcode"},
		"reserved bits":   {[]byte{0x80 | 0x70 | binaryData, 1, 'x'}, "rsv"},
		"long ping":       {[]byte{0x80 | ping, 126, 0, 126}, "control frame"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, Options{URLs: []string{"ws://server/mqtt"}, Version: mqtt.V5, SessionExpiry: time.Hour}, func(t *testing.T, b *bench) {
				s := <-b.conns
				s.v = mqtt.V5
				w := s.upgrade()
				s.next()
				b.publish(1, "kept")
				s.send(&packet.Connack{})
				s.expect(pub(1, 1, "kept"))
				go w.Conn.Write(c.frame) // it may not be read to its end
				s.gone()
				if st := b.state(); st.Connected || st.Err == nil || !strings.Contains(st.Err.Error(), c.says) {
					t.Errorf("%+v", st)
				}
				s.close()
				s = <-b.conns
				s.v = mqtt.V5
				s.upgrade()
				s.next()
				s.send(&packet.Connack{SessionPresent: true})
				s.expect(again(pub(1, 1, "kept")))
				s.send(&packet.Puback{ID: 1})
				b.expectDone("kept")
			})
		})
	}
}
