package delivery

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters"
	"gateway/buffer"
	"gateway/internal/format"
	"gateway/internal/sample"
	"gateway/internal/verify"
	"gateway/mqtt"
)

func TestSamplesArriveOnceAndInOrderThroughTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, b := newFakeQueue(), newFakeBroker(100*time.Millisecond)
		for i := range 200 {
			q.append("a", i+1)
		}
		began := time.Now()
		d := run(t, Options{Window: 10, Order: OldestFirst}, q, b, format.Options{})
		drain(t, d, time.Minute)
		wantInOrder(t, b.numbers(t, "a"), 200)
		if _, most := b.counts(); most != 10 {
			t.Errorf("%d in flight at most, want 10", most)
		}
		if took := time.Since(began); took > 2100*time.Millisecond {
			t.Errorf("200 samples, 10 in flight, 100 ms each: took %v, not 2s", took)
		}
		if s := d.Status(); s.Delivered != 200 || s.Waiting() != 0 || s.Retransmitted != 0 || s.State != Delivering {
			t.Errorf("%+v", s)
		}
	})
}

func TestNothingIsReadOrSentWithoutAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		d := run(t, Options{}, q, b, format.Options{})
		d.Link(Link{Connected: false, RetryIn: 5 * time.Second})
		synctest.Wait()
		for i := range 50 {
			q.append("a", i+1)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n, _ := b.counts(); n != 0 {
			t.Fatalf("%d published", n)
		}
		if s := d.Status(); s.State != Offline || s.Waiting() != 50 {
			t.Errorf("%+v", s)
		}
		d.Link(Link{Connected: true})
		drain(t, d, time.Second)
		wantInOrder(t, b.numbers(t, "a"), 50)
	})
}

func TestAnAcknowledgementOfEveryMessageAcknowledgesTheSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newFakeQueue()
		run(t, Options{}, q, publisherFunc(func(m *mqtt.Message, done func(error)) {
			if strings.HasSuffix(m.Topic, "/m") {
				time.AfterFunc(time.Minute, func() { done(nil) })
				return
			}
			done(nil)
		}), format.Options{Kind: format.Value})
		q.append("a", 1)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if live, _ := q.Depth(); live != 1 {
			t.Error("acknowledged before its second message was")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if live, _ := q.Depth(); live != 0 {
			t.Error("not acknowledged")
		}
	})
}

func TestARefusedSampleIsSetAsideAndSentAgainOnRequest(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		letters := openLetters(t, dir, 0)
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		b.set(func(m *mqtt.Message) error {
			if strings.Contains(string(m.Payload), `"n":3,`) {
				return refusedBy(mqtt.PayloadFormatInvalid)
			}
			return nil
		})
		told := make(chan string, 10)
		d := run(t, Options{Letters: letters, Aside: func(id ID, reason string) { told <- idText(id) + " " + reason }}, q, b, format.Options{})
		for i := range 10 {
			q.append("a", i+1)
			time.Sleep(10 * time.Millisecond)
		}
		drain(t, d, time.Minute)
		synctest.Wait()
		if got := b.numbers(t, "a"); slices.Contains(got, 3) || len(got) != 9 {
			t.Errorf("arrived: %v", got)
		}
		if what := <-told; len(told) != 0 || !strings.HasPrefix(what, idOf(3)+" ") || !strings.Contains(what, "payload format invalid") {
			t.Errorf("told: %q and %d more", what, len(told))
		}
		list, err := ListLetters(dir)
		if err != nil || len(list) != 1 || list[0].ID.Seq != 3 {
			t.Fatalf("letters: %v, %v", list, err)
		}
		if s := d.Status(); s.Aside != 1 || s.Delivered != 9 {
			t.Errorf("%+v", s)
		}

		b.set(nil) // the broker's fault is mended
		if n, err := RetryLetters(dir); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := b.numbers(t, "a"); !slices.Contains(got, 3) || len(got) != 10 {
			t.Errorf("after the retry: %v", got)
		}
		if list, err := ListLetters(dir); err != nil || len(list) != 0 {
			t.Errorf("letters left: %v, %v", list, err)
		}
	})
}

// strict is a publisher that looks at messages before it takes them, as a client does.
type strict struct {
	*fakeBroker
	tries atomic.Int64
}

func (s *strict) Publish(ctx context.Context, m *mqtt.Message, done func(error)) error {
	s.tries.Add(1)
	if strings.Contains(string(m.Payload), `"n":3,`) {
		return errors.New("this is no message")
	}
	return s.fakeBroker.Publish(ctx, m, done)
}

// A topic that is refused for good costs the others nothing: it is tried now and then, and what it gets
// meanwhile is set aside unsent.
func TestATopicThatIsAlwaysRefusedIsBarred(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		letters := openLetters(t, dir, 0)
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		tried := 0
		forbid := func(m *mqtt.Message) error {
			if m.Topic != "g/forbidden" {
				return nil
			}
			tried++
			return refusedBy(mqtt.NotAuthorized)
		}
		b.set(forbid)
		d := run(t, Options{Letters: letters, Order: OldestFirst}, q, b, format.Options{})
		for i := range 60 { // ten minutes
			q.append("forbidden", i+1)
			q.append("a", i+1)
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		wantInOrder(t, b.numbers(t, "a"), 60)
		if s := d.Status(); s.Aside < 58 || s.State != Delivering {
			t.Errorf("%+v", s)
		}
		if tried > 10 {
			t.Errorf("tried %d times in ten minutes", tried)
		}
		b.set(nil)
		for i := range 90 {
			q.append("forbidden", 101+i)
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		if got := b.numbers(t, "forbidden"); len(got) < 20 || got[len(got)-1] != 190 {
			t.Errorf("%d came of the last quarter of an hour, in which it was allowed", len(got))
		}
		// Who asks for what was set aside says that the reason is mended: nothing waits for the next trial.
		b.set(forbid)
		for i := range 10 {
			q.append("forbidden", 201+i)
			q.append("a", 61+i)
			time.Sleep(10 * time.Second)
		}
		b.set(nil)
		if _, err := RetryLetters(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		q.append("forbidden", 301)
		drain(t, d, time.Minute)
		if got := b.numbers(t, "forbidden"); len(got) < 150 || !slices.Contains(got, 301) {
			t.Errorf("%d came after all, the newest %v", len(got), got[max(0, len(got)-3):])
		}
	})
}

// It was given to the publisher again at once, for ever, and nothing else was.
func TestAMessageThatThePublisherDoesNotTakeIsSetAside(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		letters := openLetters(t, dir, 0)
		q, b := newFakeQueue(), &strict{fakeBroker: newFakeBroker(time.Millisecond)}
		d := run(t, Options{Letters: letters}, q, b, format.Options{})
		for i := range 10 {
			q.append("a", i+1)
			time.Sleep(10 * time.Millisecond)
		}
		drain(t, d, time.Minute)
		if got := b.numbers(t, "a"); len(got) != 9 || b.tries.Load() > 15 {
			t.Errorf("%d tries; arrived: %v", b.tries.Load(), got)
		}
		if list, err := ListLetters(dir); err != nil || len(list) != 1 || !strings.Contains(list[0].Reason, "this is no message") {
			t.Errorf("letters: %v, %v", list, err)
		}
	})
}

func TestARecordThatCannotBeReadIsSetAside(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		letters := openLetters(t, dir, 0)
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		q.append("a", 1)
		q.appendRaw([]byte("junk"), nil)
		q.append("a", 2)
		d := run(t, Options{Letters: letters}, q, b, format.Options{})
		drain(t, d, time.Second)
		wantInOrder(t, b.numbers(t, "a"), 2)
		if list, err := ListLetters(dir); err != nil || len(list) != 1 || string(list[0].Data) != "junk" {
			t.Errorf("letters: %v, %v", list, err)
		}
	})
}

func TestADestinationWithoutPermissionKeepsItsBacklog(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		letters := openLetters(t, dir, 0)
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		b.set(func(*mqtt.Message) error { return refusedBy(mqtt.NotAuthorized) })
		d := run(t, Options{Letters: letters, Order: OldestFirst}, q, b, format.Options{})
		for i := range 100 {
			q.append("a", i+1)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		s := d.Status()
		if s.State != Held || s.Waiting() != 100 || s.Aside != 0 || !strings.Contains(s.LastError, "not authorized") || s.RetryIn <= 0 {
			t.Errorf("%+v", s)
		}
		if n, _ := b.counts(); n > 64+60 {
			t.Errorf("%d attempts in an hour", n)
		}
		b.set(nil)
		drain(t, d, 10*time.Minute)
		if got := b.numbers(t, "a"); len(got) != 100 {
			t.Errorf("%d arrived", len(got))
		}
	})
}

func TestLiveSamplesDoNotWaitBehindTheBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, b := newFakeQueue(), newFakeBroker(50*time.Millisecond)
		for i := range 2000 {
			q.append("old", i+1)
		}
		d := run(t, Options{Window: 8, Order: LiveFirst}, q, b, format.Options{Retain: true})
		synctest.Wait()
		began := time.Now()
		for i := range 20 {
			q.append("new", i+1)
			time.Sleep(200 * time.Millisecond)
		}
		drain(t, d, time.Hour)
		wantInOrder(t, b.numbers(t, "old"), 2000)
		wantInOrder(t, b.numbers(t, "new"), 20)
		n := 0
		for _, g := range b.all() {
			historical := strings.Contains(g.payload, `"historical":true`)
			if old := g.topic == "g/old"; old != historical || old == g.retain {
				t.Fatalf("%s: historical %t, retained %t", g.topic, historical, g.retain)
			}
			if g.topic == "g/new" {
				if late := g.at.Sub(began.Add(time.Duration(n) * 200 * time.Millisecond)); late > 150*time.Millisecond {
					t.Errorf("live sample %d came %v late", n, late)
				}
				n++
			}
		}
	})
}

// A link that takes a tenth of a second for a message: a window full of the backlog would keep a new sample
// waiting for five seconds.
func TestLiveSamplesDoNotWaitBehindTheBacklogOnAThinLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, b := newFakeQueue(), newFakeBroker(50*time.Millisecond)
		b.each = 100 * time.Millisecond
		for i := range 800 {
			q.append("old", i+1)
		}
		d := run(t, Options{Order: LiveFirst}, q, b, format.Options{})
		time.Sleep(15 * time.Second) // in which it learns
		began := time.Now()
		for i := range 50 {
			q.append("new", i+1)
			time.Sleep(time.Second)
		}
		synctest.Wait()
		n := 0
		for _, g := range b.all() {
			if g.topic == "g/new" {
				if late := g.at.Sub(began.Add(time.Duration(n) * time.Second)); late > time.Second {
					t.Errorf("live sample %d came %v late", n, late)
				}
				n++
			}
		}
		if sent := len(b.all()); n != 50 || sent < 620 {
			t.Errorf("%d live samples of 50, and %d messages in 65 s over a link that takes ten a second", n, sent)
		}
		drain(t, d, time.Hour)
		wantInOrder(t, b.numbers(t, "old"), 800)
	})
}

// A broker that acknowledges when it has synced, once a second, is no thin link.
func TestABacklogIsNotSlowedByABrokerThatSyncsInGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, b := newFakeQueue(), newFakeBroker(0)
		b.sync = time.Second
		for i := range 1500 {
			q.append("old", i+1)
		}
		d := run(t, Options{Order: LiveFirst}, q, b, format.Options{})
		synctest.Wait()
		q.append("new", 1)
		began := time.Now()
		drain(t, d, time.Hour)
		if took := time.Since(began); took > 2*1500/48*time.Second { // at least half of what the window allows
			t.Errorf("took %v", took)
		}
	})
}

func TestOldestFirstKeepsTheOrderOfTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		for i := range 1000 {
			q.append("a", i+1)
		}
		d := run(t, Options{Order: OldestFirst}, q, b, format.Options{})
		for i := range 50 {
			q.append("a", 1001+i)
		}
		drain(t, d, time.Minute)
		wantInOrder(t, b.numbers(t, "a"), 1050)
		for _, g := range b.all() {
			if strings.Contains(g.payload, "historical") {
				t.Fatal("marked historical")
			}
		}
	})
}

func TestRatesAreKept(t *testing.T) {
	cases := map[string]struct {
		o    Options
		n    int
		want time.Duration
	}{
		"messages":          {Options{Order: OldestFirst, MessageRate: 50}, 500, 9 * time.Second}, // a second's worth at once
		"bytes":             {Options{Order: OldestFirst, ByteRate: 4000}, 400, 0},
		"backlog":           {Options{Order: LiveFirst, BackfillRate: 20}, 400, 19 * time.Second},
		"window is no rate": {Options{Order: OldestFirst, Window: 1}, 100, 100 * time.Millisecond},
	}
	for name, c := range cases {
		bubble(t, name, func(t *testing.T) {
			q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
			for i := range c.n {
				q.append("a", i+1)
			}
			began := time.Now()
			d := run(t, c.o, q, b, format.Options{})
			drain(t, d, time.Hour)
			took := time.Since(began)
			want := c.want
			if c.o.ByteRate > 0 {
				want = time.Duration((float64(d.Status().Bytes)/c.o.ByteRate - 1) * float64(time.Second))
			}
			if took < want*95/100 || took > want*115/100+50*time.Millisecond {
				t.Errorf("took %v, want %v", took, want)
			}
		})
	}
}

// With report by exception a sample may hold none of the points that go here. It is no loss, and must not
// look like one.
func TestASampleThatIsPassedOverIsNobodysPredecessor(t *testing.T) {
	for name, batch := range map[string]int{"single": 1, "batch": 3} {
		bubble(t, name, func(t *testing.T) {
			q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
			for seq := uint64(1); seq <= 12; seq++ { // every third has the point n, all have m
				r := sample.Record{Boot: 1, Prev: seq - 1, HasPrev: seq > 1, Sample: adapters.Sample{Schema: schemaOf("a")}}
				if seq%3 == 1 {
					r.Sample.Readings = append(r.Sample.Readings, adapters.Reading{Value: adapters.IntValue(int64(seq))})
				}
				r.Sample.Readings = append(r.Sample.Readings, adapters.Reading{Point: 1, Value: adapters.BoolValue(true)})
				q.appendRaw(sample.Append(nil, &r), sample.EncodeSchema(r.Sample.Schema).Data)
			}
			d := run(t, Options{Order: OldestFirst, BatchSamples: batch}, q, b, format.Options{Batch: batch > 1, Select: format.Selector{Points: []string{"n"}}})
			drain(t, d, time.Minute)
			c := verify.NewChecker()
			for _, g := range b.all() {
				if err := c.Add(&mqtt.Message{Topic: g.topic, Payload: []byte(g.payload)}); err != nil {
					t.Error(err)
				}
			}
			if r := c.Report(); r.Samples != 4 || len(r.Gaps) > 0 || r.Anew > 0 {
				t.Errorf("%v: %+v", &r, r)
			}
		})
	}
}

// Nor is one that was passed over before a restart.
func TestWhatWasPassedOverBeforeARestartIsNobodysPredecessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		add := func(seq uint64, point int) {
			r := sample.Record{Boot: 1, Prev: seq - 1, HasPrev: seq > 1, Sample: adapters.Sample{Schema: schemaOf("a"),
				Readings: []adapters.Reading{{Point: point, Value: adapters.IntValue(int64(seq))}}}}
			q.appendRaw(sample.Append(nil, &r), sample.EncodeSchema(r.Sample.Schema).Data)
		}
		for seq, point := range []int{0, 1, 1, 0, 1, 1} { // of two points, of which the first goes here
			add(uint64(seq+1), point)
			q.Ack(ID{Epoch: 7, Seq: uint64(seq + 1)}) // all before the restart
		}
		add(7, 1)
		add(8, 0)
		d := run(t, Options{Recent: q.recent}, q, b, format.Options{Select: format.Selector{Points: []string{"n"}}})
		drain(t, d, time.Minute)
		if all := b.all(); len(all) != 1 || !strings.Contains(all[0].payload, `"seq":8,"prev":4,`) {
			t.Errorf("%+v", all)
		}
	})
}

// Nor is one in the backlog, which is passed over only when its successor is long gone.
func TestWhatIsPassedOverInTheBacklogIsNobodysPredecessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, b := newFakeQueue(), newFakeBroker(10*time.Millisecond)
		const backlog = 500
		add := func(seq uint64, point int) {
			r := sample.Record{Boot: 1, Prev: seq - 1, HasPrev: seq > 1, Sample: adapters.Sample{Schema: schemaOf("a"),
				Readings: []adapters.Reading{{Point: point, Value: adapters.IntValue(int64(seq))}}}}
			q.appendRaw(sample.Append(nil, &r), sample.EncodeSchema(r.Sample.Schema).Data)
		}
		d := run(t, Options{Recent: q.recent, Order: LiveFirst, Window: 4, BackfillRate: 50}, q, b, format.Options{Select: format.Selector{Points: []string{"n"}}})
		d.Link(Link{Connected: false})
		synctest.Wait()
		for seq := range backlog {
			point := 0
			if seq >= backlog-3 {
				point = 1 // does not go here
			}
			add(uint64(seq+1), point)
		}
		d.Link(Link{Connected: true})
		time.Sleep(time.Second)
		add(backlog+1, 0)
		add(backlog+2, 0)
		time.Sleep(time.Second)
		var live []string
		for _, g := range b.all() {
			if !strings.Contains(g.payload, `"historical"`) {
				live = append(live, g.payload)
			}
		}
		if len(live) != 2 || !strings.Contains(live[0], `"seq":501,"prev":497,`) || !strings.Contains(live[1], `"seq":502,"prev":501,`) {
			t.Errorf("%q", live)
		}
		drain(t, d, time.Minute)
	})
}

func TestBatchesFillOrAreDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		run(t, Options{Order: OldestFirst, BatchSamples: 10, BatchWait: 5 * time.Second}, q, b, format.Options{Batch: true})
		for i := range 25 {
			q.append("a", i+1)
		}
		q.append("b", 1)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(b.all()) != 2 {
			t.Errorf("%d messages after a second, want the two full ones", len(b.all()))
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(b.all()) != 4 {
			t.Errorf("%d messages after six, want four", len(b.all()))
		}
		wantInOrder(t, b.numbers(t, "a"), 25)
		wantInOrder(t, b.numbers(t, "b"), 1)
		if live, _ := q.Depth(); live != 0 {
			t.Errorf("%d not acknowledged", live)
		}
	})
}

// A device that says little shares the queue with one that says much: neither its samples nor the
// cursor wait for the end of the backlog.
func TestABatchIsNotKeptWaitingByABacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, b := newFakeQueue(), newFakeBroker(100*time.Millisecond)
		q.append("seldom", 1)
		for i := range 10_000 {
			q.append("often", i+1)
		}
		run(t, Options{Window: 2, Order: OldestFirst, BatchSamples: 10, BatchWait: 2 * time.Second}, q, b, format.Options{Batch: true})
		time.Sleep(3 * time.Second)
		synctest.Wait()
		wantInOrder(t, b.numbers(t, "seldom"), 1)
		if n := len(b.numbers(t, "often")); n == 10_000 {
			t.Error("the backlog was too short to tell")
		}
	})
}

func TestAQueueThatCannotBeReadForAWhileIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		q.fails = errors.New("input/output error")
		q.append("a", 1)
		d := run(t, Options{Order: OldestFirst}, q, b, format.Options{})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := d.Status(); s.State != Unreadable || s.LastError != "input/output error" {
			t.Errorf("%+v", s)
		}
		q.mu.Lock()
		q.fails = nil
		q.mu.Unlock()
		drain(t, d, 5*time.Second)
		wantInOrder(t, b.numbers(t, "a"), 1)
		if s := d.Status(); s.State != Delivering || s.LastError != "" {
			t.Errorf("%+v", s)
		}
	})
}

// What the broker does not take at once would wait in the client, with new samples behind it.
func TestTheWindowIsNoWiderThanTheBrokerTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		d := run(t, Options{Order: OldestFirst}, q, b, format.Options{})
		for i, atOnce := range []int{1, 7, 0} {
			d.Link(Link{Connected: false})
			d.Link(Link{Connected: true, Window: atOnce})
			synctest.Wait()
			b.mu.Lock()
			b.most = 0
			b.mu.Unlock()
			for n := range 200 {
				q.append("a", 200*i+n+1)
			}
			drain(t, d, time.Minute)
			want := atOnce
			if atOnce == 0 {
				want = 64
			}
			if _, most := b.counts(); most != want {
				t.Errorf("%d in flight at a broker that takes %d", most, atOnce)
			}
		}
		wantInOrder(t, b.numbers(t, "a"), 600)
	})
}

// stubborn is a broker that acknowledges nothing at its first address.
type stubborn struct {
	*fakeBroker
	reconnect func(error)
}

func (s *stubborn) Reconnect(why error) { s.reconnect(why) }

func TestABrokerThatAcknowledgesNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, b := newFakeQueue(), &stubborn{fakeBroker: newFakeBroker(24 * time.Hour)}
		var d *Destination
		var left []time.Duration
		began := time.Now()
		b.reconnect = func(why error) {
			left = append(left, time.Since(began))
			d.Link(Link{Err: why})
			if len(left) == 5 {
				b.mu.Lock()
				b.delay = time.Millisecond
				b.mu.Unlock()
			}
			b.Withdraw() // as the client does with what a new session does not know
			d.Link(Link{Connected: true})
		}
		d = run(t, Options{Order: OldestFirst}, q, b, format.Options{})
		time.Sleep(10 * time.Minute) // nothing in flight is no reason
		began = time.Now()
		for i := range 100 {
			q.append("a", i+1)
		}
		drain(t, d, time.Hour)
		if want := []time.Duration{60 * time.Second, 120 * time.Second, 180 * time.Second, 240 * time.Second, 300 * time.Second}; len(left) != len(want) {
			t.Errorf("left after %v", left)
		} else if late := left[4] - want[4]; late < 0 || late > 10*time.Second {
			t.Errorf("left after %v", left)
		}
		if s := d.Status(); s.Aside > 0 || s.Limit != 64 {
			t.Errorf("innocent messages are under suspicion: %+v", s)
		}
	})
}

func TestOneBadSampleOfABatchDoesNotTakeTheOthersWithIt(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		letters := openLetters(t, dir, 0)
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		b.set(func(m *mqtt.Message) error {
			if strings.Contains(string(m.Payload), `"n":7,`) {
				return refusedBy(mqtt.PayloadFormatInvalid)
			}
			return nil
		})
		d := run(t, Options{Order: OldestFirst, BatchSamples: 10, BatchWait: time.Second, Letters: letters}, q, b, format.Options{Batch: true})
		for i := range 100 {
			q.append("a", i+1)
		}
		for i := range 30 { // others, by which the destination is seen to be sound
			q.append("b", i+1001)
			time.Sleep(2 * time.Second)
		}
		drain(t, d, time.Minute)
		got := b.numbers(t, "a")
		slices.Sort(got)
		if len(got) != 99 || slices.Contains(got, 7) {
			t.Errorf("%d arrived: %v", len(got), got)
		}
		if list, _ := ListLetters(dir); len(list) != 1 || list[0].ID.Seq != 7 {
			t.Errorf("letters: %v", list)
		}
	})
}

// The count goes with the cursor, so that a crash sets both back alike.
func TestWhatWasDeliveredIsCountedByTheQueue(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		letters := openLetters(t, dir, 0)
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		b.set(func(m *mqtt.Message) error {
			if m.Topic == "g/refused" {
				return refusedBy(mqtt.NotAuthorized)
			}
			return nil
		})
		d := run(t, Options{BatchSamples: 10, BatchWait: time.Second, Letters: letters}, q, b,
			format.Options{Batch: true, Rules: []format.Rule{{Match: format.Selector{Devices: []string{"skipped"}}, Skip: true}}})
		for i := range 20 {
			q.append("a", i+1)
		}
		q.append("skipped", 21)
		q.append("refused", 22)
		for i := range 3 { // by which the destination is seen to be sound
			time.Sleep(10 * time.Second)
			q.append("a", 23+i)
		}
		drain(t, d, time.Minute)
		synctest.Wait()
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.tally != (buffer.Tally{23, 5}) {
			t.Errorf("the tally is %v, not 23 samples in 5 messages", q.tally)
		}
	})
}

func TestWhatIsNotSelectedIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, b := newFakeQueue(), newFakeBroker(time.Millisecond)
		for i := range 20 {
			q.append(deviceNo(i%2), i/2+1)
		}
		d := run(t, Options{}, q, b, format.Options{Select: format.Selector{Devices: []string{"d1"}}})
		drain(t, d, time.Second)
		wantInOrder(t, b.numbers(t, "d1"), 10)
		if len(b.all()) != 10 {
			t.Errorf("%d messages", len(b.all()))
		}
	})
}

func TestARestartRepeatsNoMoreThanTheWindow(t *testing.T) {
	q, b := newFakeQueue(), newFakeBroker(10*time.Millisecond)
	for i := range 500 {
		q.append("a", i+1)
	}
	synctest.Test(t, func(t *testing.T) {
		q.ready = make(chan struct{}, 1)
		run(t, Options{Window: 16, Order: OldestFirst}, q, b, format.Options{})
		time.Sleep(105 * time.Millisecond) // and the process dies
		synctest.Wait()
	})
	q.next = [2]int{}
	b.unacked = map[int]func(error){}
	synctest.Test(t, func(t *testing.T) {
		q.ready = make(chan struct{}, 1)
		d := run(t, Options{Window: 16, Order: OldestFirst}, q, b, format.Options{})
		drain(t, d, time.Minute)
	})
	seen := map[int]int{}
	for _, n := range b.numbers(t, "a") {
		seen[n]++
	}
	if twice := len(b.numbers(t, "a")) - 500; len(seen) != 500 || twice > 16 {
		t.Errorf("%d of 500 arrived, %d twice", len(seen), twice)
	}
}

func TestImpossibleOptionsAreRefused(t *testing.T) {
	f, err := format.New(format.Options{})
	if err != nil {
		t.Fatal(err)
	}
	good := Options{Source: newFakeQueue(), Publisher: newFakeBroker(0), Formatter: f, Clock: fakeClock{}}
	d, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	if s := d.Status(); s.State != Starting { // a service manager is told of the state at once
		t.Errorf("%+v", s)
	}
	for name, spoil := range map[string]func(*Options){
		"source":    func(o *Options) { o.Source = nil },
		"publisher": func(o *Options) { o.Publisher = nil },
		"window":    func(o *Options) { o.Window = -1 },
		"order":     func(o *Options) { o.Order = "newest" },
		"rate":      func(o *Options) { o.ByteRate = -1 },
	} {
		o := good
		if spoil(&o); func() error { _, err := New(o); return err }() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
