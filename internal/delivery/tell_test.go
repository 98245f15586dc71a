package delivery

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters"
	"gateway/internal/format"
	"gateway/internal/sample"
	"gateway/internal/verify"
	"gateway/mqtt"
)

func isSchema(topic string) bool { return strings.Contains(topic, "/schema/") }

// heard is what a subscriber that was there from the beginning makes of what arrived in CBOR: the readings n of
// a device, and how often schemas came. A sample before its schema is an error.
func heard(t *testing.T, arrived []got, device string) (list []int, schemas int) {
	t.Helper()
	var r verify.Reader
	for _, g := range arrived {
		samples, err := r.Read(&mqtt.Message{Topic: g.topic, Payload: []byte(g.payload)})
		if err != nil {
			t.Fatalf("%s %x: %v", g.topic, g.payload, err)
		}
		if len(samples) == 0 {
			schemas++
		}
		for _, s := range samples {
			if s.Unnamed != "" {
				t.Errorf("sample %d of %s came before its schema", s.Seq, g.topic)
				continue
			}
			if g.topic == "g/"+device {
				list = append(list, int(s.Values["n"].(float64)))
			}
		}
	}
	return list, schemas
}

// schemas is how many came.
func (b *fakeBroker) schemas() (n int) {
	for _, g := range b.all() {
		if isSchema(g.topic) {
			n++
		}
	}
	return n
}

func TestASchemaGoesBeforeTheSamplesThatNeedIt(t *testing.T) {
	for name, o := range map[string]Options{"alone": {}, "several to a message": {BatchSamples: 10, BatchWait: time.Second}} {
		bubble(t, name, func(t *testing.T) {
			q, b := newFakeQueue(), newFakeBroker(10*time.Millisecond)
			// The device's points were others when the backlog began.
			old := adapters.Schema{Device: "a", Points: []adapters.Point{{Name: "m"}, {Name: "n"}}}
			for i := range 20 {
				r := sample.Record{Boot: 1, Sample: adapters.Sample{Schema: &old, Readings: []adapters.Reading{{Point: 1, Value: adapters.IntValue(int64(i + 1))}}}}
				q.appendRaw(sample.Append(nil, &r), sample.EncodeSchema(&old).Data)
			}
			for i := range 20 {
				q.append("a", 21+i)
				q.append("b", i+1)
			}
			d := run(t, o, q, b, format.Options{Kind: format.CBOR, Batch: o.BatchSamples > 1})
			drain(t, d, time.Minute)
			list, schemas := heard(t, b.all(), "a")
			wantInOrder(t, list, 40)
			list, _ = heard(t, b.all(), "b")
			wantInOrder(t, list, 20)
			if schemas != 3 {
				t.Errorf("%d schemas came, want each once", schemas)
			}
			for _, g := range b.all() {
				if g.retain != isSchema(g.topic) {
					t.Errorf("%s is retained: %t", g.topic, g.retain)
				}
			}
		})
	}
}

// Who comes later finds what is retained, or has to wait for what is not.
func TestASchemaIsToldAnewWhereItMayBeForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		d := run(t, Options{}, q, b, format.Options{Kind: format.CBOR})
		n := 0
		for _, step := range []struct {
			what string
			do   func()
			want int
		}{
			{"at first", func() { d.Link(Link{Connected: true, URL: "a"}) }, 1},
			{"in the same session", func() {}, 0},
			{"after a reconnect to the same session", func() { d.Link(Link{}); d.Link(Link{Connected: true, URL: "a", Resumed: true}) }, 0},
			{"after a reconnect to a new one", func() { d.Link(Link{}); d.Link(Link{Connected: true, URL: "a"}) }, 1},
			{"at another broker of the cluster", func() { d.Link(Link{}); d.Link(Link{Connected: true, URL: "b", Resumed: true}) }, 1},
			{"an hour later", func() { time.Sleep(time.Hour) }, 0},
			{"a day later", func() { time.Sleep(24 * time.Hour) }, 1},
			{"where nothing is retained", func() { d.Link(Link{}); d.Link(Link{Connected: true, URL: "b", RetainsNothing: true}) }, 1},
			{"there again", func() {}, 0},
			{"there ten minutes later", func() { time.Sleep(10 * time.Minute) }, 1},
		} {
			before := b.schemas()
			step.do()
			synctest.Wait()
			n++
			q.append("a", n)
			drain(t, d, time.Minute)
			if came := b.schemas() - before; came != step.want {
				t.Errorf("%s: %d schemas, want %d", step.what, came, step.want)
			}
		}
		all := b.all()
		if last := all[len(all)-2]; !isSchema(last.topic) || last.retain {
			t.Errorf("the last schema: %+v", last)
		}
	})
}

// 0x9A from a broker that has not announced it.
func TestWhereRetainingIsRefusedSchemasAreNotRetained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		b.set(func(m *mqtt.Message) error {
			if m.Retain {
				return refusedBy(mqtt.RetainNotSupported)
			}
			return nil
		})
		d := run(t, Options{}, q, b, format.Options{Kind: format.CBOR})
		for i := range 3 {
			q.append("a", i+1)
			drain(t, d, time.Minute)
			time.Sleep(time.Second)
		}
		if b.schemas() != 1 {
			t.Errorf("%d schemas came", b.schemas())
		}
	})
}

func TestARefusedSchemaHoldsUpNoSample(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		letters := openLetters(t, dir, 0)
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		tried := 0
		b.set(func(m *mqtt.Message) error {
			if isSchema(m.Topic) {
				tried++
				return refusedBy(mqtt.NotAuthorized)
			}
			return nil
		})
		d := run(t, Options{Letters: letters}, q, b, format.Options{Kind: format.CBOR})
		for i := range 60 { // ten minutes
			q.append("a", i+1)
			time.Sleep(10 * time.Second)
		}
		drain(t, d, time.Minute)
		if s := d.Status(); s.Delivered != 60 || s.Aside != 0 || s.Retransmitted != 0 {
			t.Errorf("%+v", s)
		}
		if tried < 5 || tried > 10 {
			t.Errorf("tried %d times in ten minutes", tried)
		}
		b.set(nil) // it is allowed now
		q.append("a", 61)
		time.Sleep(time.Minute)
		q.append("a", 62)
		drain(t, d, time.Minute)
		if b.schemas() != 1 {
			t.Errorf("%d schemas came", b.schemas())
		}
	})
}

// A hangingBroker speaks MQTT 3.1.1: at a schema it ends the connection, and the client that comes back sends
// again what is not acknowledged, in its order.
type hangingBroker struct {
	link func(Link)

	mu      sync.Mutex
	up      bool
	allowed bool
	unacked []hanging
	arrived []got
	breaks  int
}

type hanging struct {
	m    *mqtt.Message
	done func(error)
}

func (b *hangingBroker) Publish(_ context.Context, m *mqtt.Message, done func(error)) error {
	b.mu.Lock()
	b.unacked = append(b.unacked, hanging{m, done})
	b.mu.Unlock()
	time.AfterFunc(time.Millisecond, b.work)
	return nil
}

func (b *hangingBroker) work() {
	for {
		b.mu.Lock()
		if !b.up || len(b.unacked) == 0 {
			b.mu.Unlock()
			return
		}
		next := b.unacked[0]
		if isSchema(next.m.Topic) && !b.allowed {
			b.up = false
			b.breaks++
			b.mu.Unlock()
			b.link(Link{})
			time.AfterFunc(time.Second, b.connect)
			return
		}
		b.unacked = b.unacked[1:]
		b.arrived = append(b.arrived, got{topic: next.m.Topic, payload: string(next.m.Payload)})
		b.mu.Unlock()
		next.done(nil)
	}
}

func (b *hangingBroker) connect() {
	b.mu.Lock()
	b.up = true
	b.mu.Unlock()
	b.link(Link{Connected: true, URL: "a", Resumed: true})
	b.work()
}

func (b *hangingBroker) Withdraw() {
	b.mu.Lock()
	all := b.unacked
	b.unacked = nil
	b.mu.Unlock()
	for _, x := range all {
		x.done(errors.New("withdrawn"))
	}
}

func TestABrokerThatHangsUpOnSchemasGetsTheSamples(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		letters := openLetters(t, dir, 0)
		q, b := newFakeQueue(), &hangingBroker{}
		d := run(t, Options{Letters: letters}, q, b, format.Options{Kind: format.CBOR})
		b.link = d.Link
		d.Link(Link{})
		b.connect()
		for i := range 360 { // an hour
			q.append("a", 2*i+1)
			q.append("b", i+1)
			q.append("a", 2*i+2)
			time.Sleep(10 * time.Second)
		}
		drain(t, d, 10*time.Minute)
		if s := d.Status(); s.Aside != 0 || s.Delivered != 3*360 {
			t.Errorf("%+v", s)
		}
		b.mu.Lock()
		if b.breaks < 5 || b.breaks > 30 {
			t.Errorf("%d connections broken in an hour", b.breaks)
		}
		b.allowed = true
		b.mu.Unlock()
		for i := range 80 {
			q.append("a", 721+i)
			time.Sleep(10 * time.Second)
		}
		drain(t, d, time.Minute)
		b.mu.Lock()
		defer b.mu.Unlock()
		last := b.arrived[len(b.arrived)-1]
		schemas := 0
		for _, g := range b.arrived {
			if isSchema(g.topic) {
				schemas++
			}
		}
		if isSchema(last.topic) || schemas != 1 { // of b no sample came since
			t.Errorf("%d schemas came, and at last %s", schemas, last.topic)
		}
	})
}

// What was withdrawn, or was to be retained where that is not possible, was not told.
func TestASchemaThatComesBackIsToldAgain(t *testing.T) {
	now := time.Now()
	x := newTeller()
	m := &mqtt.Message{Topic: "g/a/schema/1", Retain: true}
	if x.due(x.of(m), now) == nil || x.due(x.of(m), now) != nil {
		t.Error("it is not told once")
	}
	x.answer(x.of(m), errors.New("withdrawn"), now)
	if x.due(x.of(m), now) == nil {
		t.Error("it is not told again")
	}
	x.answer(x.of(m), nil, now)
	if x.due(x.of(m), now) != nil {
		t.Error("it is told again")
	}
	// What is on its way when a broker takes over that retains nothing comes back from the client.
	x.link(&Link{Connected: true, URL: "a"})
	if told := x.due(x.of(m), now); told == nil || !told.Retain {
		t.Errorf("to another broker: %+v", told)
	}
	x.link(&Link{Connected: true, URL: "b", RetainsNothing: true})
	if x.answer(x.of(m), refusedBy(mqtt.RetainNotSupported), now) {
		t.Error("it is said to be refused")
	}
	if told := x.due(x.of(m), now); told == nil || told.Retain {
		t.Errorf("to one that retains nothing: %+v", told)
	}
	for i := range maxTellings {
		x.of(&mqtt.Message{Topic: deviceNo(i)})
	}
	if len(x.tellings) > maxTellings {
		t.Errorf("%d are remembered", len(x.tellings))
	}
}
