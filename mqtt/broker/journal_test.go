package broker

import (
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// records returns a store with records, as a run has left them.
func records(recs ...[]byte) *memStore { return &memStore{recs: recs, synced: len(recs)} }

// A power cut may take the record of a session's end and leave its successor's: of an identifier's sessions the one that
// began last is it, whatever is in the store of others, in whatever order.
func TestTheLastSessionOfAnIdentifierIsIt(t *testing.T) {
	of := func(num uint64, filter string) []byte {
		rec := appendSession(nil, &session{id: "c", num: num, expiry: never})
		return appendSubscription(rec, num, &mqtt.Subscription{Filter: filter, QoS: 1}, 0)
	}
	for name, store := range map[string]*memStore{
		"in order":           records(of(1, "old"), of(2, "new")),
		"first the snapshot": records(of(2, "new"), of(1, "old")),
		"with its end":       records(of(2, "new"), of(1, "old"), appendNum(nil, opEnd, 1)),
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, Options{Store: store})
			if s := b.Stats(); s.Sessions != 1 || s.Subscriptions != 1 {
				t.Errorf("%d sessions and %d subscriptions, want one each", s.Sessions, s.Subscriptions)
			}
			c, ack := connect(t, b, mqtt.V5, "c", persistent)
			if !ack.SessionPresent {
				t.Error("the session is lost")
			}
			pub := join(t, b, mqtt.V5, "pub")
			if code := pub.publish("old", "x", 1); code != mqtt.NoMatchingSubscribers {
				t.Errorf("to the old subscription: %s", code)
			}
			pub.publish("new", "x", 1)
			c.message("new", "x")
		})
	}
}

// A power cut may take the record that a message was sent and leave that of a later one: they come in their order all
// the same, the later one with its identifier [MQTT-4.6.0-6] [MQTT-4.4.0-1].
func TestOrderAfterALostRecord(t *testing.T) {
	for _, qos := range []mqtt.QoS{1, 2} {
		m := func(payload string, seq uint64) []byte {
			rec := appendMessage([]byte{opMessage}, &message{Message: mqtt.Message{Topic: "t", Payload: []byte(payload), QoS: qos}}, seq)
			return appendOwed(appendUint(rec, 1), 1, qos, false, nil, nil)
		}
		sent := func(seq uint64, id uint16) []byte { return appendID(appendUint(appendNum(nil, opSent, 1), seq), id) }
		store := records(appendSession(nil, &session{id: "c", num: 1, expiry: never}),
			m("first", 1), m("second", 2), m("third", 3), m("fourth", 4), sent(1, 9), sent(3, 5))
		b := start(t, Options{Store: store})
		c := join(t, b, mqtt.V5, "c", persistent)
		ids := map[string]uint16{}
		for _, payload := range []string{"first", "second", "third", "fourth"} {
			ids[payload] = c.message("t", payload).ID
		}
		if ids["first"] != 9 || ids["third"] != 5 || len(slices.Compact(slices.Sorted(maps.Values(ids)))) != 4 {
			t.Errorf("identifiers are %v", ids)
		}
		b.journal.sync()
		c = join(t, start(t, Options{Store: store.crash(true)}), mqtt.V5, "c", persistent)
		for _, payload := range []string{"first", "second", "third", "fourth"} {
			if m := c.message("t", payload); m.ID != ids[payload] {
				t.Errorf("%s came again with identifier %d, want %d", payload, m.ID, ids[payload])
			}
		}
	}
}

// What a connection is told to be gone already is so only once the store has it from the connection before: after a power
// cut a QoS 2 identifier would be known that its client uses for the next message [MQTT-4.3.3-12].
func TestWhatIsGoneAlreadyIsSoAfterTheSync(t *testing.T) {
	for name, c := range map[string]struct {
		end  packet.Packet // what ends it
		told func(p *peer)
	}{
		"identifier": {&packet.Pubrel{ID: 7}, func(p *peer) {
			if c := expect[*packet.Pubcomp](p); c.Code != mqtt.PacketIDNotFound {
				t.Errorf("PUBCOMP says %s", c.Code)
			}
		}},
		"subscription": {&packet.Unsubscribe{ID: 2, Filters: []string{"t"}}, func(p *peer) {
			if u := expect[*packet.Unsuback](p); u.Codes[0] != mqtt.NoSubscriptionExisted {
				t.Errorf("UNSUBACK says %s", u.Codes[0])
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			store := &memStore{}
			b := start(t, Options{Store: store})
			p := join(t, b, mqtt.V5, "c", persistent)
			p.subscribed("t", 0)
			p.send(&packet.Publish{Topic: "nobody", QoS: 2, ID: 7})
			expect[*packet.Pubrec](p)
			release := store.holdSyncs()
			p.send(c.end)
			p.silence() // nothing is said yet
			p.drop()
			p = join(t, b, mqtt.V5, "c", persistent)
			p.send(c.end)
			p.silence()
			release()
			c.told(p)
		})
	}
}

// Nothing that a snapshot stands for comes again in the log behind it: torn there, it would take back what the snapshot has.
func TestNothingOfASnapshotIsInTheLogBehindIt(t *testing.T) {
	store := &memStore{}
	b := start(t, Options{Store: store})
	for _, payload := range []string{"first", "second"} { // as within a batch, whose records are not handed over yet
		b.retain(&message{Message: mqtt.Message{Topic: "t", Payload: []byte(payload), Retain: true}})
	}
	if err := b.journal.snapshot(); err != nil {
		t.Fatal(err)
	}
	b.journal.flush()
	if n := len(store.crash(false).recs); n != 2 {
		t.Errorf("%d records, want the time and one message", n)
	}
	store.synced = 2 // the log is lost
	late := join(t, start(t, Options{Store: store.crash(true)}), mqtt.V5, "late")
	late.subscribed("t", 0)
	late.message("t", "second")
}

// A hoarder is a store that takes records, but no snapshot.
type hoarder struct {
	memStore
	extra atomic.Int64 // of its size
	tries atomic.Int64
}

func (s *hoarder) Size() int64 { return s.memStore.Size() + s.extra.Load() }

func (s *hoarder) Snapshot(write func(put func([]byte) error) error) error {
	s.tries.Add(1)
	_ = write(func([]byte) error { return nil })
	return errDisk
}

// Where there is room for the log but not for a snapshot, acknowledgements go on, and a snapshot is not tried without end.
func TestASnapshotThatFailsHarmsNobody(t *testing.T) {
	store := &hoarder{}
	b := start(t, Options{Store: store})
	sub := join(t, b, mqtt.V311, "sub", persistent)
	sub.subscribed("t", 1)
	pub := join(t, b, mqtt.V311, "pub")
	deliver := func() {
		t.Helper()
		pub.publish("t", "x", 1)
		sub.send(&packet.Puback{ID: sub.message("t", "x").ID})
	}
	for try := range int64(3) {
		store.extra.Add(2 * snapshotBytes)
		deliver()
		until(t, "a snapshot is tried", func() bool { return store.tries.Load() > try && !b.journal.snapping.Load() })
		for range 5 {
			deliver()
		}
		if n := store.tries.Load(); n != try+1 {
			t.Fatalf("%d tries, want %d", n, try+1)
		}
	}
	if n := b.Stats().StoreErrors; n != 3 {
		t.Errorf("%d errors counted, want 3", n)
	}
	b = start(t, Options{Store: store.crash(true)})
	join(t, b, mqtt.V311, "sub", persistent)
}

// A forgetful store has refused a record, and is not made to take it back by a snapshot that fails in the end.
type forgetful struct {
	memStore
	failing atomic.Bool
	failed  atomic.Int64
}

func (s *forgetful) Snapshot(write func(put func([]byte) error) error) error {
	return s.memStore.Snapshot(func(put func([]byte) error) error {
		if err := write(put); err != nil {
			return err
		}
		if s.failing.Load() {
			s.failed.Add(1)
			return errDisk
		}
		return nil
	})
}

// What the store refused is not there until a snapshot has succeeded: nothing is acknowledged because one was tried.
func TestASnapshotThatFailsMendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &forgetful{}
		b := start(t, Options{Store: store})
		sub, _ := piped(t, b, mqtt.V311, "sub", persistent)
		sub.subscribed("t", 1)
		sub.leave()
		pub, _ := piped(t, b, mqtt.V311, "pub")
		store.failing.Store(true)
		store.setBroken(true)
		pub.send(&packet.Publish{Topic: "t", QoS: 1, ID: 1, Payload: []byte("x")})
		synctest.Wait()
		store.setBroken(false)
		time.Sleep(10 * retryPause)
		synctest.Wait()
		if store.failed.Load() < 5 {
			t.Errorf("%d attempts", store.failed.Load())
		}
		pub.silence()
		store.failing.Store(false)
		time.Sleep(2 * retryPause)
		expect[*packet.Puback](pub)
		sub, _ = piped(t, start(t, Options{Store: store.crash(true)}), mqtt.V311, "sub", persistent)
		sub.message("t", "x")
	})
}

// unsubscribe ends a subscription as onUnsubscribe does. It needs s.mu.
func (s *session) unsubscribe(filter string) {
	sub := s.subs[filter]
	sub.gone = true
	s.dropSub(filter)
	s.b.subs.remove(sub)
	s.b.journal.unsubscribed(s, filter)
}

// A member that leaves a shared subscription while its message is on the way takes none along: it is another's turn, or
// nobody's (4.8.2). Nor does it come to the member after a restart.
func TestAMemberThatLeavesTakesNoMessageAlong(t *testing.T) {
	for _, filter := range []string{"t", "$share/g/t"} {
		t.Run(filter, func(t *testing.T) {
			store := &memStore{}
			b := start(t, Options{Store: store})
			one := join(t, b, mqtt.V5, "one", persistent)
			one.subscribed(filter, 1)
			two := join(t, b, mqtt.V5, "two", persistent)
			two.subscribed("$share/g/t", 1)
			two.subscribed("other", 1)
			b.mu.Lock()
			s := b.sessions["one"]
			b.mu.Unlock()
			pub := join(t, b, mqtt.V5, "pub")
			before := b.journal.appended.Load()

			s.mu.Lock()
			pub.send(&packet.Publish{Topic: "t", QoS: 1, ID: 1, Payload: []byte("x")})
			until(t, "the message is recorded", func() bool { return b.journal.appended.Load() > before })
			s.unsubscribe(filter)
			s.mu.Unlock()

			expect[*packet.Puback](pub)
			two.send(&packet.Puback{ID: two.message("t", "x").ID})
			two.silence()
			one.silence()
			b.journal.sync()
			b = start(t, Options{Store: store.crash(true)})
			join(t, b, mqtt.V5, "one", persistent).silence()
			join(t, b, mqtt.V5, "two", persistent).silence()
		})
	}
}

// A session that a message reaches on two ways, one of them shared, has two of it, and the acknowledgement of one does not
// end the other.
func TestTwoOfOneMessageAreTwo(t *testing.T) {
	for _, qos := range []mqtt.QoS{1, 2} {
		store := &memStore{}
		b := start(t, Options{Store: store})
		c := join(t, b, mqtt.V5, "c", persistent)
		for _, filter := range []string{"t", "$share/g/t", "$share/h/t"} {
			c.subscribed(filter, qos)
		}
		join(t, b, mqtt.V5, "pub").publish("t", "x", qos)
		ids := map[uint16]bool{}
		for range 3 {
			ids[c.message("t", "x").ID] = true
		}
		first := slices.Min(slices.Collect(maps.Keys(ids)))
		delete(ids, first)
		if qos == 1 {
			c.send(&packet.Puback{ID: first})
		} else {
			c.send(&packet.Pubrec{ID: first})
			expect[*packet.Pubrel](c)
			c.send(&packet.Pubcomp{ID: first})
		}
		c.silence()
		c = join(t, start(t, Options{Store: store.crash(false)}), mqtt.V5, "c", persistent)
		for range 2 {
			if m := c.message("t", "x"); !ids[m.ID] {
				t.Errorf("qos %d: identifier %d, want one of %v", qos, m.ID, ids)
			}
		}
		c.silence()
	}
}
