// Command codec measures encoding and decoding of one PUBLISH (35 bytes of topic, 64 of payload, QoS 1) with our
// codec and those of other Go projects, interleaved in one run, and prints medians, allocations and how
// many times ours each takes:
//
//	go run ./bench/codec
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"text/tabwriter"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"

	paho5 "github.com/eclipse/paho.golang/packets"
	paho3 "github.com/eclipse/paho.mqtt.golang/packets"
	mochi "github.com/mochi-mqtt/server/v2/packets"
)

const topic = "plant/hall-3/meters/feed-in/voltage"

var payload = bytes.Repeat([]byte{'x'}, 64)

// A contender does one operation; setup failures end the program.
type contender struct {
	name string
	op   func()
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "codec:", err)
		os.Exit(1)
	}
}

func wire(v mqtt.Version) []byte {
	b, err := (&packet.Publish{Topic: topic, QoS: 1, ID: 4711, Payload: payload}).Append(nil, v)
	must(err)
	return b
}

func ourEncode(v mqtt.Version) func() {
	var buf []byte
	return func() {
		p := packet.Publish{Topic: topic, QoS: 1, ID: 4711, Payload: payload}
		buf, _ = p.Append(buf[:0], v)
	}
}

func ourTemplate(v mqtt.Version) func() {
	t, err := packet.MakeTemplate(nil, &packet.Publish{Topic: topic, QoS: 1, ID: 1, Payload: payload}, v)
	must(err)
	var buf []byte
	return func() { buf = t.Append(buf[:0], 4711, false) }
}

// Decoding is measured from a stream of packets, for that is where they come from: what each codec needs to cut the
// stream and to keep the packet belongs to it.

// endless repeats a packet for ever.
type endless struct {
	b  []byte
	at int
}

func (e *endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		k := copy(p[n:], e.b[e.at:])
		n += k
		e.at = (e.at + k) % len(e.b)
	}
	return n, nil
}

func ourDecode(v mqtt.Version) func() {
	r := packet.NewReader(&endless{b: wire(v)}, 0, nil)
	return func() {
		var p packet.Publish
		f, err := r.Next()
		if err != nil || p.Decode(f, v) != nil || p.ID != 4711 {
			panic("decode")
		}
	}
}

func ourDecodeAgain(v mqtt.Version) func() {
	r := packet.NewReader(&endless{b: wire(v)}, 0, nil)
	var p packet.Publish
	return func() {
		f, err := r.Next()
		if err != nil || p.Decode(f, v) != nil || p.ID != 4711 {
			panic("decode")
		}
	}
}

func mochiEncode(v byte) func() {
	buf := new(bytes.Buffer)
	return func() {
		buf.Reset()
		p := mochi.Packet{ProtocolVersion: v, FixedHeader: mochi.FixedHeader{Type: mochi.Publish, Qos: 1}, TopicName: topic, PacketID: 4711, Payload: payload}
		must(p.PublishEncode(buf))
	}
}

// mochiDecode does what mochi's server does for each packet: header, length, a new buffer, decode, validate.
func mochiDecode(v mqtt.Version) func() {
	r := bufio.NewReader(&endless{b: wire(v)})
	return func() {
		var fh mochi.FixedHeader
		first, err := r.ReadByte()
		must(err)
		must(fh.Decode(first))
		fh.Remaining, _, err = mochi.DecodeLength(r)
		must(err)
		b := make([]byte, fh.Remaining)
		_, err = io.ReadFull(r, b)
		must(err)
		p := mochi.Packet{ProtocolVersion: byte(v), FixedHeader: fh}
		if p.PublishDecode(b) != nil || p.PublishValidate(0).Code >= 0x80 || p.PacketID != 4711 {
			panic("decode")
		}
	}
}

func paho3Encode() func() {
	buf := new(bytes.Buffer)
	return func() {
		buf.Reset()
		p := paho3.NewControlPacket(paho3.Publish).(*paho3.PublishPacket)
		p.Qos, p.TopicName, p.MessageID, p.Payload = 1, topic, 4711, payload
		must(p.Write(buf))
	}
}

func paho3Decode() func() {
	r := bufio.NewReader(&endless{b: wire(mqtt.V311)})
	return func() {
		p, err := paho3.ReadPacket(r)
		if err != nil || p.(*paho3.PublishPacket).MessageID != 4711 {
			panic("decode")
		}
	}
}

func paho5Encode() func() {
	buf := new(bytes.Buffer)
	return func() {
		buf.Reset()
		p := paho5.NewControlPacket(paho5.PUBLISH)
		c := p.Content.(*paho5.Publish)
		c.QoS, c.Topic, c.PacketID, c.Payload = 1, topic, 4711, payload
		_, err := p.WriteTo(buf)
		must(err)
	}
}

func paho5Decode() func() {
	r := bufio.NewReader(&endless{b: wire(mqtt.V5)})
	return func() {
		p, err := paho5.ReadPacket(r)
		if err != nil || p.Content.(*paho5.Publish).PacketID != 4711 {
			panic("decode")
		}
	}
}

func main() {
	rounds := flag.Int("rounds", 21, "how often each is measured; the median counts")
	n := flag.Int("n", 20_000, "operations in a measurement")
	flag.Parse()
	groups := []struct {
		name       string
		contenders []contender
	}{
		{"encode 3.1.1", []contender{{"ours", ourEncode(mqtt.V311)}, {"ours, template", ourTemplate(mqtt.V311)}, {"mochi 2.7.9", mochiEncode(4)}, {"paho.mqtt.golang 1.5.1", paho3Encode()}}},
		{"encode 5.0", []contender{{"ours", ourEncode(mqtt.V5)}, {"ours, template", ourTemplate(mqtt.V5)}, {"mochi 2.7.9", mochiEncode(5)}, {"paho.golang 0.23.0", paho5Encode()}}},
		{"decode 3.1.1", []contender{{"ours", ourDecode(mqtt.V311)}, {"ours, same packet", ourDecodeAgain(mqtt.V311)}, {"mochi 2.7.9", mochiDecode(mqtt.V311)}, {"paho.mqtt.golang 1.5.1", paho3Decode()}}},
		{"decode 5.0", []contender{{"ours", ourDecode(mqtt.V5)}, {"ours, same packet", ourDecodeAgain(mqtt.V5)}, {"mochi 2.7.9", mochiDecode(mqtt.V5)}, {"paho.golang 0.23.0", paho5Decode()}}},
	}
	w := tabwriter.NewWriter(os.Stdout, 2, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "operation\tcodec\tns\tallocations\ttimes ours\t")
	for _, g := range groups {
		times := make([][]time.Duration, len(g.contenders))
		for range *rounds {
			for i, c := range g.contenders {
				start := time.Now()
				for range *n {
					c.op()
				}
				times[i] = append(times[i], time.Since(start))
			}
		}
		var ours float64
		for i, c := range g.contenders {
			slices.Sort(times[i])
			ns := float64(times[i][len(times[i])/2]) / float64(*n)
			if i == 0 {
				ours = ns
			}
			fmt.Fprintf(w, "%s\t%s\t%.1f\t%.0f\t%.1f\t\n", g.name, c.name, ns, testing.AllocsPerRun(100, c.op), ns/ours)
		}
	}
	must(w.Flush())
}
