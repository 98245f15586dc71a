// Package drain measures how fast a backlog leaves the queue, against the same client publishing
// messages of the same size that cost nothing to make:
//
//	go test ./bench/drain -bench . -benchtime 1000000x
//	go test ./bench/drain -bench Shapes -benchtime 200000x   # readings and messages a second, by what a message carries
package drain

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gateway/adapters"
	"gateway/buffer"
	"gateway/e2e/rig"
	"gateway/internal/clock"
	"gateway/internal/delivery"
	"gateway/internal/format"
	"gateway/internal/sample"
	"gateway/mqtt"
	"gateway/mqtt/client"
)

// connect runs a client to url until the benchmark ends.
func connect(b *testing.B, url string, onState func(client.State)) *client.Client {
	b.Helper()
	up := make(chan struct{}, 1)
	cl, err := client.New(client.Options{URLs: []string{url}, ClientID: "bench", OnState: func(s client.State) {
		onState(s)
		if s.Connected {
			up <- struct{}{}
		}
	}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- cl.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		<-ended
	})
	select {
	case <-up:
	case <-time.After(10 * time.Second):
		b.Fatal("no connection")
	}
	return cl
}

// meter is a sample of so many readings.
func meter(readings int) (*sample.Record, buffer.Dict) {
	s := &adapters.Schema{Device: "meter"}
	r := &sample.Record{Boot: 1, HasPrev: true, Prev: 1_000_000}
	for i := range readings {
		s.Points = append(s.Points, adapters.Point{Name: fmt.Sprintf("r%d", i)})
		r.Sample.Readings = append(r.Sample.Readings, adapters.Reading{Point: i, Value: adapters.FloatValue(float64(2301+i*317) / 10)})
	}
	r.Sample.Schema, r.Sample.Time = s, 1
	blob := sample.EncodeSchema(s)
	return r, buffer.Dict{Hash: blob.Hash, Data: blob.Data}
}

func formatter(b *testing.B, batch bool) *format.Formatter {
	f, err := format.New(format.Options{Gateway: "plant", QoS: 1, Batch: batch})
	if err != nil {
		b.Fatal(err)
	}
	return f
}

const window = 64

// BenchmarkGenerated is the limit: one message, published again and again.
func BenchmarkGenerated(b *testing.B) {
	mosquitto := rig.NewMosquitto(b, "log_type none")
	cl := connect(b, mosquitto.URL(), func(client.State) {})
	r, _ := meter(20)
	var out format.Out
	if err := formatter(b, false).Append(&out, format.Item{Sample: &r.Sample, Epoch: 1 << 63, Seq: 1_000_001, Prev: r.Prev, HasPrev: true, Wall: time.Now().UnixNano()}); err != nil {
		b.Fatal(err)
	}
	slots := make(chan struct{}, window)
	var all sync.WaitGroup
	b.SetBytes(int64(len(out.Messages[0].Payload)))
	b.ResetTimer()
	for range b.N {
		slots <- struct{}{}
		all.Add(1)
		m := mqtt.Message(out.Messages[0])
		if err := cl.Publish(context.Background(), &m, func(err error) {
			if err != nil {
				b.Error(err)
			}
			<-slots
			all.Done()
		}); err != nil {
			b.Fatal(err)
		}
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "samples/s")
}

// BenchmarkDrain is the way from a queue on disk with b.N samples to the broker; with live-first beside
// 50 new samples a second.
func BenchmarkDrain(b *testing.B) {
	for _, order := range []delivery.Order{delivery.OldestFirst, delivery.LiveFirst} {
		b.Run(string(order), func(b *testing.B) { drain(b, order, shape{readings: 20, samples: 1}) })
	}
}

// A shape is what a message carries.
type shape struct {
	readings int // of a sample
	samples  int
}

// BenchmarkShapes is the drain by what a message carries: a device's sample, a single reading, or several
// samples of a device.
func BenchmarkShapes(b *testing.B) {
	for _, s := range []shape{{20, 1}, {1, 1}, {20, 20}} {
		b.Run(fmt.Sprintf("%dreadings-%dsamples", s.readings, s.samples), func(b *testing.B) { drain(b, delivery.OldestFirst, s) })
	}
}

func drain(b *testing.B, order delivery.Order, s shape) {
	mosquitto := rig.NewMosquitto(b, "log_type none")
	dir := b.TempDir()
	q, err := buffer.Open(buffer.Options{Dir: filepath.Join(dir, "queue"), MaxBytes: 1 << 30, SyncWindow: time.Second})
	if err != nil {
		b.Fatal(err)
	}
	consumer, err := q.Consumer("cloud", buffer.Oldest())
	if err != nil {
		b.Fatal(err)
	}
	r, dict := meter(s.readings)
	data := sample.Append(nil, r)
	for range b.N {
		if _, err := q.Append(data, &dict); err != nil {
			b.Fatal(err)
		}
	}
	clk, err := clock.Open(clock.Options{Dir: dir, Trust: true})
	if err != nil {
		b.Fatal(err)
	}
	cl := connect(b, mosquitto.URL(), func(client.State) {})
	d, err := delivery.New(delivery.Options{Name: "cloud", Source: consumer, Publisher: cl, Formatter: formatter(b, s.samples > 1), Clock: clk, Window: window, Order: order, BatchSamples: s.samples})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = q.Run(ctx) })
	b.SetBytes(int64(len(data)))
	b.ResetTimer()
	all.Go(func() { _ = d.Run(ctx) })
	total := b.N
	if order == delivery.LiveFirst {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for d.Status().Delivered < uint64(b.N) {
			if _, err := q.Append(data, &dict); err != nil {
				b.Fatal(err)
			}
			total++
			<-tick.C
		}
	}
	if err := d.Drain(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "samples/s")
	b.ReportMetric(float64(b.N*s.readings)/b.Elapsed().Seconds(), "readings/s")
	status := d.Status()
	b.ReportMetric(float64(status.Messages)/b.Elapsed().Seconds(), "messages/s")
	if status.Delivered != uint64(total) {
		b.Errorf("%d of %d delivered", status.Delivered, total)
	}
	b.StopTimer()
	cancel()
	all.Wait()
	if err := q.Close(); err != nil {
		b.Error(err)
	}
}
