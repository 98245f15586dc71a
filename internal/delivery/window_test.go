package delivery

import (
	"errors"
	"testing"
	"time"

	"gateway/mqtt"
)

// bench drives a window without a broker.
type bench struct {
	t      *testing.T
	w      *window
	now    time.Time
	aside  []*parcel
	taken  []*parcel
	pulled int // withdrawals
}

func newBench(t *testing.T, size int) *bench {
	return &bench{t: t, w: newWindow(size), now: time.Unix(0, 0)}
}

// parcel makes one of n messages.
func (b *bench) parcel(n int) *parcel {
	p := &parcel{items: []item{{}}}
	p.out.Messages = make([]mqtt.Message, n)
	p.begin()
	return p
}

// send launches a new parcel, if the window lets it.
func (b *bench) send(p *parcel) bool {
	if !b.w.room(b.now) {
		return false
	}
	b.w.launch(p)
	return true
}

// resend launches all that the window wants sent again and returns it.
func (b *bench) resend() (list []*parcel) {
	for p := b.w.next(b.now); p != nil; p = b.w.next(b.now) {
		b.w.launch(p)
		list = append(list, p)
	}
	return list
}

func (b *bench) take(v verdict) {
	if v.delivered != nil {
		b.taken = append(b.taken, v.delivered)
	}
	b.aside = append(b.aside, v.aside...)
	if v.withdraw {
		b.pulled++
		for len(b.w.inFlight) > 0 {
			b.answer(b.w.inFlight[0], errors.New("withdrawn"))
		}
	}
}

// answer answers all messages of p that are in flight.
func (b *bench) answer(p *parcel, err error) {
	for i, s := range p.state {
		if s == flying {
			b.take(b.w.answer(p, i, err, b.now))
		}
	}
}

func (b *bench) up()   { b.take(b.w.link(true, 0)) }
func (b *bench) down() { b.take(b.w.link(false, 0)) }

func refusedBy(c mqtt.ReasonCode) error { return &mqtt.ReasonError{Op: "publish", Code: c} }

func TestTheWindowCountsMessagesNotParcels(t *testing.T) {
	b := newBench(t, 4)
	one, three, two := b.parcel(1), b.parcel(3), b.parcel(2)
	if !b.send(one) || !b.send(three) {
		t.Fatal("four messages do not fit into a window of four")
	}
	if b.send(two) {
		t.Fatal("six do")
	}
	b.answer(three, nil)
	if !b.send(two) || len(b.taken) != 1 {
		t.Error("no room after three acknowledgements")
	}
}

// A sample whose points are messages of their own may need more room than there is at all. It goes when one
// of its messages may, so that the line is never idle between two of them; while it is to be found out who is
// to blame, it goes alone.
func TestAParcelLargerThanTheWindowGoesBesideOthers(t *testing.T) {
	b := newBench(t, 4)
	small, large := b.parcel(1), b.parcel(20)
	b.send(small)
	if !b.send(large) {
		t.Error("not beside another")
	}
	if b.send(b.parcel(1)) {
		t.Error("a window of four takes more than 21")
	}
	b.answer(small, nil)
	b.answer(large, nil)
	b.w.limit = 1
	b.send(b.parcel(1))
	if b.send(b.parcel(20)) {
		t.Error("not alone while probing")
	}
}

func TestWhatIsGivenBackIsSentAgainInTheOrderOfItsFirstTransmission(t *testing.T) {
	b := newBench(t, 8)
	var list []*parcel
	for range 4 {
		p := b.parcel(1)
		b.send(p)
		list = append(list, p)
	}
	for _, i := range []int{2, 0, 3, 1} {
		b.answer(list[i], errors.New("given back"))
	}
	for i, p := range b.resend() {
		if p != list[i] {
			t.Errorf("place %d: the one sent as number %d", i, p.order)
		}
	}
	if b.w.repeated != 4 {
		t.Errorf("%d counted as sent again", b.w.repeated)
	}
}

func TestOnlyTheMessagesThatWereNotAcknowledgedAreSentAgain(t *testing.T) {
	b := newBench(t, 8)
	p := b.parcel(3)
	b.send(p)
	b.take(b.w.answer(p, 1, nil, b.now))
	b.answer(p, errors.New("given back"))
	q := b.w.next(b.now)
	if got := b.w.launch(q); len(got) != 2 || got[0] != 0 || got[1] != 2 {
		t.Errorf("sent again: %v", got)
	}
	b.answer(p, nil)
	if len(b.taken) != 1 || !b.w.idle() {
		t.Error("not delivered")
	}
}

func TestASingleRefusedParcelIsSetAsideWhileOthersAreTaken(t *testing.T) {
	b := newBench(t, 8)
	bad := b.parcel(1)
	b.send(bad)
	b.answer(bad, refusedBy(mqtt.PayloadFormatInvalid))
	if len(b.aside) != 0 {
		t.Fatal("condemned without a second trial")
	}
	for range 2 {
		good := b.parcel(1)
		if !b.send(good) {
			t.Fatal("one suspect stops everything")
		}
		b.answer(good, nil)
		for _, p := range b.resend() {
			b.answer(p, refusedBy(mqtt.PayloadFormatInvalid))
		}
	}
	if len(b.aside) != 1 || b.aside[0] != bad || len(b.taken) != 2 {
		t.Errorf("%d set aside, %d taken", len(b.aside), len(b.taken))
	}
}

func TestADestinationThatRefusesEverythingIsHeldNotEmptied(t *testing.T) {
	b := newBench(t, 64)
	sent := 0
	pauses := 0
	var last time.Duration
	for range 20 { // rounds
		for b.send(b.parcel(1)) {
			sent++
		}
		b.resend()
		for len(b.w.inFlight) > 0 {
			b.answer(b.w.inFlight[0], refusedBy(mqtt.NotAuthorized))
		}
		if wait := b.w.heldUntil.Sub(b.now); wait > 0 {
			pauses++
			if wait < last/2 || wait > 5*time.Minute {
				t.Errorf("pause %v after %v", wait, last)
			}
			last = wait
			b.now = b.w.heldUntil
		}
	}
	if len(b.aside) != 0 {
		t.Errorf("%d samples thrown out", len(b.aside))
	}
	if sent > 64 || pauses < 19 {
		t.Errorf("%d sent, %d pauses", sent, pauses)
	}
	// The permission is given: all of it is delivered.
	for range 100 {
		b.resend()
		for len(b.w.inFlight) > 0 {
			b.answer(b.w.inFlight[0], nil)
		}
		b.now = b.now.Add(time.Second)
	}
	if len(b.taken) != sent || !b.w.idle() || b.w.limit != 64 {
		t.Errorf("%d of %d delivered, limit %d", len(b.taken), sent, b.w.limit)
	}
}

func TestABusyBrokerIsWaitedForWithGrowingPauses(t *testing.T) {
	b := newBench(t, 8)
	p := b.parcel(1)
	b.send(p)
	for i := range 5 {
		b.answer(p, refusedBy(mqtt.QuotaExceeded))
		if b.w.next(b.now) != nil || b.w.room(b.now) {
			t.Fatal("no pause")
		}
		if wait, most := b.w.heldUntil.Sub(b.now), min(time.Second<<i, 5*time.Second); wait > most || wait < most*3/4 {
			t.Errorf("pause %d: %v", i, wait)
		}
		b.now = b.w.heldUntil
		if b.resend()[0] != p {
			t.Fatal("something else was sent")
		}
	}
	b.answer(p, nil)
	if len(b.taken) != 1 || len(b.aside) != 0 || b.w.held != nil {
		t.Error("not delivered")
	}
}

// Of a full window one answer says that the broker is busy, the others say it once more; and what it took
// before does not mean that it takes more. Then one message finds out.
func TestABusyBrokerIsAskedOnceAPauseWhateverWasInFlight(t *testing.T) {
	b := newBench(t, 8)
	var list []*parcel
	for range 8 {
		p := b.parcel(1)
		b.send(p)
		list = append(list, p)
	}
	for i, p := range list {
		err := refusedBy(mqtt.QuotaExceeded)
		if i == 2 || i == 5 {
			err = nil
		}
		b.answer(p, err)
	}
	if wait := b.w.heldUntil.Sub(b.now); wait > time.Second || wait < time.Second*3/4 {
		t.Errorf("waits %v for one refusal of a window", wait)
	}
	if b.w.next(b.now) != nil || b.w.room(b.now) {
		t.Error("an acknowledgement from before ended the waiting")
	}
	b.now = b.w.heldUntil
	again := b.resend()
	if len(again) == 0 || len(again) > 4 || again[0] != list[0] {
		t.Fatalf("%d sent again at first", len(again))
	}
	for len(b.w.inFlight) > 0 {
		b.answer(b.w.inFlight[0], nil)
		b.resend()
	}
	if len(b.taken) != 8 || b.w.limit != 8 || b.w.held != nil {
		t.Errorf("%d of 8 delivered, limit %d", len(b.taken), b.w.limit)
	}
}

// On 3.1.1 a broker can only end the connection: whoever does it is found by being alone.
func TestASampleThatBreaksConnectionsIsFoundAndSetAside(t *testing.T) {
	b := newBench(t, 8)
	var list []*parcel
	poison := 2
	for range 5 {
		p := b.parcel(1)
		list = append(list, p)
		b.send(p)
	}
	// The broker takes what comes before the poison on a connection, then ends it. What the client
	// has in flight it sends again after each reconnect, in order.
	connections := 0
	for ; len(b.taken) < 4 && connections < 100; connections++ {
		b.up()
		for alive := true; alive; {
			b.resend()
			if len(b.w.inFlight) == 0 {
				break
			}
			if p := b.w.inFlight[0]; p == list[poison] {
				alive = false
			} else {
				b.answer(p, nil)
			}
		}
		b.down()
	}
	b.up()
	for range 3 { // later samples confirm the verdict
		p := b.parcel(1)
		if b.send(p) {
			b.answer(p, nil)
		}
		if again := b.resend(); len(again) > 0 {
			b.down()
			b.up()
			b.down()
			b.up()
			b.down()
			b.up()
		}
	}
	if len(b.aside) != 1 || b.aside[0] != list[poison] {
		t.Errorf("%d set aside after %d connections, %d taken", len(b.aside), connections, len(b.taken))
	}
}

func TestABrokerThatBreaksOnEverythingLosesNothing(t *testing.T) {
	b := newBench(t, 8)
	sent := 0
	for range 200 {
		b.up()
		b.resend()
		for b.send(b.parcel(1)) {
			sent++
		}
		b.down()
		b.now = b.now.Add(time.Minute)
	}
	if len(b.aside) != 0 {
		t.Fatalf("%d set aside", len(b.aside))
	}
	if b.w.held == nil || sent > 20 {
		t.Errorf("held: %v, %d sent", b.w.held, sent)
	}
	b.now = b.now.Add(time.Hour)
	b.up()
	for range 100 {
		b.resend()
		for len(b.w.inFlight) > 0 {
			b.answer(b.w.inFlight[0], nil)
		}
	}
	if len(b.taken) != sent {
		t.Errorf("%d of %d delivered", len(b.taken), sent)
	}
}

func TestAFlakyLinkBlamesNobody(t *testing.T) {
	b := newBench(t, 8)
	sent := 0
	for i := range 2000 {
		b.up()
		b.resend()
		for sent < 1000 && b.send(b.parcel(1)) {
			sent++
		}
		// One in three connections brings something through, at least as often as the window asks.
		if i%3 == 0 && len(b.w.inFlight) > 0 {
			b.answer(b.w.inFlight[0], nil)
		}
		b.down()
	}
	if len(b.aside) != 0 || len(b.w.suspects) != 0 || len(b.taken) < 600 {
		t.Errorf("%d set aside, %d suspects, %d of %d taken", len(b.aside), len(b.w.suspects), len(b.taken), sent)
	}
}

func TestADisconnectWithNothingInFlightMeansNothing(t *testing.T) {
	b := newBench(t, 8)
	for range 10 {
		b.up()
		b.down()
	}
	b.up()
	if b.w.breaks != 0 || b.w.limit != 8 || b.pulled != 0 {
		t.Errorf("%d breaks, limit %d", b.w.breaks, b.w.limit)
	}
}

func TestTheWindowOpensAgainAfterProbing(t *testing.T) {
	b := newBench(t, 64)
	p := b.parcel(1)
	b.up()
	b.send(p)
	for range breaksToProbe {
		b.down()
		b.up()
	}
	if b.w.limit != 1 || b.pulled != 1 {
		t.Fatalf("limit %d, %d withdrawals", b.w.limit, b.pulled)
	}
	b.resend()
	b.answer(p, nil)
	for range 10 {
		p := b.parcel(1)
		b.send(p)
		b.answer(p, nil)
	}
	if b.w.limit != 64 {
		t.Errorf("limit %d", b.w.limit)
	}
}
