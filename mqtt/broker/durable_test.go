package broker

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// A memStore is a Store in memory that can lose what was not synced, hold syncs up and fail.
type memStore struct {
	mu     sync.Mutex
	recs   [][]byte
	synced int
	syncs  int
	snaps  int
	hold   chan struct{}    // while it is not nil a Sync waits until it is closed
	turns  <-chan time.Time // where it is not nil a Sync waits for the next, as for a disk that turns
	broken bool
	size   int64
}

func (s *memStore) Replay(fn func([]byte) error) error {
	for _, r := range s.recs {
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

var errDisk = errors.New("no space left on device")

func (s *memStore) Append(rec []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return errDisk
	}
	s.recs = append(s.recs, append([]byte(nil), rec...))
	s.size += int64(len(rec))
	return nil
}

func (s *memStore) Sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	upto, snaps := len(s.recs), s.snaps
	if s.turns != nil {
		s.mu.Unlock()
		<-s.turns
		s.mu.Lock()
	}
	for s.hold != nil {
		hold := s.hold
		s.mu.Unlock()
		<-hold
		s.mu.Lock()
	}
	if s.broken {
		return errDisk
	}
	if snaps == s.snaps { // a snapshot meanwhile has synced all
		s.synced = max(s.synced, upto)
	}
	s.syncs++
	return nil
}

func (s *memStore) Snapshot(write func(put func([]byte) error) error) error {
	s.mu.Lock()
	if s.broken {
		s.mu.Unlock()
		return errDisk
	}
	s.mu.Unlock()
	var snap [][]byte
	at := 0 // where the log behind it begins
	if err := write(func(r []byte) error {
		if snap == nil {
			s.mu.Lock()
			at = len(s.recs)
			s.mu.Unlock()
		}
		snap = append(snap, append([]byte(nil), r...))
		return nil
	}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recs = append(snap, s.recs[at:]...)
	s.synced, s.size = len(s.recs), 0
	s.snaps++
	return nil
}

func (s *memStore) Size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

// crash returns what a kill -9 leaves, or a power cut, which takes what was not synced.
func (s *memStore) crash(power bool) *memStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.recs)
	if power {
		n = s.synced
	}
	return &memStore{recs: append([][]byte(nil), s.recs[:n]...), synced: n}
}

// die is crash at work: the broker that has the store gets nothing into it any more.
func (s *memStore) die(power bool) *memStore {
	s.setBroken(true)
	return s.crash(power)
}

func (s *memStore) setBroken(b bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = b
}

// holdSyncs keeps syncs from ending until the function that it returns is called.
func (s *memStore) holdSyncs() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hold := make(chan struct{})
	s.hold = hold
	return func() {
		s.mu.Lock()
		s.hold = nil
		s.mu.Unlock()
		close(hold)
	}
}

// The ways in which a broker ends, and what of its store is there afterwards.
var endings = map[string]func(s *memStore, stop func()) *memStore{
	"stop":      func(s *memStore, stop func()) *memStore { stop(); return s.crash(true) },
	"kill -9":   func(s *memStore, stop func()) *memStore { return s.crash(false) },
	"power cut": func(s *memStore, stop func()) *memStore { return s.crash(true) },
}

func TestPersistentStateSurvives(t *testing.T) {
	for name, end := range endings {
		for _, snapshot := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, snapshot %t", name, snapshot), func(t *testing.T) {
				store := &memStore{}
				b, stop := startStop(t, Options{Store: store})
				sub := join(t, b, mqtt.V5, "sub", persistent)
				s := &packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a/#", QoS: 2, RetainAsPublished: true}}}
				s.Properties.SetSubscriptionID(77)
				sub.send(s)
				expect[*packet.Suback](sub)
				sub.subscribed("gone", 1)
				sub.send(&packet.Unsubscribe{ID: 2, Filters: []string{"gone"}})
				expect[*packet.Unsuback](sub)
				pub := join(t, b, mqtt.V5, "pub", persistent)

				pub.publish("a/done", "acknowledged", 1)
				sub.send(&packet.Puback{ID: sub.message("a/done", "acknowledged").ID})
				pub.publish("a/1", "sent at qos 1", 1)
				one := sub.message("a/1", "sent at qos 1")
				pub.publish("a/2", "sent at qos 2", 2)
				two := sub.message("a/2", "sent at qos 2")
				pub.publish("a/3", "received", 2)
				three := sub.message("a/3", "received")
				sub.send(&packet.Pubrec{ID: three.ID})
				expect[*packet.Pubrel](sub)
				sub.silence()
				sub.drop()
				until(t, "the subscriber is gone", func() bool { return b.Stats().Connected == 1 })
				if snapshot {
					if err := b.journal.snapshot(); err != nil {
						t.Fatal(err)
					}
				}
				user := []mqtt.UserProperty{{Name: "k", Value: "v"}}
				pub.publish("a/4", "offline", 1, asRetained, func(p *packet.Publish) {
					ps := &p.Properties
					ps.SetUser(user)
					ps.SetContentType("c")
					ps.SetResponseTopic("r")
					ps.SetCorrelationData([]byte{1})
					ps.SetMessageExpiry(1000)
					ps.SetPayloadFormat(1)
				})
				pub.publish("r", "to be cleared", 1, asRetained)
				pub.publish("r", "", 1, asRetained)
				pub.send(&packet.Publish{Topic: "a/5", QoS: 2, ID: 55, Payload: []byte("half way")})
				expect[*packet.Pubrec](pub)

				b = start(t, Options{Store: end(store, stop)})
				pub, ack := connect(t, b, mqtt.V5, "pub", persistent)
				if !ack.SessionPresent {
					t.Fatal("the publisher's session is gone")
				}
				pub.send(&packet.Publish{Topic: "a/5", QoS: 2, ID: 55, Payload: []byte("half way"), Dup: true})
				expect[*packet.Pubrec](pub)
				pub.send(&packet.Pubrel{ID: 55})
				if c := expect[*packet.Pubcomp](pub); c.Code != mqtt.Success {
					t.Errorf("PUBCOMP says %s: the identifier was forgotten", c.Code)
				}
				sub, ack = connect(t, b, mqtt.V5, "sub", persistent)
				if !ack.SessionPresent {
					t.Fatal("the subscriber's session is gone")
				}
				// In flight: with the same identifiers [MQTT-4.4.0-1], to the receiver and not to the sender (mochi-mqtt #406).
				got := map[string]uint16{}
				for range 5 {
					switch p, err := sub.next(patience); p := p.(type) {
					case *packet.Publish:
						got[p.Topic] = p.ID
						if p.Topic == "a/4" {
							ps := &p.Properties
							if !p.Retain || ps.ContentType != "c" || ps.ResponseTopic != "r" || string(ps.CorrelationData) != "\x01" ||
								ps.MessageExpiry > 1000 || ps.MessageExpiry < 990 || ps.PayloadFormat != 1 || !cmp.Equal(ps.User, user) ||
								!cmp.Equal(ps.SubscriptionID, []uint32{77}) {
								t.Errorf("a/4 came as %+v %+v", p, ps)
							}
						}
					case *packet.Pubrel:
						got["PUBREL"] = p.ID
					default:
						t.Fatalf("got %T, %v, after %v", p, err, got)
					}
				}
				sub.silence()
				if got["a/2"] != two.ID || got["PUBREL"] != three.ID {
					t.Errorf("qos 2 came with %v, want %d for a/2 and PUBREL of %d", got, two.ID, three.ID)
				}
				// What is noted of QoS 1 waits for no sync: after a power cut it may come again under another identifier.
				if _, there := got["a/1"]; !there || name != "power cut" && got["a/1"] != one.ID {
					t.Errorf("a/1 came with %v, want %d", got, one.ID)
				}
				for _, topic := range []string{"a/4", "a/5"} {
					if _, there := got[topic]; !there {
						t.Errorf("%s is lost: %v", topic, got)
					}
				}
				late := join(t, b, mqtt.V5, "late")
				late.subscribed("#", 0)
				late.message("a/4", "offline")
				late.silence()
			})
		}
	}
}

// The acknowledgement of a message that a persistent session is owed comes after the sync; that of others does not
// wait.
func TestAcknowledgementsFollowTheSync(t *testing.T) {
	store := &memStore{}
	b := start(t, Options{Store: store})
	sub := join(t, b, mqtt.V311, "sub", persistent)
	sub.subscribed("owed", 2)
	sub.leave()
	free := join(t, b, mqtt.V5, "free")
	free.publish("nobody", "x", 1)
	pub := join(t, b, mqtt.V5, "pub")
	release := store.holdSyncs()
	pub.send(
		&packet.Publish{Topic: "owed", QoS: 1, ID: 1},
		&packet.Publish{Topic: "nobody", QoS: 1, ID: 2}, // in the order of the messages [MQTT-4.6.0-2]
		&packet.Publish{Topic: "owed", QoS: 2, ID: 3},
	)
	pub.silence()
	free.publish("nobody", "x", 1)
	release()
	if p := expect[*packet.Puback](pub); p.ID != 1 {
		t.Errorf("PUBACK of %d", p.ID)
	}
	if p := expect[*packet.Puback](pub); p.ID != 2 {
		t.Errorf("PUBACK of %d", p.ID)
	}
	expect[*packet.Pubrec](pub)
	b = start(t, Options{Store: store.crash(true)})
	sub = join(t, b, mqtt.V311, "sub", persistent)
	sub.message("owed", "")
	sub.message("owed", "")
}

// Messages of the process itself do not trigger a sync; done comes with the window or somebody else's.
// Retained messages come after the SUBACK, also where that waits for the store: clients expect it, although the
// specification does not promise it (3.8.4).
func TestRetainedMessagesFollowTheSuback(t *testing.T) {
	store := &memStore{}
	b := start(t, Options{Store: store})
	pub := join(t, b, mqtt.V5, "pub")
	pub.publish("retained", "x", 1, asRetained)
	sub := join(t, b, mqtt.V5, "sub", persistent)
	release := store.holdSyncs()
	sub.send(&packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: "#", QoS: 1}}})
	sub.silence()
	release()
	expect[*packet.Suback](sub)
	sub.message("retained", "x")
}

func TestPublishFromWithinDoesNotTriggerTheSync(t *testing.T) {
	store := &memStore{}
	b := start(t, Options{Store: store, SyncWindow: time.Hour})
	sub := join(t, b, mqtt.V311, "sub", persistent)
	sub.subscribed("t", 1)
	done := make(chan error, 2)
	m := &mqtt.Message{Topic: "t", Payload: []byte("x"), QoS: 1}
	if err := b.Publish(t.Context(), m, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	sub.message("t", "x") // delivery does not wait
	if err := b.Publish(t.Context(), &mqtt.Message{Topic: "nobody", QoS: 1}, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	<-done // nothing is owed
	select {
	case <-done:
		t.Fatal("done before the sync")
	default:
	}
	join(t, b, mqtt.V311, "pub").publish("t", "waits", 1)
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("done did not come with somebody else's sync")
	}
}

// While the store fails messages go on, and acknowledgements of what it should keep wait.
// With a negative window nothing waits for somebody else's sync.
func TestEverythingTriggersTheSync(t *testing.T) {
	b := start(t, Options{Store: &memStore{}, SyncWindow: -1})
	done := make(chan error, 1)
	m := &mqtt.Message{Topic: "t", Payload: []byte("x"), Retain: true}
	if err := b.Publish(t.Context(), m, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("nobody synced")
	}
}

func TestAFailingStore(t *testing.T) {
	store := &memStore{}
	b := start(t, Options{Store: store})
	sub := join(t, b, mqtt.V311, "sub", persistent)
	sub.subscribed("t", 1)
	pub := join(t, b, mqtt.V311, "pub")
	store.setBroken(true)
	pub.send(&packet.Publish{Topic: "t", QoS: 1, ID: 1, Payload: []byte("x")})
	sub.message("t", "x")
	pub.silence()
	if b.Stats().StoreErrors == 0 {
		t.Error("the failure is not counted")
	}
	store.setBroken(false)
	expect[*packet.Puback](pub) // after a snapshot made up for it
	b = start(t, Options{Store: store.crash(true)})
	sub = join(t, b, mqtt.V311, "sub", persistent)
	sub.message("t", "x")
}

func TestEndedSessionsAreForgotten(t *testing.T) {
	store := &memStore{}
	b := start(t, Options{Store: store})
	for range 3 {
		sub := join(t, b, mqtt.V311, "sub", persistent)
		sub.subscribed("t", 1)
		join(t, b, mqtt.V311, "pub").publish("t", "x", 1)
		sub.message("t", "x")
		sub.leave()
		join(t, b, mqtt.V311, "sub").leave() // clean: ends it
	}
	if err := b.journal.snapshot(); err != nil {
		t.Fatal(err)
	}
	if n := len(store.recs); n != 1 || store.recs[0][0] != opClock {
		t.Errorf("%d records are left, want only the time: the sessions have ended", n)
	}
	b = start(t, Options{Store: store.crash(true)})
	if _, ack := connect(t, b, mqtt.V311, "sub", persistent); ack.SessionPresent {
		t.Error("a session that has ended is back")
	}
}

// A snapshot taken at work repeats some of the log behind it: nothing may be lost, doubled or revived.
func TestSnapshotsBesideWork(t *testing.T) {
	store := &memStore{}
	b := start(t, Options{Store: store})
	sub := join(t, b, mqtt.V311, "sub", persistent)
	sub.subscribed("t", 1)
	pub := join(t, b, mqtt.V311, "pub")
	stop := make(chan struct{})
	var snaps sync.WaitGroup
	snaps.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := b.journal.snapshot(); err != nil {
				t.Error(err)
			}
		}
	})
	const n = 200
	for i := range n {
		pub.publish("t", fmt.Sprint(i), 1)
		m := sub.message("t", fmt.Sprint(i))
		if i%2 == 0 {
			sub.send(&packet.Puback{ID: m.ID})
		}
	}
	sub.silence()
	close(stop)
	snaps.Wait()
	b.journal.sync()
	b = start(t, Options{Store: store.crash(true), Limits: Limits{Inflight: n}})
	sub = join(t, b, mqtt.V311, "sub", persistent)
	for i := range n / 2 {
		sub.message("t", fmt.Sprint(2*i+1))
	}
	sub.silence()
}

// A lateStore is a store in which something happens while a snapshot is written, and is in the log behind it.
type lateStore struct {
	memStore
	during func()
}

func (s *lateStore) Snapshot(write func(put func([]byte) error) error) error {
	n := 0
	err := s.memStore.Snapshot(func(put func([]byte) error) error {
		return write(func(r []byte) error {
			if n++; n == 2 { // the first session is in it, the others are not; the clock came before
				s.during()
			}
			return put(r)
		})
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced = n // a power cut may take the log and leave the snapshot
	return err
}

// A snapshot had the identifier of a QoS 2 message, or the message, and the log behind it both: a power cut took
// the log, and what the client, who had heard nothing, sent again was known already, or new. [MQTT-4.3.3-10]
func TestASnapshotHasAMessageAndItsIdentifierOrNeither(t *testing.T) {
	for _, first := range []string{"sub", "pub"} { // whose session is in the snapshot before the message comes
		t.Run(first+" first", func(t *testing.T) {
			store := &lateStore{}
			b := start(t, Options{Store: store})
			if first == "pub" {
				join(t, b, mqtt.V311, "pub", persistent).leave()
			}
			sub := join(t, b, mqtt.V311, "sub", persistent)
			sub.subscribed("t", 2)
			sub.leave()
			pub := join(t, b, mqtt.V311, "pub", persistent)
			b.journal.sync()
			defer store.holdSyncs()()
			store.during = func() {
				before := b.journal.appended.Load()
				pub.send(&packet.Publish{Topic: "t", Payload: []byte("x"), QoS: 2, ID: 7})
				until(t, "the message is in the log", func() bool { return b.journal.appended.Load() > before && !b.journal.noted.Load() })
			}
			if err := b.journal.snapshot(); err != nil {
				t.Fatal(err)
			}

			b = start(t, Options{Store: store.crash(true)})
			pub = join(t, b, mqtt.V311, "pub", persistent)
			pub.publish("t", "x", 2, func(p *packet.Publish) { p.ID, p.Dup = 7, true })
			sub = join(t, b, mqtt.V311, "sub", persistent)
			sub.message("t", "x")
			sub.silence()
		})
	}
}

func TestDamagedRecordsCostOnlyThemselves(t *testing.T) {
	store := &memStore{}
	b, stop := startStop(t, Options{Store: store})
	pub := join(t, b, mqtt.V311, "pub")
	for i := range 3 {
		pub.publish(fmt.Sprint("r", i), "x", 1, asRetained)
	}
	stop()
	store.recs[1] = []byte{opRetained, 200, 1}
	store.recs = append(store.recs, []byte{99}, []byte{opMessage}, []byte{opSubscribe, 1, 5})
	b = start(t, Options{Store: store})
	late := join(t, b, mqtt.V311, "late")
	late.subscribed("#", 0)
	expect[*packet.Publish](late)
	expect[*packet.Publish](late)
	late.silence()
}

func FuzzRecords(f *testing.F) {
	store := &memStore{}
	b, err := New(Options{Store: store})
	if err != nil {
		f.Fatal(err)
	}
	s := &session{b: b, id: "c", num: 1, expiry: never}
	m := &message{Message: mqtt.Message{Topic: "t", Payload: []byte("x"), QoS: 2, User: []mqtt.UserProperty{{Name: "a", Value: "b"}}}, seq: 3}
	f.Add(appendSession(nil, s))
	f.Add(appendOwed(appendUint(appendMessage(append(appendSession(nil, s), opMessage), m, 3), 1), 1, 2, true, []uint32{7}, &shareGroup{filter: "$share/g/t"}))
	f.Add(appendMessage([]byte{opRetained}, m, 3))
	w := &will{m: m, seq: 4, seconds: 5, delay: time.Second, client: &Client{ID: "c", Username: "u"}}
	f.Add(appendWill(appendUint(appendNum(appendSession(nil, s), opLeft, 1), 9), 1, w))
	f.Add(appendNum(appendWill(nil, 7, w), opExecuted, 4))
	f.Add(appendClock(nil, 1, func() (string, time.Duration) { return "boot", time.Hour }))
	f.Add(appendSubscription(appendSession(nil, s), 1, &mqtt.Subscription{Filter: "a/#", QoS: 1}, 5))
	f.Fuzz(func(t *testing.T, rec []byte) {
		b, err := New(Options{Store: &memStore{recs: [][]byte{rec}}})
		if err != nil {
			t.Fatal(err)
		}
		defer b.endTimers()
		if err := b.journal.snapshot(); err != nil {
			t.Fatal(err)
		}
	})
}
